# SPDX-License-Identifier: Apache-2.0
"""The varlink wire (varlink.org): JSON messages that end with a NUL, descriptors beside them."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may have of us, all of it by connection. message: bytes of one of its; fds: descriptors with it;
    unread: bytes that may wait for it behind those of one answer; past these it is cut off."""

    message: int
    fds: int
    unread: int


MANAGERS = Limits(message=1 << 20, fds=8, unread=16 << 20)


class HangUps:
    """Tells connections that their peer is gone, also those that nothing is read from now: of that, epoll always
    tells (epoll_ctl(2), EPOLLHUP), and once each as edges."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._gone: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll, self._wake)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll)
        self._epoll.close()

    def add(self, fd: int, gone: Callable[[], None]) -> None:
        self._gone[fd] = gone
        self._epoll.register(fd, select.EPOLLET)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._gone[fd]

    def _wake(self) -> None:
        for fd, _ in self._epoll.poll(0):
            if gone := self._gone.get(fd):
                gone()


class Connection:
    """One peer. Messages come in by on_message, one at a time; what is sent never waits for the peer.

    No byte of a message is read before the one before it is dealt with, so that descriptors, which come with
    bytes, are known to be of the message under way."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Connection, dict[str, Any]], None],
        on_close: Callable[[], None],
        hang_ups: HangUps,
        limits: Limits = MANAGERS,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._limits = limits
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._input = b""
        self._fds: list[int] = []
        self._output: deque[tuple[bytes, list[int]]] = deque()
        self._unsent = 0
        self._busy = False
        self._peer_gone = False
        self.closed = False
        self._hang_ups = hang_ups
        hang_ups.add(sock.fileno(), self._hung_up)
        self._loop.add_reader(sock, self._readable)

    def take_fds(self) -> list[int]:
        """The descriptors that came with the message under way; the taker closes them."""
        fds, self._fds = self._fds, []
        return fds

    def send(self, message: bytes, fds: list[int] | None = None) -> None:
        """Queue a message; fds are closed once they are sent."""
        if self.closed:
            close_all(fds or [])
            return
        self._output.append((message + b"\0", fds or []))
        self._unsent += len(message)
        if len(self._output) == 1:
            self._write()
        if len(self._output) > 1 and self._unsent > self._limits.unread:
            self.close()

    def done(self) -> None:
        """The message under way is dealt with: descriptors nobody took are closed, the next one may come."""
        close_all(self.take_fds())
        self._busy = False
        if not self.closed:
            self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._hang_ups.remove(self._socket.fileno())
        self._socket.close()
        close_all(self.take_fds())
        for _, fds in self._output:
            close_all(fds)
        self._output.clear()
        self._on_close()

    def _hung_up(self) -> None:
        """What the peer said before it went is still read, and begun."""
        self._peer_gone = True
        if self._busy:
            self._loop.call_soon(self.close)

    def _readable(self) -> None:
        if self._busy:
            self._loop.remove_reader(self._socket)
            return
        try:
            # Looked at first, so that nothing is taken of the next message.
            ahead = self._socket.recv(CHUNK, socket.MSG_PEEK)
            wanted = ahead.find(b"\0") + 1 or len(ahead)
            data, fds, flags, _ = socket.recv_fds(self._socket, wanted, self._limits.fds)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        self._input += data
        too_much = len(self._input) > self._limits.message or len(self._fds) > self._limits.fds
        if not data or flags & socket.MSG_CTRUNC or too_much:
            self.close()
        elif data.endswith(b"\0"):
            self._take()

    def _take(self) -> None:
        message, self._input = self._input[:-1], b""
        self._busy = True
        try:
            parsed = json.loads(message)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            self.close()
            return
        self._on_message(self, parsed)
        if self._peer_gone:
            self._loop.call_soon(self.close)

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
            close_all(fds)
            self._unsent -= sent
            if sent < len(message):
                self._output[0] = (message[sent:], [])
            else:
                self._output.popleft()
        self._loop.remove_writer(self._socket)


def credentials(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process that connected (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def close_all(fds: list[int]) -> None:
    """Those that are -1 belong to another by now."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
