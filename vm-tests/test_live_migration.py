# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that go from one host to another while they run: the guest does not notice, and whatever happens on
the way it runs on one of the two.

CRASH_POINTS=24 pytest vm-tests/test_live_migration.py breaks something at as many moments (2 if not set).
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
from guests import Instance, python, syscont, unique, until
from hosts import ContainerHost, Host, Recipe, images
from test_copy_between import FAR, PORT, image_count, names, settled
from test_crash import POINTS

NEAR = "198.19.0.2"
BRIDGE = "lan"
GUEST = "198.19.0.50"
BOOT = 240.0
HEARTBEATS = 9999
TINY = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=256MiB", "-c", "migration.stateful=true")
DEBIAN = (*TINY, "-c", "limits.memory=512MiB", "-d", f"eth1,type=nic,nictype=bridged,parent={BRIDGE}")
# The cable between the hosts leads to a bridge on each, to which guests have access, too. Its address is to stay.
JOIN = f"""
ip link add {BRIDGE} address {{hardware}} type bridge
ip link set {BRIDGE} up; ip link set lan0 master {BRIDGE}
ip addr flush dev lan0; ip addr add {{address}}/24 dev {BRIDGE}
"""
# What runs in the guest: a heartbeat a millisecond, one connection that never ends, and a file that is written anew all
# the time, each block of it with its number.
BEAT = f"""
use Socket; socket(S, PF_INET, SOCK_DGRAM, 17); my $to = sockaddr_in({HEARTBEATS}, inet_aton("{NEAR}"));
while (1) {{ send(S, pack("Q", $n++), 0, $to); select(undef, undef, undef, 0.001); }}
"""
WRITE = """
open(F, "+>", "/srv/blocks"); while (1) { seek(F, ($n % 200) * 65536, 0); syswrite(F, pack("Q", $n++) x 8192);
system("sync") if $n % 50 == 0; select(undef, undef, undef, 0.005); }
"""
CHECK = """
open(F, "<", "/srv/blocks"); while (read(F, $b, 65536)) { my $one = substr($b, 0, 8); die if $b ne $one x 8192;
$n++; die unless unpack("Q", $one) % 200 == $n - 1; } print "$n whole\\n";
"""
# As it is in memory, and on the disk.
LOOK = """systemctl kill --signal=STOP write; sleep 0.3; perl /root/check.pl; sync; echo 3 >/proc/sys/vm/drop_caches
perl /root/check.pl; systemctl kill --signal=CONT write"""
KILL = "systemctl kill --signal=KILL --kill-whom=main syscontd.service"


@pytest.fixture(scope="module")
def base(deb: Path) -> Iterator[ContainerHost]:
    with ContainerHost(recipe=Recipe(variant="vms")) as one:
        one.install_deb(deb)
        one.power_off()
        yield one


@pytest.fixture(scope="module")
def hosts(base: ContainerHost) -> Iterator[tuple[ContainerHost, ContainerHost]]:
    """near, which knows far, and far; both have bridges on the cable between them, and listen."""
    with ContainerHost(base=base) as far, ContainerHost(base=base) as near:
        far.join(near)
        for number, (host, address) in enumerate(((far, FAR), (near, NEAR)), 1):
            host.sh(JOIN.format(address=address, hardware=f"02:00:00:00:00:0{number}"))
            syscont(host, "config", "set", f"core.https_address={address}:{PORT}")
        token = syscont(far, "remote", "token", "near").stdout.strip()
        syscont(near, "remote", "add", "far", token)
        yield near, far


@pytest.fixture(scope="module")
def near(hosts: tuple[ContainerHost, ContainerHost]) -> ContainerHost:
    return hosts[0]


@pytest.fixture(scope="module")
def far(hosts: tuple[ContainerHost, ContainerHost]) -> ContainerHost:
    return hosts[1]


def imported(host: Host, alias: str, metadata: Path, rootfs: Path) -> str:
    paths = ("/var/tmp/metadata.tar", "/var/tmp/rootfs.tar")
    for path, there in zip((metadata, rootfs), paths, strict=True):
        host.push(path, there)
    syscont(host, "image", "import", *paths, "--alias", alias, "--vm")
    host.run(["rm", *paths])
    return alias


