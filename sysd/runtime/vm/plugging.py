# SPDX-License-Identifier: Apache-2.0
"""Parts that come to, and go from, a machine that runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime.vm import handing, vfio
from sysd.runtime.vm.board import fdset
from sysd.runtime.vm.hardware import OF_LINK, Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.qmp import QmpError

OpenFile = Callable[[str, bool], Awaitable[int]]
"""Gives a descriptor of a path, for writing too or not."""


@dataclass(frozen=True, slots=True)
class Links:
    """What is done of interfaces on the host: open_tap makes a link of a name; drop removes one from the network
    namespace of a process; ready is called when a tap is there, before the guest sees it."""

    open_tap: Callable[[str], int]
    drop: Callable[[int, str], None]
    ready: Callable[[], None]


SETS_AT = 1000
"""Above the numbers of those that the launcher has made."""
SETS_EACH = 8
CONNECT_AGAIN, CONNECTS = 0.05, 100
LET_GO = 30.0
"""Seconds that a guest has to let go of a device. One that has not booted does not hear of it."""


async def plug(machine: MachineGuest, part: Part, open_file: OpenFile, links: Links) -> None:
    """Or leave the machine as it was: FailedError."""
    done: list[tuple[str, dict[str, object]]] = []
    try:
        opened: dict[str, str] = {}
        for number, name in enumerate((*part.files, *part.memory)):
            found = await open_file(*part.files[name]) if name in part.files else _remember(part.memory[name])
            await _give(machine, _set(part, number), found)
            done.append(("remove-fd", {"fdset-id": _set(part, number)}))
            opened[name] = fdset(_set(part, number))
        for node in part.nodes:
            file = opened.pop(node["node-name"], "")
            await machine.execute("blockdev-add", node | ({"filename": file} if file else {}))
            done.append(("blockdev-del", {"node-name": node["node-name"]}))
        for name, path in part.sockets.items():
            await _connect(machine, name, path)
            done.append(("chardev-remove", {"id": name}))
        if part.netdev:
            await _link(machine, part, links)
            done.append(("netdev_del", {"id": part.netdev["id"]}))
            links.ready()
        if part.passed:
            opened |= await _function(machine, part, open_file)
        device = part.place() | opened
        device.pop("bootindex", None)  # it counts at the next start, and may be another's until then
        await _add(machine, device)
    except BaseException:
        for command, arguments in reversed(done):
            with contextlib.suppress(FailedError):
                await machine.execute(command, arguments)
        _drop(machine, part, links)
        raise


async def _add(machine: MachineGuest, device: dict[str, Any]) -> None:
    try:
        await machine.execute("device_add", device)
    except QmpError as error:
        if "Bus" in error.description and "not found" in error.description:
            raise FailedError(f"{machine.name} has no place left for it", "restart it: it gets more then") from None
        raise


async def unplug(machine: MachineGuest, part: Part, links: Links) -> None:
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
    await _forget(machine, part)
    _drop(machine, part, links)


def _drop(machine: MachineGuest, part: Part, links: Links) -> None:
    """A tap goes when it is closed, and others do not."""
    if "request" in part.netdev:
        links.drop(machine.pidfd, part.netdev["ifname"])


async def _forget(machine: MachineGuest, part: Part) -> None:
    """What is behind a device that is gone."""
    if part.netdev:
        await machine.execute("netdev_del", {"id": part.netdev["id"]})
    for node in reversed(part.nodes):
        await machine.execute("blockdev-del", {"node-name": node["node-name"]})
    for name in part.sockets:
        await machine.execute("chardev-remove", {"id": name})
    for number in range(len(part.files) + len(part.memory)):
        with contextlib.suppress(FailedError):  # one that was there at the start has another number
            await machine.execute("remove-fd", {"fdset-id": _set(part, number)})


def _set(part: Part, number: int) -> int:
    return SETS_AT + part.port * SETS_EACH + number


def _remember(data: str) -> int:
    """As the launcher does it: a file that is nowhere, to read from."""
    with open(os.memfd_create("syscont"), "wb") as stream:
        stream.write(bytes.fromhex(data))
        stream.flush()
        return os.open(f"/proc/self/fd/{stream.fileno()}", os.O_RDONLY | os.O_CLOEXEC)


async def _give(machine: MachineGuest, number: int, fd: int) -> None:
    try:
        await machine.execute("add-fd", {"fdset-id": number}, fds=[fd])
    finally:
        os.close(fd)


async def _connect(machine: MachineGuest, name: str, path: str) -> None:
    """Of a server that was started just now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        for _ in range(CONNECTS):
            try:
                await asyncio.get_running_loop().sock_connect(sock, path)
                break
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                await asyncio.sleep(CONNECT_AGAIN)
        else:
            raise FailedError(f"nobody answers at {path}")
        await machine.execute("getfd", {"fdname": name}, fds=[sock.fileno()])
    address = {"type": "fd", "data": {"str": name}}
    data = {"addr": address, "server": False}
    await machine.execute("chardev-add", {"id": name, "backend": {"type": "socket", "data": data}})


async def _link(machine: MachineGuest, part: Part, links: Links) -> None:
    netdev = {key: value for key, value in part.netdev.items() if key not in OF_LINK}
    name, request = part.netdev["ifname"], part.netdev.get("request", "")
    fd = await handing.macvtap(machine, name, request) if request else links.open_tap(name)
    await _get(machine, f"tap{part.port}", fd)
    await machine.execute("netdev_add", netdev | {"fd": f"tap{part.port}"})


async def _function(machine: MachineGuest, part: Part, open_file: OpenFile) -> dict[str, Any]:
    """Properties by which QEMU has a function that is lent to it."""
    address = part.passed["address"]
    if not vfio.has_iommufd():
        return vfio.by_group(address)
    there = await machine.execute("qom-list", {"path": "/objects"})
    if not any(one.get("name") == vfio.OBJECT for one in there):
        await _get(machine, vfio.OBJECT, await open_file(vfio.IOMMU, True))
        await machine.execute("object-add", vfio.backend(vfio.OBJECT))
    name = f"vfio{part.port}"
    await _get(machine, name, await open_file(vfio.node(address), True))
    return vfio.by_descriptors(name)


async def _get(machine: MachineGuest, name: str, fd: int) -> None:
    """Give QEMU a descriptor by a name, under which it is taken once."""
    try:
        await machine.execute("getfd", {"fdname": name}, fds=[fd])
    finally:
        os.close(fd)
