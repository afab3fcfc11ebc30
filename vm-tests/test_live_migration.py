# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that go from one host to another while they run: the guest does not notice, and whatever happens on
the way it runs on one of the two.

CRASH_POINTS=24 pytest vm-tests/test_live_migration.py breaks something at as many moments (2 if not set).
"""

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import busy
import disks
import far_host
import pytest
from conftest import imported
from far_host import names
from guests import Instance, python, syscont, unique, until
from hosts import ContainerHost, Host, images
from test_copy_between import image_count, settled
from test_crash import POINTS

BOOT = 240.0
TINY = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=256MiB", "-c", "migration.stateful=true")
WORKS = ("beat", "talk", "write")
KILL = "systemctl kill --signal=KILL --kill-whom=main syscontd.service"


@pytest.fixture(scope="module")
def hosts(deb: Path) -> Iterator[tuple[Host, Host]]:
    with far_host.installed(ContainerHost, deb, "vms") as base, far_host.joined(base, bridged=True) as both:
        yield both


@pytest.fixture(scope="module")
def near(hosts: tuple[Host, Host]) -> Host:
    return hosts[0]


@pytest.fixture(scope="module")
def far(hosts: tuple[Host, Host]) -> Host:
    return hosts[1]


@pytest.fixture(scope="module")
def tiny(near: Host) -> str:
    return imported(near, "tiny", *images.tiny_vm(), "--vm")


def pauses(host: Host) -> list[str]:
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return [one["result"]["pause"] for one in found if one["kind"] == "send-instance" and "pause" in one["result"]]


def sends_memory(host: Host) -> str:
    """The operation that does; others that have ended are listed for a while."""
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return next((str(one["id"]) for one in found if (one["status"], one["stage"]) == ("running", "memory")), "")


def of_qemu(host: Host, name: str, command: str) -> str:
    """What it answers."""
    uuid = Instance(host, name).seen()["uuid"]
    return python(host, "ask_qemu", f"/run/syscont/vm/{uuid}.control", command).stdout


def state_of_qemu(host: Host, name: str) -> str:
    return str(json.loads(of_qemu(host, name, "query-status"))["status"])


# a guest that does things


@pytest.fixture(scope="module")
def listener(near: Host) -> Iterator[busy.Listener]:
    one = busy.Listener(near)
    yield one
    one.close()


@pytest.fixture(scope="module")
def guest(near: Host, listener: busy.Listener) -> Iterator[Instance]:
    """A Debian that is busy, on near."""
    one = busy.launch(near, imported(near, "debian", *images.debian_vm(), "--vm"), "busy", BOOT)
    busy.begin(one, *WORKS)
    yield one
    for name in ("busy", "far:busy"):
        syscont(near, "delete", "--force", name, check=False)


def moved(near: Host, there: bool, name: str = "busy") -> None:
    syscont(near, "move", *((name, "far:") if there else (f"far:{name}", "local:")), timeout=120)


def test_a_guest_does_not_notice(near: Host, far: Host, guest: Instance, listener: busy.Listener) -> None:
    """To and fro."""
    boot = guest.sh("cat /proc/sys/kernel/random/boot_id")
    facts = guest.seen()
    for there in (True, False):
        listener.since()
        time.sleep(1)
        moved(near, there)
        time.sleep(1)
        heard = listener.since()
        one = Instance(far if there else near, "busy")
        assert names(near) == ([] if there else ["busy"])
        assert one.sh("cat /proc/sys/kernel/random/boot_id") == boot
        busy.check(one, *WORKS)
        assert {key: one.seen()[key] for key in ("uuid", "created", "type")} == {
            key: facts[key] for key in ("uuid", "created", "type")
        }
        assert one.systemd("ActiveState") == "active"
        assert heard.longest < 5, "emulated, on a machine of which others have a share"
        assert heard.missing < 1000
        assert heard.stream > 20
        assert not heard.broken
    assert pauses(near)
    assert "Traceback" not in near.journal(unit="syscontd.service") + far.journal(unit="syscontd.service")


def test_what_it_is_given_afterwards(near: Host, far: Host, guest: Instance) -> None:
    """It is like any other there: by its spec systemd starts it anew, and it can be changed, moved when it is stopped,
    and started."""
    moved(near, True)
    one = Instance(far, "busy")
    spec = json.loads(far.read_text(f"/run/syscont/instances/{one.seen()['uuid']}.json"))
    assert spec["arrives"] is False
    assert "-incoming" not in spec["arguments"]
    far.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(far, lambda: back(far))
    until(far, lambda: one.state == "running")
    until(near, lambda: syscont(near, "list", "far:", check=False).returncode == 0)
    syscont(far, "config", "set", "busy", "limits.memory=640MiB")
    until(far, lambda: memory(one) > 520 << 10)
    assert "was given more memory while it ran" in refused(near, "far:busy", "local:")
    syscont(far, "stop", "--force", "busy")
    moved(near, False)
    syscont(near, "start", "busy")
    assert state_of_qemu(near, "busy") == "running"


def memory(one: Instance) -> int:
    """In KiB, as the guest sees it."""
    return int(one.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo"))


# a small one


@pytest.fixture
def small(near: Host, far: Host, tiny: str) -> Iterator[Instance]:
    """A tiny machine that runs on near; nothing of it is left on either host afterwards."""
    one = Instance(near, unique("small"))  # its log is its own
    syscont(near, "launch", tiny, one.name, *TINY)
    until(near, lambda: images.WRITTEN in one.logs(), patience=BOOT)
    counts = {host: image_count(host) for host in (near, far)}
    yield one
    for name in (one.name, f"far:{one.name}"):
        syscont(near, "delete", "--force", name, check=False)
    for host, count in counts.items():
        settled(host, count)
        assert not host.sh(f"ps -eo args | grep '[q]emu-system.*guest={one.name}' || true")
        until(host, partial(_none_is_joined, host))
        assert "Traceback" not in host.journal(unit="syscontd.service")


@pytest.mark.parametrize("keys", [(), ("migration.channels=3", "migration.compression=zstd")], ids=["plain", "many"])
def test_either_host_calls_the_other_one(near: Host, far: Host, small: Instance, keys: tuple[str, ...]) -> None:
    """What was on for the way is not in the way of keeping memory afterwards, nor what was for that of another move."""
    syscont(near, "config", "set", small.name, *keys, "migration.stateful=true")
    syscont(near, "move", "--mode", "pull", small.name, "far:")
    many = json.loads(of_qemu(far, small.name, "query-migrate-capabilities"))
    assert {"capability": "multifd", "state": bool(keys)} in many
    syscont(near, "move", "--mode", "push", f"far:{small.name}", "local:")
    assert state_of_qemu(near, small.name) == "running"
    syscont(near, "stop", "--stateful", small.name)
    syscont(near, "start", small.name)
    assert state_of_qemu(near, small.name) == "running"
    syscont(near, "move", small.name, "far:")
    assert state_of_qemu(far, small.name) == "running"


# what is in the way


def _none_is_joined(host: Host) -> bool:
    return not host.sh("pgrep -x join || true")


def refused(near: Host, *argv: str) -> str:
    done = syscont(near, "move", *argv, check=False)
    assert done.returncode in (1, 4)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_it_has_to_be_allowed(near: Host, far: Host, small: Instance) -> None:
    syscont(near, "config", "set", small.name, "migration.stateful=false")
    assert "migration.stateful=true" in refused(near, small.name, "far:")
    assert small.state == "running"


def test_what_ties_it_to_its_host(near: Host, far: Host, small: Instance) -> None:
    near.sh("mkdir -p /srv/served; truncate -s 1M /srv/other")
    syscont(near, "device", "add", small.name, "other", "disk", "source=/srv/other", "path=/mnt")
    assert "device other (a disk of this host)" in refused(near, small.name, "far:")
    syscont(near, "device", "remove", small.name, "other")
    assert small.state == "running"


def test_only_what_runs(near: Host, far: Host, small: Instance) -> None:
    syscont(near, "pause", small.name)
    assert "only a running machine" in refused(near, small.name, "far:")
    assert (small.state, state_of_qemu(near, small.name)) == ("frozen", "paused")
    syscont(near, "resume", small.name)
    assert small.state == "running"


def test_the_name_is_taken(near: Host, far: Host, small: Instance) -> None:
    imported(far, "tiny", *images.tiny_vm(), "--vm")
    syscont(far, "create", "tiny", small.name, "--vm")
    try:
        assert "exists already" in refused(near, small.name, "far:")
    finally:
        syscont(far, "delete", small.name)
        syscont(far, "image", "delete", "tiny")
    assert small.state == "running"


def test_another_configuration_there(near: Host, far: Host, small: Instance) -> None:
    """What of it the guest would see is named, and nothing of it stays there."""
    said = refused(near, small.name, "far:", "-c", "limits.cpu=2")
    assert "limits.cpu" in said
    syscont(near, "config", "set", small.name, "limits.cpu.model=x86-64-v2")
    assert "another limits.cpu.model" in refused(near, small.name, "far:")
    assert small.state == "running"
    assert small.name not in names(far)


# what goes wrong on the way


def run_and_break(near: Host, name: str, broken: Host, breaker: str, delay: float) -> tuple[bool, str]:
    """Whether the command ended well, and what it said."""
    with near.spawn(["syscont", "move", name, "far:"], stdin=subprocess.DEVNULL) as process:
        time.sleep(delay)
        broken.sh(breaker)
        assert process.stderr
        said = process.stderr.read()
        assert "Traceback" not in said, said
        return process.wait(60) == 0, said


def back(host: Host) -> bool:
    return not syscont(host, "list", check=False).returncode


def one_runs(near: Host, far: Host, name: str, done: bool = False, said: str = "") -> Host:
    """Which of the two has it by now; it runs there, and there alone."""
    for host in (near, far):
        until(host, lambda host=host: back(host))  # type: ignore[misc]
    until(near, lambda: syscont(near, "list", "far:", check=False).returncode == 0)
    until(near, lambda: (name in names(near)) is not (name in names(far)), patience=90)
    here = far if name in names(far) else near
    assert here is far or not done, said
    until(here, lambda: Instance(here, name).state == "running")
    assert state_of_qemu(here, name) == "running"
    other = near if here is far else far
    assert not other.sh(f"ps -eo args | grep '[q]emu-system.*guest={name}' || true")
    assert "moving" not in of_qemu(here, name, "query-named-block-nodes")
    return here


@pytest.mark.parametrize("at", ["source", "target"])
def test_either_daemon_is_killed(near: Host, far: Host, small: Instance, at: str) -> None:
    begin = time.monotonic()
    syscont(near, "move", small.name, "far:")
    whole = time.monotonic() - begin
    syscont(near, "move", f"far:{small.name}", "local:")
    for point in range(POINTS):
        delay = whole * (point + 1) / (POINTS + 1)
        done, said = run_and_break(near, small.name, near if at == "source" else far, KILL, delay)
        here = one_runs(near, far, small.name, done, said)
        if here is far:
            syscont(near, "move", f"far:{small.name}", "local:")


def test_the_target_machine_is_killed(near: Host, far: Host, small: Instance) -> None:
    """While memory is on its way: the guest goes on where it is."""
    syscont(near, "config", "set", small.name, "migration.bandwidth=2MiB")
    with near.spawn(["syscont", "move", small.name, "far:"], stdin=subprocess.DEVNULL) as process:
        until(far, lambda: f"guest={small.name}" in far.sh("ps -eo args | grep '[q]emu-system' || true"))
        until(near, lambda: sends_memory(near))
        far.sh(f"pkill -KILL -f '[q]emu-system.*guest={small.name}'")
        assert process.wait(60) == 1
    assert one_runs(near, far, small.name) is near


def test_it_is_cancelled(near: Host, far: Host, small: Instance) -> None:
    """While memory is on several ways."""
    syscont(near, "config", "set", small.name, "migration.bandwidth=2MiB", "migration.channels=2")
    with near.spawn(["syscont", "move", small.name, "far:"], stdin=subprocess.DEVNULL) as process:
        syscont(near, "operation", "cancel", until(near, lambda: sends_memory(near)))
        assert process.wait(60) != 0
    assert one_runs(near, far, small.name) is near


@pytest.mark.heavy
def test_the_cable_is_cut(near: Host, far: Host, small: Instance) -> None:
    """While memory is on its way, and for a while."""
    syscont(near, "config", "set", small.name, "migration.bandwidth=2MiB")
    with near.spawn(["syscont", "move", small.name, "far:"], stdin=subprocess.DEVNULL) as process:
        until(near, lambda: sends_memory(near))
        near.sh("ip link set lan0 down")
        try:
            assert process.wait(90) == 1
            assert small.state == "running"
            assert state_of_qemu(near, small.name) == "running"
        finally:
            near.sh("ip link set lan0 up")
    assert one_runs(near, far, small.name) is near


def test_disks_are_whole(near: Host, far: Host, small: Instance) -> None:
    """Also by QEMU's tools, and those of the file system."""
    syscont(near, "move", small.name, "far:")
    one = Instance(far, small.name)
    syscont(far, "stop", "--force", small.name)
    disks.check(one)
    with disks.file_system(one) as name:
        assert disks.sum_of_file(one, name, "/srv.data") == disks.text_of_file(one, name, "/srv.sum")
