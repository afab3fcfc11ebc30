# SPDX-License-Identifier: Apache-2.0
"""What a virtual machine is made of dies at its start, while it runs and when it is to stop: QEMU, what serves its
devices, the daemon. The state is told as it is, what can go on does, disks are whole and nothing is left."""

import json
import time
from collections.abc import Iterator

import disks
import leftovers
import pytest
from guests import Instance, syscont, systemd_property, unique, until
from hosts import Host, images
from test_crash import crash

BOOT = 240.0
HEAVY = pytest.mark.heavy
SOON = 2.0
"""Seconds in which the truth is told."""
TINY = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=256MiB")
FOLDER = "/srv/served"
ENDED = "QEMU ended before the machine ran"
"""Or, when systemd ends the one who says so before he has, what systemd makes of it."""
WAITS = "raw.qemu=-chardev socket,id=x,path=/tmp/x,server=on,wait=on"
"""Has QEMU stop before it says a word, until somebody comes who never does."""


# QEMU


@pytest.fixture(scope="module")
def host(vm_host: Host, tiny_vm: str) -> Host:
    """One that has what the first machine makes for all."""
    syscont(vm_host, "launch", tiny_vm, "t1", *TINY)
    syscont(vm_host, "delete", "--force", "t1")
    return vm_host


@pytest.fixture
def tiny(host: Host) -> Iterator[Instance]:
    """A machine that has never been started. It leaves nothing, and the daemon is never at a loss."""
    before, place = leftovers.settled(host), leftovers.mark(host)
    one = Instance(host, unique("faulty"))  # its log is its own
    syscont(host, "create", "tiny", one.name, *TINY)
    yield one
    one.do("delete", "--force")
    leftovers.expect_same(host, before)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]


def wait_for(one: Instance, *states: str) -> None:
    """Soon; how long the question itself takes is not counted."""
    until(one.host, lambda: one.state in states, patience=SOON)


def nothing_runs(one: Instance) -> None:
    """Of one that has ended, at once."""
    host, uuid = one.host, one.seen()["uuid"]
    until(host, lambda: not host.sh(f"ls /sys/fs/cgroup/syscont.slice | grep {one.unit} || true"), patience=SOON)
    assert not host.sh(f"ps -eo args | grep '[q]emu-system.*{uuid}' || true")
    assert not host.sh(f"systemctl list-units --state=active,activating --plain --no-legend 'syscont-*@{one.name}.*'")


def written(one: Instance) -> None:
    """Wait until its guest has written a file that it may never lose."""
    until(one.host, lambda: images.WRITTEN in one.logs(), patience=BOOT)


def is_whole(one: Instance, *, written: bool = True) -> None:
    disks.check(one)
    if written:
        with disks.file_system(one) as name:
            expected = disks.text_of_file(one, name, "/srv.sum")
            assert len(expected) == 36
            assert disks.sum_of_file(one, name, "/srv.data") == expected


def qemu_of(one: Instance) -> int:
    """Of one that is about to start."""
    def look() -> int:
        pid = int(one.systemd("MainPID"))
        return pid if "qemu-system" in one.host.sh(f"cat /proc/{pid}/comm 2>/dev/null || true") else 0

    return until(one.host, look)


@pytest.mark.parametrize("signal", ["KILL", "SEGV"])
def test_it_dies_before_the_machine_runs(tiny: Instance, signal: str) -> None:
    syscont(tiny.host, "config", "set", tiny.name, WAITS)
    with tiny.host.spawn(["syscont", "start", tiny.name]) as client:
        tiny.host.run(["kill", f"-{signal}", str(qemu_of(tiny))])
        began = time.monotonic()
        said = client.communicate(timeout=30)[1]
    assert time.monotonic() - began < SOON
    assert client.returncode == 1
    assert said.startswith(f"syscont: {tiny.name} ")
    assert any(why in said for why in (ENDED, f"{tiny.name} did not start (signal)")), said
    assert len(said.splitlines()) == 1, said
    wait_for(tiny, "failed")
    nothing_runs(tiny)
    starts_and_stops(tiny)


def starts_and_stops(one: Instance) -> None:
    syscont(one.host, "config", "unset", one.name, "raw.qemu")
    one.do("start")
    assert one.state == "running"
    one.do("stop", "--force")
    is_whole(one, written=False)


def test_it_hangs_at_its_start_and_is_stopped(tiny: Instance) -> None:
    syscont(tiny.host, "config", "set", tiny.name, WAITS)
    with tiny.host.spawn(["syscont", "start", tiny.name]) as client:
        qemu_of(tiny)
        assert tiny.state == "starting"
        tiny.do("delete", "--force")
        assert client.communicate(timeout=30)[1]
    assert not tiny.seen()
    syscont(tiny.host, "create", "tiny", tiny.name, *TINY)


