# SPDX-License-Identifier: Apache-2.0
"""Threads that move bytes between descriptors, which others may share and which may block, and sockets of streams."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable

from sysd.remote.ends import wait

CHUNK = 1 << 18
_NOBODY = (errno.EPIPE, errno.EBADF, errno.ECONNRESET)
"""Of what is written to: nobody reads it, or it was never for that."""


class Copier(threading.Thread):
    """It has the descriptor for itself, and closes it. error: what went wrong with that, but for a reader that has
    gone; broken is called then."""

    def __init__(self, fd: int, sock: socket.socket, broken: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._socket = sock
        self._broken = broken
        self.error: OSError | None = None

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._broken()


    def run(self) -> None:
        try:
            self._copy()
        finally:
            os.close(self._fd)

    def _copy(self) -> None:
        raise NotImplementedError


class Source(Copier):
    """From the descriptor to the socket. What can't be read to its end has none: half of it is not to pass for all."""

    def _copy(self) -> None:
        while True:
            try:
                data = _read(self._fd)
            except OSError as error:
                self._fail(error)  # so nothing more reaches the peer, and no end either
                break
            try:
                self._socket.sendall(data)
            except OSError:
                break  # no more of it is wanted
            if not data:
                break
        self._socket.close()


class Sink(Copier):
    """From the socket to the descriptor."""

    def _copy(self) -> None:
        try:
            while data := self._received():
                _write(self._fd, data)
        except OSError as error:
            if error.errno not in _NOBODY:
                self._fail(error)
        finally:
            self._socket.close()

    def _received(self) -> bytes:
        try:
            return self._socket.recv(CHUNK)
        except OSError:
            return b""


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:  # as whoever else has it wants it
            wait([fd], [], None)
        except OSError as error:
            if error.errno == errno.EBADF:  # as nohup(1) gives it
                return b""
            raise


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            wait([], [fd], None)
