# SPDX-License-Identifier: Apache-2.0
"""Memory of machines, kept in a file (docs/devel/migration/mapped-ram of QEMU) beside the disk that belongs to it.

    upper/state        the memory of a machine that is stopped: its next start goes on from there
    upper/state.json   what the machine was made of, which is then to be the same
    upper/state.new    memory that is being written

Whoever lets the processors run removes state before that, as the disk then moves on: the launcher and what stops the
machine (sysd/_cext/launch/kept.c) do as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sysd.model.config import SCHEMA
from sysd.model.devices.disk import root_size
from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.runtime.trees import sync_directory
from sysd.runtime.vm import kvm
from sysd.runtime.vm.board import fdset
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.parts import load
from sysd.runtime.vm.qmp import Unresponsive
from sysd.runtime.vm.spec import Resume
from sysd.units.helper import see_through

STATE, FACTS, DRAFT = "state", "state.json", "state.new"
FIXED = ("boot.mode", "limits.cpu.model", "limits.memory.hugepages", "raw.qemu", "security.secureboot")
KEYS = ("limits.cpu", "limits.memory", *FIXED)
"""Of the configuration, on which hardware depends."""
FD = 199
"""Of the file, for QEMU."""
DEFER = ["-incoming", "defer"]
_SET = 900
_LOOK = 0.5
_GIVE_UP = 20.0
"""Seconds for QEMU to end what was cancelled."""
_UNLIMITED = 1 << 50
_MAPPED = "mapped-ram"
_OF_MOVES = ("auto-converge", "multifd", "pause-before-switchover")
_NOT_OF_MOVES = {"tls-creds": "", "multifd-compression": "none"}
"""What a machine may still have on from a move that it has behind it, and how that is off."""
_UNDER_WAY = ("setup", "active", "device", "pre-switchover", "cancelling", "wait-unplug")
_ENDS = ("completed", "failed", "cancelled")

Show = Callable[[str, int, int], None]
"""Is told what is done, how many bytes of it are, and of how many."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a machine was made of when its memory was kept. model: QEMU's name of it, with a version; mapped: how the
    memory is in the file; plugged: processors that came while it ran; config: of KEYS, and the size of its disk;
    image: that its disk is of; vsock: it has a device for it. The rest is as in hardware.Machine."""

    model: str
    qemu: str
    mapped: bool
    accelerated: bool
    vsock: bool
    memory: int
    most_memory: int
    cpus: int
    most_cpus: int
    plugged: list[dict[str, Any]]
    image: str
    config: dict[str, str]
    parts: dict[str, dict[str, Any]]

    def resume(self) -> Resume:
        if self.mapped:
            return Resume(FD, [*DEFER, "-add-fd", f"fd={FD},set={FD}"], [_capability(on=True)], f"file:{fdset(FD)}")
        return Resume(FD, DEFER, [], f"fd:{FD}")

    def check(
        self, expanded: Instance, parts: Mapping[str, Part], *, accelerated: bool, vsock: bool, arrives: bool = False
    ) -> None:
        """Raise FailedError unless a machine that is configured so is the one that it was, or with arrives still is on
        the host that it comes from."""
        now = config_of(expanded)
        other = [key for key in now if now[key] != (self.config.get(key) or _default(key))]
        had = load(self.parts)
        other += [f"device {name}" for name in sorted({*had, *parts}) if _seen(had.get(name)) != _seen(parts.get(name))]
        other += ["image"] if expanded.image != self.image else []
        other += ["KVM"] if accelerated != self.accelerated else []
        other += ["vsock"] if self.vsock and not vsock else []
        if other and arrives:
            why = f"{expanded.name} can't go on here as it runs there: it would have another {', '.join(other)}"
            raise FailedError(why, "stop it first, or have both hosts give it the same")
        if other:
            why = f"{expanded.name} can't go on with the memory that was kept: not as it was then: {', '.join(other)}"
            raise FailedError(why, f"put it back, or start without: syscont start --stateless {expanded.name}")


def config_of(expanded: Instance) -> dict[str, str]:
    return {key: expanded.config.get(key) or _default(key) for key in KEYS} | {"size": str(root_size(expanded.devices))}


def fixed_of(expanded: Instance) -> dict[str, str]:
    """What a machine has from its start to its end, whatever is configured meanwhile."""
    return {key: value for key, value in config_of(expanded).items() if key in FIXED}


def _default(key: str) -> str:
    return SCHEMA.text({}, key) if key in KEYS else ""


def _seen(part: Part | None) -> dict[str, Any] | None:
    """A device as the guest sees it."""
    return None if part is None else {**part.device, "bootindex": 0, "port": part.port}


# files; folder is that of the disk


def is_kept(folder: Path) -> bool:
    return (folder / STATE).exists()


def read(folder: Path) -> Kept | None:
    """None when nothing is kept. Raises FailedError when it is not known what it is of."""
    if not is_kept(folder):
        return None
    try:
        return Kept(**json.loads((folder / FACTS).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        why = f"what machine the memory in {folder} is of can't be read: {error}"
        raise FailedError(why, "syscont start --stateless starts without it") from None


def commit(folder: Path, kept: Kept) -> None:
    """The memory that was written is that of the machine from now on."""
    draft = folder / f"{FACTS}.new"
    with draft.open("w") as stream:
        json.dump(asdict(kept), stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(folder / FACTS)
    sync_directory(folder)
    (folder / DRAFT).rename(folder / STATE)
    sync_directory(folder)


def drop(folder: Path) -> None:
    """On disk when it returns."""
    for name in (STATE, DRAFT, f"{FACTS}.new", FACTS):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
            if name == STATE:
                sync_directory(folder)


def sweep(folder: Path) -> None:
    """Remove what is left of work that was broken off, and of memory that was taken up."""
    if not is_kept(folder):
        drop(folder)
    (folder / DRAFT).unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Memory to a folder on the same file system that has none."""
    for name in (FACTS, STATE):
        (source / name).rename(target / name)


