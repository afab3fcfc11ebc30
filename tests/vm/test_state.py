# SPDX-License-Identifier: Apache-2.0
"""Memory that is kept: written and taken up by the real QEMU, by one in which that fails, and its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest

from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.runtime.vm import state
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.qmp import Qmp, QmpError
from tests.vm.peers import program

MIB = 1 << 20
INSTANCE = Instance("u", "m1", "image", 65536, config={"limits.memory": "64MiB"})
DISK = Part(0, {"driver": "virtio-blk-pci", "id": "dev-root", "bootindex": 1})
SPEC = {"nodes": [], "cid": 0, "memory": 64 * MIB, "most_memory": 64 * MIB, "cpus": 1, "most_cpus": 2,
        "parts": {"root": asdict(DISK)}, "fixed": state.fixed_of(INSTANCE)}  # fmt: skip
KEPT = state.Kept("pc-q35-9.2", "9.2.0", True, False, False, 64 * MIB, 64 * MIB, 1, 2, [], "image",
                  state.config_of(INSTANCE), {"root": asdict(DISK)})  # fmt: skip


ANSWERS = {
    "qom-get": "pc-q35-9.2-machine",
    "query-version": {"qemu": dict.fromkeys(("major", "minor", "micro"), 9)},
    "query-hotpluggable-cpus": [],
}
"""Of a machine that says what it is."""


class Machine:
    """What state asks of one; connected to a QEMU, or answering by itself."""

    name, leader, spec = "m1", 0, SPEC

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = ANSWERS | answers
        self.asked: list[str] = []
        self.qmp: Qmp | None = None

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
        self.asked.append(command)
        if self.qmp:
            return await self.qmp.execute(command, arguments, **options)
        answer = self.answers.get(command, {})
        if isinstance(answer, list) and command == "query-migrate":
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def event(self, name: str, fits: Callable[[Mapping[str, Any]], bool], timeout: float) -> Mapping[str, Any]:
        await asyncio.sleep(0.01)
        raise FailedError("none came")


def save(machine: Machine, folder: Path, shown: list[tuple[str, int, int]]) -> Any:
    return state.save(cast("MachineGuest", machine), INSTANCE, folder, lambda *what: shown.append(what))


@contextlib.asynccontextmanager
async def qemu(path: Path, model: str, *further: str) -> AsyncIterator[Machine]:
    argv = ["qemu-system-x86_64", "-machine", model, "-accel", "tcg", "-m", "64", "-display", "none", "-nodefaults"]
    machine = Machine({})
    with program([*argv, "-S", "-qmp", f"unix:{path},server=on,wait=off", *further], path):
        machine.qmp = await Qmp.connect(path, lambda name, data: None, lambda: None)
        try:
            yield machine
        finally:
            machine.qmp.close()


def test_saved_and_taken_up_by_the_real_one(tmp_path: Path) -> None:
    async def run() -> None:
        shown: list[tuple[str, int, int]] = []
        async with qemu(tmp_path / "one", "q35") as machine:
            kept = await save(machine, tmp_path, shown)
        assert (kept.mapped, kept.memory, kept.accelerated) == (True, 64 * MIB, False)
        assert kept.model.startswith("pc-q35-")
        assert (tmp_path / state.DRAFT).stat().st_mode & 0o777 == 0o600
        assert shown[-1] == ("flush", 0, 0)
        assert not state.is_kept(tmp_path)
        state.commit(tmp_path, kept)
        assert state.read(tmp_path) == kept
        assert sorted(os.listdir(tmp_path)) == ["one", state.STATE, state.FACTS]
        await _take_up(tmp_path, kept)

    asyncio.run(run())


async def _take_up(folder: Path, kept: state.Kept) -> None:
    """As the launcher does, but for the way on which QEMU gets the file."""
    resume = kept.resume()
    assert resume.arguments[2:] == ["-add-fd", f"fd={state.FD},set={state.FD}"]
    async with qemu(folder / "two", kept.model, *resume.arguments[:2]) as machine:
        with (folder / state.STATE).open("rb") as stream:
            await machine.execute("add-fd", {"fdset-id": state.FD}, fds=[stream.fileno()])
        assert (await machine.execute("query-status"))["status"] == "inmigrate"
        for command in resume.prepare:
            await machine.execute(command["execute"], command["arguments"])
        await machine.execute("migrate-incoming", {"uri": resume.incoming})
        async with asyncio.timeout(20):
            while (await machine.execute("query-status"))["status"] == "inmigrate":
                await asyncio.sleep(0.05)
        assert (await machine.execute("query-migrate"))["status"] == "completed"


CAPABILITIES = [{"capability": "mapped-ram", "state": False}]
FULL = {"status": "failed", "error-desc": "No space left on device"}
ACTIVE = {"status": "active", "ram": {"transferred": 3, "total": 9}}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"query-migrate": [ACTIVE, FULL, {}]}, "the memory of m1 can't be kept: No space left on device"),
        ({"query-migrate": [{}, {}]}, "the memory of m1 can't be kept: None"),
        ({"migrate": QmpError("migrate", "GenericError", "a device prevents it"), "query-migrate": [{}]}, "prevents"),
    ],
)
def test_what_fails_leaves_nothing(tmp_path: Path, answers: dict[str, Any], why: str) -> None:
    machine = Machine({"query-migrate-capabilities": CAPABILITIES, **answers})
    shown: list[tuple[str, int, int]] = []
    with pytest.raises(FailedError, match=why):
        asyncio.run(save(machine, tmp_path, shown))
    assert os.listdir(tmp_path) == []
    assert ("memory", 3, 9) in shown or ACTIVE not in answers["query-migrate"]
    assert machine.asked[-1] == "query-migrate"


def test_one_that_is_cancelled_writes_no_more(tmp_path: Path) -> None:
    looks = [ACTIVE] * 5 + [{"status": "cancelled"}]
    machine = Machine({"query-migrate-capabilities": [], "query-migrate": looks})

    async def run() -> None:
        task = asyncio.ensure_future(save(machine, tmp_path, []))
        while "query-migrate" not in machine.asked and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert os.listdir(tmp_path) == []
    assert "migrate_cancel" in machine.asked
    assert looks == []
    assert "getfd" in machine.asked  # of a QEMU without mapped-ram
    assert "add-fd" not in machine.asked


def test_one_without_mapped_ram_reads_a_stream() -> None:
    resume = replace(KEPT, mapped=False).resume()
    assert (resume.incoming, resume.prepare) == (f"fd:{state.FD}", [])
    assert KEPT.resume().incoming == f"file:/dev/fdset/{state.FD}"


@pytest.mark.parametrize(
    ("config", "image", "parts", "facts", "what"),
    [
        ({"limits.memory": "65MiB"}, "image", {"root": DISK}, (False, False), "limits.memory"),
        ({"limits.memory": "64MiB", "raw.qemu": "-S"}, "image", {"root": DISK}, (False, False), "raw.qemu"),
        ({"limits.memory": "64MiB"}, "other", {"root": DISK}, (False, False), "image"),
        ({"limits.memory": "64MiB"}, "image", {}, (False, False), "device root"),
        ({"limits.memory": "64MiB"}, "image", {"root": replace(DISK, port=1)}, (False, False), "device root"),
        ({"limits.memory": "64MiB"}, "image", {"root": DISK, "more": DISK}, (False, False), "device more"),
        ({"limits.memory": "64MiB"}, "image", {"root": DISK}, (True, False), "KVM"),
    ],
)
def test_another_machine_is_refused(
    config: dict[str, str], image: str, parts: dict[str, Part], facts: tuple[bool, bool], what: str
) -> None:
    expanded = replace(INSTANCE, config=config, image=image)
    with pytest.raises(FailedError, match=f"not as it was then: {what}$") as caught:
        KEPT.check(expanded, parts, accelerated=facts[0], vsock=facts[1])
    assert "--stateless m1" in caught.value.hint


def test_the_same_machine_is_not() -> None:
    other_order = replace(DISK, device=DISK.device | {"bootindex": 2})
    KEPT.check(replace(INSTANCE, name="renamed"), {"root": other_order}, accelerated=False, vsock=True)
    with pytest.raises(FailedError, match="vsock"):
        replace(KEPT, vsock=True).check(INSTANCE, {"root": DISK}, accelerated=False, vsock=False)


def test_what_it_was_started_with_counts(tmp_path: Path) -> None:
    """One that was configured otherwise since is not saved; nothing is asked of QEMU, and nothing is written."""
    machine = Machine({})
    now = replace(INSTANCE, config={**INSTANCE.config, "limits.cpu.model": "x86-64-v2"})
    saving = state.save(cast("MachineGuest", machine), now, tmp_path, lambda *_: None)
    with pytest.raises(FailedError, match=r"m1 runs with another limits\.cpu\.model than it is configured") as caught:
        asyncio.run(saving)
    assert caught.value.hint == "put it back, or syscont restart m1"
    assert not machine.asked
    assert not os.listdir(tmp_path)


def test_a_default_may_be_said() -> None:
    kept = asyncio.run(state.describe(cast("MachineGuest", Machine({})), INSTANCE))
    said = replace(INSTANCE, config={**INSTANCE.config, "limits.cpu.model": "host"})
    kept.check(said, {"root": DISK}, accelerated=False, vsock=False)
    other = replace(INSTANCE, config={**INSTANCE.config, "limits.cpu.model": "x86-64-v2"})
    earlier = replace(kept, config={key: kept.config[key] for key in kept.config if key != "limits.cpu.model"})
    for one in (kept, earlier):
        with pytest.raises(FailedError, match=r"not as it was then: limits\.cpu\.model$"):
            one.check(other, {"root": DISK}, accelerated=False, vsock=False)


def written(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(json.dumps(asdict(KEPT)))


def test_files(tmp_path: Path) -> None:
    assert state.read(tmp_path) is None
    written(tmp_path, state.DRAFT, state.FACTS)
    state.sweep(tmp_path)  # of a write that was broken off, and of memory that was taken up
    assert os.listdir(tmp_path) == []
    written(tmp_path, state.STATE, state.FACTS, state.DRAFT)
    state.sweep(tmp_path)
    assert state.read(tmp_path) == KEPT
    (tmp_path / "layer").mkdir()
    state.move(tmp_path, tmp_path / "layer")
    assert state.read(tmp_path / "layer") == KEPT
    assert os.listdir(tmp_path) == ["layer"]
    state.drop(tmp_path / "layer")
    assert os.listdir(tmp_path / "layer") == []


@pytest.mark.parametrize("facts", ["", "[]", "{}", '{"model": 1}'])
def test_memory_of_which_nothing_is_known(tmp_path: Path, facts: str) -> None:
    (tmp_path / state.STATE).touch()
    (tmp_path / state.FACTS).write_text(facts)
    with pytest.raises(FailedError, match="can't be read"):
        state.read(tmp_path)
