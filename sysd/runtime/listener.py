# SPDX-License-Identifier: Apache-2.0
"""A socket in a guest's tree on which its processes ask the host.

Who asks is known from the socket, which is one instance's, and from the kernel: a process of any other unit that got
hold of the socket is not answered.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from sysd.runtime.pace import Pace
from sysd.units.processes import peer_is_in

RATE = 50.0
BURST = 100
"""Connections taken, in a second and at once; the others wait, at the guest's own cost."""
SHORTAGE = 1.0
"""Seconds to wait where the daemon lacks descriptors or memory."""


class Listener:
    def __init__(self, fd: int, unit: str) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._unit = unit
        self._pace = Pace(RATE, BURST)
        self._pause: asyncio.TimerHandle | None = None
        self._take: Callable[[socket.socket], None] | None = None

    def serve(self, take: Callable[[socket.socket], None]) -> None:
        """Hand each connection of the guest's to take, who closes it."""
        self._take = take
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def close(self) -> None:
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            self._rest(SHORTAGE)
            return
        assert self._take
        if peer_is_in(sock, self._unit):
            self._take(sock)
        else:
            sock.close()
        if delay := self._pace.step():
            self._rest(delay)

    def _rest(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._pause = loop.call_later(seconds, loop.add_reader, self._socket, self._accept)