def test_the_daemon_dies_while_it_hangs_at_its_start(tiny: Instance) -> None:
    syscont(tiny.host, "config", "set", tiny.name, WAITS)
    crash(tiny.host, ["syscont", "start", tiny.name], 1.0, "kill")
    assert tiny.state == "starting"
    tiny.do("stop", "--force")
    assert tiny.state == "stopped"
    nothing_runs(tiny)
    starts_and_stops(tiny)


@pytest.mark.parametrize(
    ("option", "whys"),
    [
        ("-no-such-option", ["-no-such-option: invalid option"]),
        ("-device no-such-device", ["'no-such-device' is not a valid device model name"]),
        ("-version", [ENDED, "did not start (protocol)"]),
    ],
)
def test_it_refuses_to_start(tiny: Instance, option: str, whys: list[str]) -> None:
    syscont(tiny.host, "config", "set", tiny.name, f"raw.qemu={option}")
    done = tiny.do("start", check=False)
    assert done.returncode == 1
    assert any(why in done.stderr for why in whys), done.stderr
    wait_for(tiny, "failed")
    nothing_runs(tiny)
    starts_and_stops(tiny)


def test_it_refuses_a_disk(tiny: Instance) -> None:
    """That another machine has."""
    host, more = tiny.host, ("disk", "source=/srv/shared.img", "path=/srv")
    host.sh("truncate -s 1M /srv/shared.img")
    syscont(host, "create", "tiny", "t2", *TINY)
    try:
        for name in (tiny.name, "t2"):
            syscont(host, "device", "add", name, "more", *more)
        syscont(host, "start", "t2")
        done = tiny.do("start", check=False)
        assert done.returncode == 1
        assert 'Failed to get "write" lock' in done.stderr
        wait_for(tiny, "failed")
        nothing_runs(tiny)
        assert Instance(host, "t2").state == "running"
        syscont(host, "stop", "--force", "t2")
        starts_and_stops(tiny)
    finally:
        syscont(host, "delete", "--force", "t2")
        host.sh("rm /srv/shared.img")


@pytest.mark.parametrize("signal", ["KILL", pytest.param("ABRT", marks=HEAVY), pytest.param("TERM", marks=HEAVY)])
def test_it_dies_in_the_middle(tiny: Instance, signal: str) -> None:
    """TERM is how it is asked to end, by whomever."""
    tiny.do("start")
    written(tiny)
    tiny.host.run(["kill", f"-{signal}", str(tiny.leader)])
    wait_for(tiny, "stopped" if signal == "TERM" else "failed")
    nothing_runs(tiny)
    is_whole(tiny)
    tiny.do("start")
    wait_for(tiny, "running")


def test_it_dies_when_it_is_to_stop(tiny: Instance) -> None:
    """While the power button is pressed, which this guest does not heed."""
    tiny.do("start")
    written(tiny)
    with tiny.host.spawn(["syscont", "stop", tiny.name]) as client:
        until(tiny.host, lambda: tiny.state == "stopping")
        tiny.host.run(["kill", "-KILL", str(tiny.leader)])
        began = time.monotonic()
        assert client.communicate(timeout=30) == ("", "")
    assert time.monotonic() - began < SOON
    assert tiny.state == "stopped"
    nothing_runs(tiny)
    is_whole(tiny)


def test_the_daemon_dies_when_it_is_to_stop(tiny: Instance) -> None:
    syscont(tiny.host, "config", "set", tiny.name, "boot.host_shutdown_timeout=5")
    tiny.do("start")
    crash(tiny.host, ["syscont", "stop", tiny.name], 1.0, "kill")
    assert tiny.state == "stopping"
    until(tiny.host, lambda: tiny.state in ("stopped", "failed"))
    nothing_runs(tiny)
    starts_and_stops(tiny)


# what is beside it, and a guest that is in use