# the machine, which stands still


async def save(machine: MachineGuest, expanded: Instance, folder: Path, show: Show) -> Kept:
    """Write its memory to the draft in folder, on disk when this returns. Raises FailedError, and leaves none then;
    the machine stands still in any case."""
    path, kept = folder / DRAFT, await describe(machine, expanded)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FailedError(f"{path}: {error.strerror}") from None
    try:
        mapped = await _write(machine, fd, show)
        show("flush", 0, 0)
        await asyncio.to_thread(os.fsync, fd)
        return replace(kept, mapped=mapped)
    except BaseException as error:
        await see_through(cancel(machine))
        path.unlink()
        if isinstance(error, OSError):
            raise FailedError(f"{path}: {error.strerror}") from error
        raise
    finally:
        os.close(fd)


async def _write(machine: MachineGuest, fd: int, show: Show) -> bool:
    known = {str(each.get("capability")) for each in await machine.execute("query-migrate-capabilities")}
    mapped = _MAPPED in known
    await machine.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED} | _NOT_OF_MOVES)
    wanted = {name: name == _MAPPED for name in (_MAPPED, *_OF_MOVES) if name in known}
    await machine.execute("migrate-set-capabilities", _states(wanted, events=True))
    if not mapped:
        await machine.execute("getfd", {"fdname": STATE}, fds=[fd])
        await _migrate(machine, f"fd:{STATE}", show)
        return False
    await machine.execute("add-fd", {"fdset-id": _SET}, fds=[fd])
    try:
        await _migrate(machine, f"file:{fdset(_SET)}", show)
    finally:
        with contextlib.suppress(FailedError):
            await see_through(machine.execute("remove-fd", {"fdset-id": _SET}))
    return True


async def _migrate(machine: MachineGuest, uri: str, show: Show) -> None:
    """Events tell of the end at once; the looks between show how far it is."""
    await machine.execute("migrate", {"uri": uri})
    while True:
        with contextlib.suppress(FailedError):
            await machine.event("MIGRATION", lambda data: data.get("status") in _ENDS, _LOOK)
        try:
            found = await machine.execute("query-migrate")
        except Unresponsive:
            continue  # it waits for the disk
        if found.get("status") == "completed":
            return
        if found.get("status") not in _UNDER_WAY:
            why = str(found.get("error-desc") or found.get("status"))
            raise FailedError(f"the memory of {machine.name} can't be kept: {why[:300]}")
        ram = found.get("ram", {})
        show("memory", int(ram.get("transferred", 0)), int(ram.get("total", 0)))


async def cancel(machine: MachineGuest) -> None:
    """See that QEMU writes no more."""
    with contextlib.suppress(FailedError, TimeoutError):
        async with asyncio.timeout(_GIVE_UP):
            await _cancel(machine)


async def _cancel(machine: MachineGuest) -> None:
    while (await machine.execute("query-migrate")).get("status") in _UNDER_WAY:
        await machine.execute("migrate_cancel")
        await asyncio.sleep(_LOOK / 5)


def _states(wanted: Mapping[str, bool], *, events: bool) -> dict[str, Any]:
    states = {"events": events, **wanted}
    return {"capabilities": [{"capability": name, "state": on} for name, on in states.items()]}


def _capability(*, on: bool) -> dict[str, Any]:
    return {"execute": "migrate-set-capabilities", "arguments": _states({_MAPPED: on}, events=False)}


async def describe(machine: MachineGuest, expanded: Instance) -> Kept:
    """What it is made of now. Raises FailedError, also where it could not go on as it is configured by now."""
    spec = machine.spec
    try:
        _check_fixed(machine.name, spec["fixed"], fixed_of(expanded))
        model = await machine.execute("qom-get", {"path": "/machine", "property": "type"})
        version = (await machine.execute("query-version"))["qemu"]
        return Kept(
            model=str(model).removesuffix("-machine"),
            qemu=".".join(str(version[part]) for part in ("major", "minor", "micro")),
            mapped=False,
            accelerated=kvm.DEVICE in spec["nodes"],
            vsock=bool(spec["cid"]),
            memory=int(spec["memory"]),
            most_memory=int(spec["most_memory"]),
            cpus=int(spec["cpus"]),
            most_cpus=int(spec["most_cpus"]),
            plugged=_plugged(await machine.execute("query-hotpluggable-cpus")),
            image=expanded.image,
            config=config_of(expanded),
            parts=spec["parts"],
        )
    except KeyError as error:
        why = f"{machine.name} was started by an earlier version, and {error} is not known of it"
        raise FailedError(why, f"syscont restart {machine.name}") from None


def _check_fixed(name: str, started: Mapping[str, str], now: Mapping[str, str]) -> None:
    if other := [key for key in FIXED if started[key] != now[key]]:
        why = f"{name} runs with another {', '.join(other)} than it is configured to have, and could not go on so"
        raise FailedError(why, f"put it back, or syscont restart {name}")


def _plugged(processors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that sysd.runtime.vm.resize has added, as they are added again."""
    named = [(os.path.basename(str(one["qom-path"])), one) for one in processors if "qom-path" in one]
    return [{"driver": one["type"], "id": name, **one["props"]} for name, one in named if name.startswith("cpu-")]


async def end(machine: MachineGuest) -> None:
    """Have QEMU end, whose memory is kept. It may be gone before it has answered."""
    with contextlib.suppress(FailedError):
        await machine.execute("quit")
