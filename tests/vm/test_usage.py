# SPDX-License-Identifier: Apache-2.0
"""What a machine takes: by the real QEMU, and by one that its guest has taken over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import FailedError
from sysd.model.usage import Disk, Memory
from sysd.runtime.vm import usage
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.qmp import Qmp
from sysd.storage import qcow2
from tests.vm.peers import program

MIB = 1 << 20
ROOT = Part(0, {"id": "dev-root", "drive": "root"}, files={})
NIC = Part(1, {"id": "dev-eth0", "netdev": "net1"}, netdev={"ifname": "tap0"})
PARTS = {"root": ROOT, "eth0": NIC}
UNKNOWN = (1 << 64) - 1


class Machine:
    """As much of a MachineGuest as is asked."""

    frozen = False
    has_agent = True
    leader = 0

    def __init__(self, answer: Callable[[str, Mapping[str, Any]], Any], **spec: Any) -> None:
        self._answer = answer
        self.spec = spec
        self.asked: list[str] = []

    async def execute(self, command: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        self.asked.append(command)
        found = self._answer(command, arguments)
        return await found if asyncio.iscoroutine(found) else found


def test_real_qemu(tmp_path: Path) -> None:
    disk, path = tmp_path / "disk", tmp_path / "qmp"
    disk.write_bytes(qcow2.empty(64 * MIB))
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "96M"]
    argv += ["-name", "x,debug-threads=on", "-qmp", f"unix:{path},server=on,wait=off", "-smp", "2"]
    argv += ["-device", "virtio-balloon-pci,id=balloon0"]
    argv += ["-blockdev", f"driver=file,node-name=root-file,filename={disk}"]
    argv += ["-blockdev", "driver=qcow2,node-name=root,file=root-file", "-device", "virtio-blk,id=dev-root,drive=root"]

    async def look(leader: int) -> None:
        qmp = await Qmp.connect(path, lambda name, data: None, lambda: None)
        machine: Any = Machine(lambda command, arguments: qmp.execute(command, arguments))
        machine.leader = leader
        assert await usage.disks(machine, PARTS) == {"root": Disk(disk.stat().st_blocks * 512, 64 * MIB, 0, 0)}
        memory = await usage.memory(machine, None, None, None)
        assert (memory.current, memory.limit) == (None, 96 * MIB)  # there is no guest that could tell
        assert MIB < (memory.host or 0) <= (memory.peak or 0)
        running = await usage.running(machine)
        assert (running.accelerator, running.processors, running.cookies.total()) == ("tcg", 2, 2)  # type: ignore[attr-defined]
        # Nobody polls the guest any more.
        assert await qmp.execute("qom-get", {"path": "/machine/peripheral/balloon0",
                                             "property": "guest-stats-polling-interval"}) == 0  # fmt: skip
        qmp.close()

    with program(argv, path) as process:
        asyncio.run(look(process.pid))


def _ask(machine: Any) -> tuple[Memory, dict[str, Disk], Any]:
    async def work() -> Any:
        return await asyncio.gather(
            usage.memory(machine, 5, 6, 7), usage.disks(machine, PARTS), usage.running(machine)
        )

    memory, disks, running = asyncio.run(work())
    return memory, disks, running


JUNK: list[Any] = [None, True, -1, 1 << 63, 1.5, "7", [], {}, [None, 1, "a"], [[]], {"actual": True}, {"stats": 1},
                   {"actual": -1, "stats": {"stat-total-memory": "x"}, "last-update": 1 << 40, "enabled": "yes"},
                   [{"node-name": "root", "image": []}, {"qdev": 7, "stats": None}],
                   [{"node-name": "root", "image": {"actual-size": UNKNOWN, "virtual-size": True}}],
                   [{"node-name": [], "image": {}}],
                   [{"qdev": "/peripheral/dev-root", "stats": {"rd_bytes": -1}}]]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_whatever_is_no_number_is_not_told(junk: Any) -> None:
    memory, disks, running = _ask(Machine(lambda command, arguments: junk, emulated="why"))
    assert memory == Memory(None, 6, None, 7, 5)
    assert disks == {"root": Disk()}
    assert (running.accelerator, running.why) == ("tcg", "why")


def _refuse(command: str, arguments: Mapping[str, Any]) -> Any:
    raise FailedError("no")


@pytest.mark.parametrize("answer", [_refuse, lambda command, arguments: asyncio.sleep(3600)], ids=["refused", "silent"])
def test_a_qemu_that_does_not_answer_costs_two_seconds(answer: Callable[[str, Mapping[str, Any]], Any]) -> None:
    begun = time.monotonic()
    memory, disks, running = _ask(Machine(answer, boot="uefi", secure_boot=True, cid=9))
    assert time.monotonic() - begun < usage.LIMIT + 1
    assert (memory, disks) == (Memory(None, 6, None, 7, 5), {"root": Disk()})
    assert (running.accelerator, running.boot, running.secure_boot, running.cid) == ("kvm", "uefi", True, 9)
    assert running.processors is None


STATS = [
    ({"stat-total-memory": 100, "stat-available-memory": 70, "stat-free-memory": 20}, 30),
    ({"stat-total-memory": 100, "stat-available-memory": UNKNOWN, "stat-free-memory": 20}, 80),
    ({"stat-total-memory": 100, "stat-available-memory": 170}, 0),
    ({"stat-total-memory": UNKNOWN, "stat-available-memory": 70}, None),
    ({"stat-total-memory": 100}, None),
]


@pytest.mark.parametrize(("stats", "used"), STATS)
def test_what_a_guest_uses(stats: dict[str, int], used: int | None) -> None:
    def answer(command: str, arguments: Mapping[str, Any]) -> Any:
        match command:
            case "qom-get":
                return {"stats": stats, "last-update": int(time.time())}
            case "query-balloon":
                return {"actual": 200}
            case "query-memory-size-summary":
                return {"base-memory": 1, "plugged-memory": 50}

    assert _ask(Machine(answer))[0] == Memory(used, 6, 250, 7, 5)


def test_what_a_guest_said_long_ago_is_not_what_it_uses() -> None:
    stats = {"stat-total-memory": 100, "stat-free-memory": 20}
    machine = Machine(lambda command, arguments: {"stats": stats, "last-update": int(time.time()) - 10})
    assert _ask(machine)[0].current is None


def test_a_frozen_guest_is_not_asked() -> None:
    machine = Machine(lambda command, arguments: {})
    machine.frozen = True
    assert _ask(machine)[0].current is None
    assert not {"qom-set", "qom-get"} & set(machine.asked)


@pytest.mark.parametrize(("enabled", "shown"), [(True, ("kvm", "")), (False, ("tcg", "why"))])
def test_the_accelerator_is_what_qemu_says(enabled: bool, shown: tuple[str, str]) -> None:
    running = _ask(Machine(lambda command, arguments: {"enabled": enabled}, emulated="why"))[2]
    assert (running.accelerator, running.why) == shown
