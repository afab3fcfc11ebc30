# SPDX-License-Identifier: Apache-2.0
"""The near ends of streams, and waiting for many of them. None of it blocks."""

from __future__ import annotations

import os
import select
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    Ready = tuple[set[int], set[int]]

    class End(Protocol):
        def fileno(self) -> int: ...

        def read(self, most: int) -> bytes:
            """Nothing when it is at its end. Raises BlockingIOError."""

        def write(self, data: bytes) -> int:
            """Raises BlockingIOError, and another OSError when nobody reads it any more."""

        def finish(self) -> None:
            """Nothing more will be written."""

        def close(self) -> None: ...


class Descriptor:
    """A pipe or terminal, which is ours to close."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def read(self, most: int) -> bytes:
        return os.read(self.fd, most)

    def write(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def finish(self) -> None:
        """Of a pipe there is nothing left; a terminal goes on, it has no end of its own to tell."""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Socket:
    """One end of a pair."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, most: int) -> bytes:
        return self._socket.recv(most)

    def write(self, data: bytes) -> int:
        return self._socket.send(data)

    def finish(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other end is gone

    def close(self) -> None:
        self._socket.close()


def wait(reads: Iterable[int], writes: Iterable[int], timeout: float | None) -> Ready:
    """Those that can be read and those that can be written to, once there is one or timeout (seconds) is over. What has
    lost its other end counts as both."""
    if not hasattr(select, "poll"):
        readable, writable, broken = select.select([*reads], [*writes], [*writes], timeout)
        return set(readable), {*writable, *broken}
    wanted: dict[int, int] = dict.fromkeys(reads, select.POLLIN)
    for fd in writes:
        wanted[fd] = wanted.get(fd, 0) | select.POLLOUT
    poller = select.poll()
    for fd, events in wanted.items():
        poller.register(fd, events)
    found = poller.poll(None if timeout is None else max(0, int(timeout * 1000)))
    ended = select.POLLHUP | select.POLLERR | select.POLLNVAL
    return (
        {fd for fd, events in found if events & (select.POLLIN | ended)},
        {fd for fd, events in found if events & (select.POLLOUT | ended)},
    )
