# SPDX-License-Identifier: Apache-2.0
"""The daemon dies at any moment of what is done to virtual machines: each machine, snapshot, backup and image is whole
or gone, its disk without an error, and nothing is left.

CRASH_POINTS=24 pytest vm-tests/test_vm_crash.py sweeps each operation with as many moments (2 if not set).
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import disks
import leftovers
import pytest
from guests import Instance, syscont, until
from hosts import Host
from test_crash import POINTS, RESTART, crash

FILE, WRITTEN = "/root/backup.tar", "/root/written.tar"
MADE = "made"
KEYS = ("boot.mode=direct", "limits.memory=256MiB", "migration.stateful=true", "boot.host_shutdown_timeout=2")
OPTIONS = ("--vm", *(word for key in KEYS for word in ("-c", key)))
OLD, LATER = "0x11", "0x22"
"""What the snapshot of x has on its disk, and x itself."""
AT = "1G 6M"
"""Where that is: behind what the guest uses."""
SMALL, LARGE = 10 << 30, 11 << 30


@dataclass(frozen=True)
class Operation:
    """argv on x, which has a snapshot; runs: it runs then. names: what may be there when it was interrupted, and what
    is there when it was not."""

    argv: list[str]
    runs: bool = False
    names: tuple[str, ...] = ("x",)
    after: tuple[str, ...] = ("x",)


OPERATIONS = {
    "create": Operation(["create", "tiny", "y", *OPTIONS], names=("x", "y"), after=("x", "y")),
    "launch": Operation(["launch", "tiny", "y", *OPTIONS], names=("x", "y"), after=("x", "y")),
    "start": Operation(["start", "x"]),
    "stop": Operation(["stop", "x"], runs=True),
    "stop by force": Operation(["stop", "--force", "x"], runs=True),
    "stop with its memory": Operation(["stop", "--stateful", "x"], runs=True),
    "restart": Operation(["restart", "--force", "x"], runs=True),
    "take a snapshot": Operation(["snapshot", "create", "x", "new"], runs=True),
    "take a snapshot with memory": Operation(["snapshot", "create", "--stateful", "x", "new"], runs=True),
    "replace a snapshot": Operation(["snapshot", "create", "--reuse", "x", "old"]),
    "restore a snapshot": Operation(["snapshot", "restore", "x", "old"], runs=True),
    "delete a snapshot": Operation(["snapshot", "delete", "x", "old"]),
    "copy": Operation(["copy", "x", "y"], names=("x", "y"), after=("x", "y")),
    "rename": Operation(["rename", "x", "y"], names=("x", "y"), after=("y",)),
    "export": Operation(["export", "x", WRITTEN, "--compression", "none"]),
    "import": Operation(["import", FILE, "y"], names=("x", "y"), after=("x", "y")),
    "publish": Operation(["publish", "x", "--alias", MADE]),
    "grow the disk": Operation(["device", "set", "x", "root", f"size={LARGE}"]),
    "delete": Operation(["delete", "x"], after=()),
    "delete a running one": Operation(["delete", "--force", "x"], runs=True, after=()),
}
HEAVY = ("stop by force", "restart", "replace a snapshot", "delete a snapshot", "rename", "delete")
EITHER = {
    "restore a snapshot": {"x": (OLD, LATER)},
    "replace a snapshot": {"x/old": (OLD, LATER)},
}
"""What may be on a disk for which more than one state is whole."""


@pytest.fixture(scope="module")
def host(vm_host: Host, tiny_vm: str) -> Iterator[Host]:
    prepare(vm_host, runs=True)  # once, as the first makes what stays
    syscont(vm_host, "stop", "--force", "x")
    syscont(vm_host, "export", "x", FILE, "--compression", "none")
    syscont(vm_host, "delete", "x")
    yield vm_host
    vm_host.run(["rm", "--force", FILE])


@pytest.fixture(autouse=True)
def nothing_else(host: Host) -> Iterator[None]:
    """In the end all is as it was, and the daemon never was at a loss."""
    before, place = leftovers.settled(host), leftovers.mark(host)
    yield
    leftovers.expect_same(host, before)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]


def prepare(host: Host, *, runs: bool = False) -> None:
    """Makes x, with a snapshot."""
    syscont(host, "create", "tiny", "x", *OPTIONS, "-d", f"root,size={SMALL}")
    fill(host, OLD)
    syscont(host, "snapshot", "create", "x", "old")
    fill(host, LATER)
    if runs:
        syscont(host, "start", "x")


def fill(host: Host, pattern: str) -> None:
    host.run(["qemu-io", "-c", f"write -P {pattern} {AT}", disks.as_seen(Instance(host, "x"))])


def snapshots_of(host: Host, name: str) -> list[str]:
    found = json.loads(syscont(host, "snapshot", "list", name, "--format", "json").stdout)
    return [one["name"] for one in found]


def pattern_on(host: Host, *disk: str) -> str:
    """What is on a disk; empty when it is neither all old nor all new."""
    for pattern in (OLD, LATER):
        if not host.run(["qemu-io", "-r", "-c", f"read -P {pattern} {AT}", *disk], check=False).returncode:
            return pattern
    return ""


def names(host: Host) -> set[str]:
    return {one["name"] for one in json.loads(syscont(host, "list", "--format", "json").stdout)}


def check_machine(host: Host, name: str, operation: str, *, empty: bool = False) -> None:
    """It does what it did, or has stopped; its disk and those of its snapshots are whole, and it can be used. empty:
    its disk is as its image's."""
    one, either = Instance(host, name), EITHER.get(operation, {})
    until(host, lambda: one.state in ("running", "stopped", "failed"))
    check_files(host, one)
    one.do("start")
    # What a backup is of does not say that nobody in it tells when it has booted.
    assert one.state in ("starting", "running")
    one.do("stop", "--force")
    assert one.state == "stopped"
    disks.check(one)
    if not empty:
        assert pattern_on(host, disks.as_seen(one)) in either.get("x", (LATER,))
    for snapshot in snapshots_of(host, name):
        syscont(host, "copy", f"{name}/{snapshot}", "again")
        again = Instance(host, "again")
        disks.check(again)
        expected = (LATER,) if snapshot == "new" else (OLD,)
        assert pattern_on(host, disks.as_seen(again)) in either.get(f"x/{snapshot}", expected)
        again.do("delete")


