# SPDX-License-Identifier: Apache-2.0
"""What virtual machines say of themselves (VM_INTERFACE of systemd: vmm.notify_socket), on one socket of vsock for all.

Who speaks is known from the kernel: no guest can have another's context id.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from sysd.runtime.guest import BREATH, FLOOD, FLOOD_PERIOD, READS, allowed_fields
from sysd.runtime.pace import Pace

log = logging.getLogger(__name__)

DEVICE = "/dev/vhost-vsock"
PORT = 979
"""Below 1024, so that nobody but root can have taken it. The same for ever: a guest is told once, at its start."""
FIRST_GUEST = 3
MAX_MESSAGE = 4096
PATIENCE = 2.0
"""Seconds that a guest has for its message."""
MAX_AT_ONCE = 8
"""Messages of one guest that are on their way; more are dropped, as are those beyond its pace."""
MAX_GUESTS = 4096

Take = Callable[[int, str], None]


def credential() -> str:
    """The value of vmm.notify_socket."""
    return f"vsock-stream:{socket.VMADDR_CID_HOST}:{PORT}"


class Notifications:
    """take is called with a context id and the lines that allowed_fields left."""

    def __init__(self, listener: socket.socket, take: Take, cid_of: Callable[[object], int]) -> None:
        self._listener = listener
        self._take = take
        self._cid_of = cid_of
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._messages: dict[int, set[_Message]] = {}
        self._paces: dict[int, Pace] = {}
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for messages in list(self._messages.values()):
            for message in list(messages):
                message.end()

    def forget(self, cid: int) -> None:
        """The guest is gone."""
        self._paces.pop(cid, None)

    def _accept(self) -> None:
        for _ in range(READS):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.info("no notification can be taken now: %s", error)
                break
            self._begin(sock, self._cid_of(address))
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(BREATH, self._loop.add_reader, self._listener, self._accept)

    def _begin(self, sock: socket.socket, cid: int) -> None:
        if not self._may(cid):
            sock.close()
            return
        sock.setblocking(False)
        messages = self._messages.setdefault(cid, set())

        def ended(message: _Message) -> None:
            messages.discard(message)
            if not messages:
                self._messages.pop(cid, None)
            if fields := allowed_fields(bytes(message.data)):
                self._take(cid, fields)

        messages.add(_Message(sock, ended))

    def _may(self, cid: int) -> bool:
        if cid < FIRST_GUEST or len(self._messages.get(cid, ())) >= MAX_AT_ONCE:
            return False
        if cid not in self._paces and len(self._paces) >= MAX_GUESTS:
            self._paces.clear()
        return not self._paces.setdefault(cid, Pace(FLOOD / FLOOD_PERIOD, FLOOD)).step()


class _Message:
    """One connection, until it has ended, or is too long for that in time or bytes."""

    def __init__(self, sock: socket.socket, ended: Callable[[_Message], None]) -> None:
        self.data = bytearray()
        self._socket = sock
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._limit = self._loop.call_later(PATIENCE, self.end)
        self._loop.add_reader(sock, self._read)

    def _read(self) -> None:
        chunk = b""
        with suppress(OSError):
            chunk = self._socket.recv(MAX_MESSAGE - len(self.data))
        self.data += chunk
        if not chunk or len(self.data) >= MAX_MESSAGE:
            self.end()

    def end(self) -> None:
        self._limit.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._ended(self)


def open(take: Take) -> Notifications | None:
    """Listen; None when the host has no vsock for guests."""
    listener = None
    try:
        # Its module is loaded when it is opened, and only then is there an address of the host's.
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listener.bind((socket.VMADDR_CID_HOST, PORT))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        if listener:
            listener.close()
        log.info("virtual machines can't tell when they are ready: no vsock: %s", error)
        return None
    return Notifications(listener, take, _cid)


def _cid(address: object) -> int:
    return address[0] if isinstance(address, tuple) and isinstance(address[0], int) else 0
