# SPDX-License-Identifier: Apache-2.0
"""The varlink wire (varlink.org): JSON messages that end with a NUL, descriptors beside them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

MAX_MESSAGE = 1 << 20
MAX_FDS = 8
MAX_UNREAD = 16 << 20
"""Bytes that may wait for a peer that does not read; past that it is cut off."""


class Connection:
    """One peer. Messages come in by on_message, one at a time; what is sent never waits for the peer."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Connection, dict[str, Any]], None],
        on_close: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._input = b""
        self._fds: list[int] = []
        self._output: deque[tuple[bytes, list[int]]] = deque()
        self._unsent = 0
        self._busy = False
        self.closed = False
        self._loop.add_reader(sock, self._readable)

    @property
    def credentials(self) -> tuple[int, int]:
        """(pid, uid) of the process that connected (unix(7), SO_PEERCRED)."""
        pid, uid, _ = struct.unpack("iII", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid, uid

    def take_fds(self) -> list[int]:
        """The descriptors that came with the message under way; the taker closes them."""
        fds, self._fds = self._fds, []
        return fds

    def send(self, message: bytes, fds: list[int] | None = None) -> None:
        """Queue a message; fds are closed once they are sent."""
        if self.closed:
            _close_all(fds or [])
            return
        self._output.append((message + b"\0", fds or []))
        self._unsent += len(message)
        if len(self._output) == 1:
            self._write()
        if self._unsent > MAX_UNREAD:
            self.close()

    def done(self) -> None:
        """The message under way is dealt with: descriptors nobody took are closed, the next one may come."""
        _close_all(self.take_fds())
        self._busy = False
        if not self.closed:
            self._next()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        _close_all(self.take_fds())
        for _, fds in self._output:
            _close_all(fds)
        self._output.clear()
        self._on_close()

    def _readable(self) -> None:
        try:
            data, fds, flags, _ = socket.recv_fds(self._socket, 1 << 16, MAX_FDS)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        self._input += data
        if not data or flags & socket.MSG_CTRUNC or len(self._input) > MAX_MESSAGE or len(self._fds) > MAX_FDS:
            self.close()
            return
        self._next()

    def _next(self) -> None:
        if self._busy:
            return
        message, found, rest = self._input.partition(b"\0")
        if not found:
            return
        self._input = rest
        self._busy = True
        try:
            parsed = json.loads(message)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict):
            self._on_message(self, parsed)
        else:
            self.close()

    def _write(self) -> None:
        while self._output:
            message, fds = self._output[0]
            try:
                sent = socket.send_fds(self._socket, [message], fds) if fds else self._socket.send(message)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:
                self.close()
                return
            _close_all(fds)
            self._unsent -= sent
            if sent < len(message):
                self._output[0] = (message[sent:], [])
            else:
                self._output.popleft()
        self._loop.remove_writer(self._socket)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
