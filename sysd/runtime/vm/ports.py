# SPDX-License-Identifier: Apache-2.0
"""Ports of a running virtual machine (virtio-serial), each a stream between a socket here and a device in the guest.

QEMU gets the socket that it is to listen on as a descriptor: it sees nothing of our files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sysd.model.errors import BusyError, FailedError
from sysd.runtime.vm import keys
from sysd.runtime.vm.qmp import Qmp, QmpError

FOLDER = Path("/run/syscont/vm")
BUS = "serial0.0"
"""Of the controller that each machine is started with."""
PREFIX = "org.syscont."
MAX_PORTS = 28
"""At once: a controller has 31, of which the agent has one and the first is for a console."""
_TRIES, _PAUSE = 20, 0.05


class Ports:
    """Those of one machine."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._plugged: dict[str, Port] = {}

    def take_event(self, name: str, data: Mapping[str, Any]) -> None:
        """Of QEMU's: whether someone in the guest has a port open."""
        device = data.get("id") if name == "VSERPORT_CHANGE" else None
        if isinstance(device, str) and (port := self._plugged.get(device)):
            port.opened_or_closed(data.get("open") is True)

    async def plug(self, qmp: Qmp, token: str) -> Port:
        if len(self._plugged) >= MAX_PORTS:
            raise BusyError("too many commands run in the instance at once", f"at most {MAX_PORTS} without vsock")
        port = Port(qmp, f"{PREFIX}{token}", self._path(token), self._forget)
        self._plugged[port.name] = port
        try:
            await port.plug()
        except BaseException:
            await port.unplug()
            raise
        return port

    async def sweep(self, qmp: Qmp) -> None:
        """Unplug those of a daemon that is no more: what was at their ends ended with it."""
        for found in await qmp.execute("query-chardev"):
            name = found.get("label") if isinstance(found, dict) else None
            if isinstance(name, str) and name.startswith(PREFIX) and name not in self._plugged:
                await Port(qmp, name, self._path(name.removeprefix(PREFIX)), self._forget).unplug()

    def _path(self, token: str) -> Path:
        return FOLDER / f"{self._uuid}.{token}"

    def _forget(self, port: Port) -> None:
        self._plugged.pop(port.name, None)


class Port:
    """name is that of the device in the guest, and QEMU's of all that belongs to it. on_lost is called when someone
    in the guest had it open, and has it no more."""

    def __init__(self, qmp: Qmp, name: str, path: Path, on_end: Callable[[Port], None]) -> None:
        self.name = name
        self.path = path
        self.opened = asyncio.Event()
        self.on_lost: Callable[[], None] | None = None
        self._qmp = qmp
        self._on_end = on_end

    def opened_or_closed(self, is_open: bool) -> None:
        if is_open:
            self.opened.set()
        elif self.opened.is_set() and self.on_lost:
            self.on_lost()

    async def plug(self) -> None:
        with self._listener() as listener:
            await self._qmp.execute("getfd", {"fdname": self.name}, fds=[listener.fileno()])
        address = {"type": "fd", "data": {"str": self.name}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        await self._qmp.execute("chardev-add", {"id": self.name, "backend": backend})
        device = {"driver": "virtserialport", "bus": BUS, "id": self.name, "chardev": self.name, "name": self.name}
        await self._qmp.execute("device_add", device)

    def _listener(self) -> socket.socket:
        """For root and for ssh."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
            os.chown(self.path, 0, keys.group_id())
            os.chmod(self.path, 0o660)
            listener.listen(1)
        except OSError as error:
            listener.close()
            raise FailedError(f"no socket for a command: {error.strerror}") from None
        return listener

    async def unplug(self) -> None:
        """As far as it was plugged; QEMU may be gone."""
        self._on_end(self)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        with contextlib.suppress(FailedError):
            await self._qmp.execute("device_del", {"id": self.name})
        for _ in range(_TRIES):
            try:
                await self._qmp.execute("chardev-remove", {"id": self.name})
                return
            except QmpError as error:
                # It may not have let go of the device yet.
                if "busy" not in error.description:
                    return
            except FailedError:
                return
            await asyncio.sleep(_PAUSE)