@pytest.fixture(scope="module")
def vm(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    """A machine with a folder of the host's and a TPM, booted; the tests go on with it one after the other."""
    vm_host.sh(f"mkdir -p {FOLDER}; echo served >{FOLDER}/file")
    devices = ("-d", f"work,type=disk,source={FOLDER},path=/mnt/work", "-d", "chip,type=tpm")
    config = ("-c", "boot.mode=direct", "-c", "limits.memory=384MiB", "-c", "boot.host_shutdown_timeout=15")
    syscont(vm_host, "launch", debian_vm, "f1", "--vm", *config, *devices)
    one = Instance(vm_host, "f1")
    until(vm_host, lambda: one.state == "running", patience=BOOT)
    until(vm_host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)
    yield one
    syscont(vm_host, "delete", "--force", "f1")
    vm_host.sh(f"rm -r {FOLDER}")


def serving(vm: Instance, device: str) -> str:
    """The unit."""
    return f"syscont-{'tpm' if device == 'chip' else 'virtiofs'}@{vm.name}.{device}.service"


def lost(vm: Instance) -> list[str]:
    path = vm.host.run(["busctl", "--json=short", "call", "org.syscont.Manager", "/org/syscont/Manager",
                        "org.syscont.Manager", "GetInstance", "s", vm.name]).stdout  # fmt: skip
    argv = ["busctl", "--json=short", "get-property", "org.syscont.Manager", json.loads(path)["data"][0]]
    found: list[str] = json.loads(vm.host.run([*argv, "org.syscont.Instance", "LostDevices"]).stdout)["data"]
    return found


def test_the_daemon_dies_while_a_command_runs(vm: Instance) -> None:
    """Who waits for it is told, and nothing of it is left on the host."""
    before = leftovers.settled(vm.host)
    answer = crash(vm.host, ["syscont", "exec", vm.name, "--", "sh", "-c", "echo begun; exec sleep 1000"], 12.0, "kill")
    assert answer["out"] == "begun\n"
    assert answer["status"] == 125
    assert "lost the connection" in answer["err"]
    assert vm.state == "running"
    assert vm.sh("echo still") == "still\n"
    leftovers.expect_same(vm.host, before)


@pytest.mark.parametrize("delay", [0.2, 0.5])
def test_the_daemon_dies_while_a_snapshot_is_taken(vm: Instance, delay: float) -> None:
    vm.sh("echo kept >/root/kept; sync")
    crash(vm.host, ["syscont", "snapshot", "create", vm.name, "s"], delay, "kill")
    until(vm.host, lambda: vm.state == "running", patience=SOON)
    assert vm.sh("cat /root/kept") == "kept\n"
    until(vm.host, lambda: not leftovers.strays(vm.host))
    kept = vm.host.sh(f"ls {vm.on_disk('')}/../snapshots/*/upper/root.qcow2 2>/dev/null || true").split()
    for disk in kept:
        assert "No errors" in vm.host.sh(f"qemu-img check -f qcow2 {disk}")
        syscont(vm.host, "snapshot", "delete", vm.name, "s")


def test_who_serves_a_folder_is_killed(vm: Instance) -> None:
    vm.host.run(["systemctl", "kill", "--signal=KILL", serving(vm, "work")])
    wait_for(vm, "degraded")
    assert lost(vm) == ["work"]
    assert "Lost: work" in syscont(vm.host, "info", vm.name).stdout
    assert "its guest is without it until the instance is started anew" in vm.host.journal(unit="syscontd")
    goes_on(vm)


def goes_on(vm: Instance) -> None:
    assert vm.sh("echo well") == "well\n"
    vm.do("pause")
    assert vm.state == "frozen"
    vm.do("resume")
    assert vm.state == "degraded"
    syscont(vm.host, "snapshot", "create", vm.name, "more")
    syscont(vm.host, "snapshot", "delete", vm.name, "more")
    assert vm.sh("echo well") == "well\n"


def tpm_answers(vm: Instance) -> bool:
    """Whether it gives some random bytes; asked in a time of its own. (TPM2_GetRandom; TPM 2.0 library, part 3)"""
    command = "\\200\\001\\000\\000\\000\\014\\000\\000\\001\\173\\000\\010"
    answer = "timeout 10 dd bs=4096 count=1 status=none <&3 | od -An -tx1 -j6 -N4"
    said = vm.sh(f"exec 3<>/dev/tpmrm0 && printf '{command}' >&3 && {answer}; echo ended", check=False)
    assert said.endswith("ended\n")
    return said.split()[:4] == ["00"] * 4


def test_who_makes_a_tpm_is_killed(vm: Instance) -> None:
    assert tpm_answers(vm)
    vm.host.run(["systemctl", "kill", "--signal=KILL", serving(vm, "chip")])
    until(vm.host, lambda: lost(vm) == ["chip", "work"], patience=SOON)
    assert vm.state == "degraded"
    goes_on(vm)
    assert not tpm_answers(vm)


def test_the_next_daemon_knows(vm: Instance) -> None:
    vm.host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(vm.host, lambda: syscont(vm.host, "list", check=False).returncode == 0)
    wait_for(vm, "degraded")
    assert lost(vm) == ["chip", "work"]


def test_it_stops_without_them_and_has_them_at_its_next_start(vm: Instance) -> None:
    """However long its guest waits for its folder; what it has on its own disk is there."""
    vm.sh("head -c 1M /dev/urandom >/root/data; md5sum </root/data >/root/sum; sync /root/data /root/sum")
    began = time.monotonic()
    vm.do("stop")
    assert time.monotonic() - began < 30
    assert vm.state == "stopped"
    nothing_runs(vm)
    disks.check(vm)
    with disks.file_system(vm) as name:
        assert disks.sum_of_file(vm, name, "/root/data") == disks.text_of_file(vm, name, "/root/sum")
    vm.do("start")
    for device in ("work", "chip"):
        assert systemd_property(vm.host, serving(vm, device), "ActiveState") == "active"
    assert lost(vm) == []
    assert vm.state in ("starting", "running")