@pytest.fixture(scope="module")
def tiny(near: ContainerHost) -> str:
    return imported(near, "tiny", *images.tiny_vm())


def pauses(host: Host) -> list[str]:
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return [one["result"]["pause"] for one in found if one["kind"] == "send-instance" and "pause" in one["result"]]


def sends_memory(host: Host) -> str:
    """The operation that does; others that have ended are listed for a while."""
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return next((str(one["id"]) for one in found if (one["status"], one["stage"]) == ("running", "memory")), "")


def state_of_qemu(host: Host, name: str) -> str:
    uuid = Instance(host, name).seen()["uuid"]
    found = json.loads(python(host, "ask_qemu", f"/run/syscont/vm/{uuid}.control", "query-status").stdout)
    return str(found["status"])


# a guest that does things


@pytest.fixture(scope="module")
def guest(near: ContainerHost) -> Iterator[Instance]:
    """A Debian that is busy, on near."""
    imported(near, "debian", *images.debian_vm())
    syscont(near, "launch", "debian", "busy", *DEBIAN)
    one = Instance(near, "busy")
    until(near, lambda: one.state == "running", patience=BOOT)
    for name, text in (("beat", BEAT), ("write", WRITE), ("check", CHECK)):
        near.write_text(f"/root/{name}.pl", text)
        syscont(near, "file", "push", f"/root/{name}.pl", f"busy/root/{name}.pl")
    # Of the two, the one whose address ends as that of the device that is on the bridge.
    address = one.seen()["config"]["volatile.eth1.hwaddr"]
    link = one.sh(f"grep -l {address} /sys/class/net/*/address").split("/")[4]
    one.sh(f"ip link set {link} up; ip addr add {GUEST}/24 dev {link}; "
           "for each in beat write; do systemd-run --quiet --unit $each perl /root/$each.pl; done")  # fmt: skip
    yield one
    for name in ("busy", "far:busy"):
        syscont(near, "delete", "--force", name, check=False)


LISTEN = f"""
import json, socket, struct, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind(("{NEAR}", {HEARTBEATS}))
    sock.settimeout(20)
    found, print_ready = [], print("ready", flush=True)
    while True:
        data = sock.recv(8)
        found.append((time.monotonic(), struct.unpack("Q", data)[0]))
        if sys.stdin in __import__("select").select([sys.stdin], [], [], 0)[0]:
            break
gaps = [after[0] - before[0] for before, after in zip(found, found[1:])]
numbers = [number for _, number in found]
missing = max(numbers) - min(numbers) + 1 - len(set(numbers))
print(json.dumps({{"longest": max(gaps), "missing": missing, "heard": len(numbers)}}))
"""


class Heartbeats:
    """What near hears for a block."""

    def __init__(self, near: Host) -> None:
        argv = ["/usr/bin/python3", "-Ic", LISTEN]
        self._process = near.spawn(argv, stdin=subprocess.PIPE)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> tuple[float, int]:
        """The longest time without one, in seconds, and how many never came."""
        out, _ = self._process.communicate("end\n", timeout=60)
        found = json.loads(out)
        assert found["heard"] > 100
        return float(found["longest"]), int(found["missing"])


def moved(near: Host, there: bool, name: str = "busy") -> None:
    syscont(near, "move", *((name, "far:") if there else (f"far:{name}", "local:")), timeout=120)


def test_a_guest_does_not_notice(near: ContainerHost, far: ContainerHost, guest: Instance) -> None:
    """To and fro."""
    boot = guest.sh("cat /proc/sys/kernel/random/boot_id")
    facts = guest.seen()
    for there in (True, False):
        heartbeats = Heartbeats(near)
        time.sleep(1)
        moved(near, there)
        time.sleep(1)
        longest, missing = heartbeats.end()
        one = Instance(far if there else near, "busy")
        assert names(near) == ([] if there else ["busy"])
        assert one.sh("cat /proc/sys/kernel/random/boot_id") == boot
        assert one.sh("systemctl is-active beat write") == "active\nactive\n"
        assert one.sh(LOOK).count("200 whole") == 2
        assert {key: one.seen()[key] for key in ("uuid", "created", "type")} == {
            key: facts[key] for key in ("uuid", "created", "type")
        }
        assert one.systemd("ActiveState") == "active"
        assert longest < 5, "emulated, on a machine of which others have a share"
        assert missing < 1000
    assert pauses(near)
    assert "Traceback" not in near.journal(unit="syscontd.service") + far.journal(unit="syscontd.service")


