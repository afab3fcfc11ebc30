# SPDX-License-Identifier: Apache-2.0
"""Parts that come to, and go from, a machine that runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from sysd.model.errors import FailedError
from sysd.runtime.vm.board import fdset
from sysd.runtime.vm.hardware import Part, port
from sysd.runtime.vm.machine import MachineGuest

OpenTap = Callable[[str], int]
SETS_AT = 1000
"""Above the numbers of those that the launcher has made."""
SETS_EACH = 8
LET_GO = 30.0
"""Seconds that a guest has to let go of a device. One that has not booted does not hear of it."""


async def plug(machine: MachineGuest, part: Part, open_tap: OpenTap, ready: Callable[[], None]) -> None:
    """Or leave the machine as it was: FailedError. ready is called when a tap is there, before the guest sees it."""
    done: list[tuple[str, dict[str, object]]] = []
    try:
        for number, (node, (path, write)) in enumerate(part.files.items()):
            await _open(machine, _set(part, number), path, write=write)
            done.append(("remove-fd", {"fdset-id": _set(part, number)}))
            await machine.execute("blockdev-add", _node(part, node) | {"filename": fdset(_set(part, number))})
            done.append(("blockdev-del", {"node-name": node}))
        for above in part.nodes:
            if above["node-name"] not in part.files:
                await machine.execute("blockdev-add", above)
                done.append(("blockdev-del", {"node-name": above["node-name"]}))
        if part.netdev:
            await _tap(machine, part, open_tap)
            done.append(("netdev_del", {"id": part.netdev["id"]}))
            ready()
        await machine.execute("device_add", {**part.device, "bus": port(part.port)})
    except BaseException:
        for command, arguments in reversed(done):
            with contextlib.suppress(FailedError):
                await machine.execute(command, arguments)
        raise


async def unplug(machine: MachineGuest, part: Part) -> None:
    """When the guest has let go of it, or not at all: FailedError."""
    name = part.device["id"]
    gone = asyncio.ensure_future(machine.event("DEVICE_DELETED", lambda data: data.get("device") == name, LET_GO))
    try:
        await asyncio.sleep(0)  # it has to listen first
        await machine.execute("device_del", {"id": name})
        await gone
    except FailedError as error:
        why = f"the guest does not let go of {name.removeprefix('dev-')}: {error.message}"
        raise FailedError(why, "a guest that has not booted can't; stop the instance") from None
    finally:
        gone.cancel()
    await forget(machine, part)


async def forget(machine: MachineGuest, part: Part) -> None:
    """What is behind a device that is gone."""
    if part.netdev:
        await machine.execute("netdev_del", {"id": part.netdev["id"]})
    for node in reversed(part.nodes):
        await machine.execute("blockdev-del", {"node-name": node["node-name"]})
    for number in range(len(part.files)):
        with contextlib.suppress(FailedError):  # one that was there at the start has another number
            await machine.execute("remove-fd", {"fdset-id": _set(part, number)})


def _set(part: Part, number: int) -> int:
    return SETS_AT + part.port * SETS_EACH + number


def _node(part: Part, name: str) -> dict[str, object]:
    return next(node for node in part.nodes if node["node-name"] == name)


async def _open(machine: MachineGuest, number: int, path: str, *, write: bool) -> None:
    try:
        fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedError(f"{path}: {error.strerror}") from None
    try:
        await machine.execute("add-fd", {"fdset-id": number}, fds=[fd])
    finally:
        os.close(fd)


async def _tap(machine: MachineGuest, part: Part, open_tap: OpenTap) -> None:
    netdev = {key: value for key, value in part.netdev.items() if key != "ifname"}
    fd, name = open_tap(part.netdev["ifname"]), f"tap{part.port}"
    try:
        await machine.execute("getfd", {"fdname": name}, fds=[fd])
    finally:
        os.close(fd)
    await machine.execute("netdev_add", netdev | {"fd": name})