def check_files(host: Host, one: Instance) -> None:
    """Beside its disk there is nothing, but its memory if it was stopped with it: all of that, and not what is half
    written."""
    found = set(host.run(["ls", "-A", one.on_disk("")]).stdout.split()) - {"root.qcow2"}
    assert found <= ({"state", "state.json"} if one.state == "stopped" else {"state.json"})
    assert "state" not in found or "state.json" in found


def check_made(host: Host, operation: str, done: bool) -> None:
    """What lies beside instances is whole, and is there if it was said so; takes it away."""
    if operation == "export":
        assert host.sh("ls /root | grep written.tar.part || true") == ""
        if done or host.sh(f"ls {WRITTEN} 2>/dev/null || true"):
            syscont(host, "import", WRITTEN, "z")
            check_machine(host, "z", operation)
            syscont(host, "delete", "z")
            host.run(["rm", WRITTEN])
    if operation == "publish":
        found = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
        made = [one["fingerprint"] for one in found if MADE in one["aliases"]]
        assert made or not done
        assert all(one["aliases"] for one in found)
        for fingerprint in made:
            assert pattern_on(host, "-f", "raw", f"/var/lib/syscont/images/{fingerprint}/disk.img") == LATER
            syscont(host, "image", "delete", fingerprint)
    if operation == "grow the disk":
        told = host.run(["qemu-img", "info", "--output=json", Instance(host, "x").on_disk("root.qcow2")]).stdout
        size = int(json.loads(told)["virtual-size"])
        wanted = int(Instance(host, "x").seen()["devices"]["root"]["size"])
        assert SMALL <= wanted <= size <= LARGE
        assert wanted == LARGE or not done


def check_and_delete(host: Host, operation: str, *, done: bool) -> None:
    wanted, there = OPERATIONS[operation], names(host)
    assert there <= set(wanted.names)
    if done:
        assert there == set(wanted.after)
    elif operation == "rename":
        assert len(there) == 1
    elif "delete" not in wanted.argv[:1]:
        assert "x" in there
    check_made(host, operation, done)
    for name in there:
        check_machine(host, name, operation, empty=name == "y" and operation in ("create", "launch"))
        syscont(host, "delete", name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name in HEAVY else []) for name in OPERATIONS]
)
def test_daemon_dies_in_the_middle(host: Host, name: str) -> None:
    operation, before = OPERATIONS[name], leftovers.settled(host)
    argv = ["syscont", *operation.argv]
    prepare(host, runs=operation.runs)
    begin = time.monotonic()
    host.run(argv)
    took = time.monotonic() - begin
    check_and_delete(host, name, done=True)
    for point in range(POINTS):
        prepare(host, runs=operation.runs)
        answer = crash(host, argv, took * (point + 0.5) / POINTS, RESTART if point % 4 == 3 else "kill")
        until(host, lambda: not leftovers.strays(host))
        check_and_delete(host, name, done=not answer["status"])
        leftovers.expect_same(host, before)
