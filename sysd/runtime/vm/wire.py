# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON over a unix stream socket, as QEMU's monitor and the guest agent speak them.

Both may be a hostile guest's words: nothing is read that nobody waits for, no line is longer than the limit, and
whatever is none of the protocol ends the connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sysd.model.errors import FailedError

CHUNK = 1 << 16


class Broken(FailedError):
    """The connection ended, or can't be used any more."""


class Unresponsive(FailedError):
    """No answer came in time."""


class Lines:
    """One connection; whose says in messages who is at its other end. At most one call of each kind at a time."""

    def __init__(self, sock: socket.socket, whose: str, limit: int) -> None:
        sock.setblocking(False)
        self.whose = whose
        self.closed = False
        self._socket = sock
        self._limit = limit
        self._data = bytearray()
        self._searched = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()

    @classmethod
    async def connect(cls, path: Path, whose: str, limit: int) -> Lines:
        """Raises Broken when nobody listens at path."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except OSError as error:
            sock.close()
            raise Broken(f"{whose} can't be reached: {error.strerror}") from None
        except BaseException:
            sock.close()
            raise
        return cls(sock, whose, limit)

    def close(self) -> None:
        """Whoever waits in receive() or send() gets Broken."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for future in self._waiting:
            _set(future)

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = (), lead: bytes = b"") -> None:
        """A line; fds go with its first byte. What was sent by half can't be taken back: the connection is closed."""
        data = memoryview(lead + json.dumps(message).encode() + b"\n")
        begun = False
        try:
            while data:
                self._check_open()
                try:
                    sent = socket.send_fds(self._socket, [data], fds) if fds else self._socket.send(data)
                except BlockingIOError:
                    await self._ready(self._loop.add_writer, self._loop.remove_writer)
                    continue
                data, fds, begun = data[sent:], (), True
        except OSError as error:
            self.close()
            raise Broken(f"{self.whose} is gone: {error.strerror}") from None
        except asyncio.CancelledError:
            if begun:
                self.close()
            raise

    async def receive(self) -> bytes:
        """The next line. Each time the loop has its turn first: an endless talker has no one else wait."""
        while True:
            end = self._data.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._data[:end])
                del self._data[: end + 1]
                self._searched = 0
                await asyncio.sleep(0)
                return line
            self._searched = len(self._data)
            if self._searched > self._limit:
                self.close()
                raise Broken(f"{self.whose} sent a line of more than {self._limit >> 10} KiB")
            await self._more()

    async def skip(self, to: bytes, most: int) -> int:
        """All before a byte, and that; how many bytes these were. -1 when there are more than most of them, which are
        gone then."""
        skipped = 0
        while True:
            end = self._data.find(to)
            size = end + 1 if end >= 0 else len(self._data)
            del self._data[:size]
            self._searched = 0
            skipped += size
            if skipped > most:
                return -1
            if end >= 0:
                return skipped
            await asyncio.sleep(0)
            await self._more()

    async def _more(self) -> None:
        self._check_open()
        await self._ready(self._loop.add_reader, self._loop.remove_reader)
        self._check_open()
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.close()
            raise Broken(f"{self.whose} is gone: {error.strerror}") from None
        if not data:
            self.close()
            raise Broken(f"{self.whose} is gone")
        self._data += data

    def _check_open(self) -> None:
        if self.closed:
            raise Broken(f"the connection to {self.whose} is closed")

    async def _ready(self, add: Callable[..., None], remove: Callable[[socket.socket], object]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        add(self._socket, _set, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self.closed:  # else its number may be another's by now
                remove(self._socket)


def parse(line: bytes) -> dict[str, Any]:
    """The object that a line is; raises ValueError for all else."""
    try:
        message = json.loads(line.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