def test_what_it_is_given_afterwards(near: ContainerHost, far: ContainerHost, guest: Instance) -> None:
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


# what is in the way


@pytest.fixture
def small(near: ContainerHost, far: ContainerHost, tiny: str) -> Iterator[Instance]:
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
        assert "Traceback" not in host.journal(unit="syscontd.service")


def refused(near: Host, *argv: str) -> str:
    done = syscont(near, "move", *argv, check=False)
    assert done.returncode in (1, 4)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_it_has_to_be_allowed(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    syscont(near, "config", "set", small.name, "migration.stateful=false")
    assert "migration.stateful=true" in refused(near, small.name, "far:")
    assert small.state == "running"


def test_what_ties_it_to_its_host(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    near.sh("mkdir -p /srv/served; truncate -s 1M /srv/other")
    syscont(near, "device", "add", small.name, "other", "disk", "source=/srv/other", "path=/mnt")
    assert "device other (a disk of this host)" in refused(near, small.name, "far:")
    syscont(near, "device", "remove", small.name, "other")
    assert small.state == "running"


def test_only_what_runs(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    syscont(near, "pause", small.name)
    assert "only a running machine" in refused(near, small.name, "far:")
    assert (small.state, state_of_qemu(near, small.name)) == ("frozen", "paused")
    syscont(near, "resume", small.name)
    assert small.state == "running"


def test_the_name_is_taken(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    imported(far, "tiny", *images.tiny_vm())
    syscont(far, "create", "tiny", small.name, "--vm")
    try:
        assert "exists already" in refused(near, small.name, "far:")
    finally:
        syscont(far, "delete", small.name)
        syscont(far, "image", "delete", "tiny")
    assert small.state == "running"


def test_another_configuration_there(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    """What of it the guest would see is named, and nothing of it stays there."""
    said = refused(near, small.name, "far:", "-c", "limits.cpu=2")
    assert "limits.cpu" in said
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
    nodes = python(here, "ask_qemu", f"/run/syscont/vm/{Instance(here, name).seen()['uuid']}.control",
                   "query-named-block-nodes").stdout  # fmt: skip
    assert "moving" not in nodes
    return here


@pytest.mark.parametrize("at", ["source", "target"])
def test_either_daemon_is_killed(near: ContainerHost, far: ContainerHost, small: Instance, at: str) -> None:
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


def test_the_target_machine_is_killed(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    """While memory is on its way: the guest goes on where it is."""
    syscont(near, "config", "set", small.name, "migration.bandwidth=2MiB")
    with near.spawn(["syscont", "move", small.name, "far:"], stdin=subprocess.DEVNULL) as process:
        until(far, lambda: f"guest={small.name}" in far.sh("ps -eo args | grep '[q]emu-system' || true"))
        until(near, lambda: sends_memory(near))
        far.sh(f"pkill -KILL -f '[q]emu-system.*guest={small.name}'")
        assert process.wait(60) == 1
    assert one_runs(near, far, small.name) is near


def test_it_is_cancelled(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    syscont(near, "config", "set", small.name, "migration.bandwidth=2MiB")
    with near.spawn(["syscont", "move", small.name, "far:"], stdin=subprocess.DEVNULL) as process:
        syscont(near, "operation", "cancel", until(near, lambda: sends_memory(near)))
        assert process.wait(60) != 0
    assert one_runs(near, far, small.name) is near


def test_the_cable_is_cut(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
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


def test_disks_are_whole(near: ContainerHost, far: ContainerHost, small: Instance) -> None:
    """Also by QEMU's tools, and those of the file system."""
    syscont(near, "move", small.name, "far:")
    one = Instance(far, small.name)
    syscont(far, "stop", "--force", small.name)
    disks.check(one)
    with disks.file_system(one) as name:
        assert disks.sum_of_file(one, name, "/srv.data") == disks.text_of_file(one, name, "/srv.sum")
