# SPDX-License-Identifier: Apache-2.0
"""Our side of a connection from another host: what comes over it is handed to the varlink service as if it came from
here, with descriptors in the place of streams.

What a call reads or writes are pipes of ours, so those who do the work of it see what they always see.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import socket
import ssl
import struct
import termios
import time
from typing import TYPE_CHECKING, Any

from sysd.remote.ends import Descriptor
from sysd.remote.frames import MESSAGE, MOST_STREAMS, READ, SAME, WRITE, ProtocolError
from sysd.remote.link import Link, Stream, close_all
from sysd.varlink.protocol import MANAGERS

if TYPE_CHECKING:
    from sysd.remote.ends import End

log = logging.getLogger(__name__)

PIPE = 1 << 20
"""Bytes that a pipe may hold."""
MOST_LEFT = 4 << 20
"""Bytes that are still taken of a stream after the end of the call: what goes on may write without end."""
HOLD = 30.0
"""Seconds that who reads a stream which broke off is given to be told so, and to be gone."""


class Gateway(Link):
    """control: the far end of it is the service's."""

    def __init__(self, tls: ssl.SSLSocket, control: socket.socket) -> None:
        super().__init__(tls, control, most=0)
        self._line = b""
        self._reply = b""
        self._fds: list[int] = []
        self._final: tuple[int, int, int, bytes] | None = None
        self._left: dict[int, int] = {}
        self._told = self._lasting = False
        self._given = 0

    # calls

    def _plain(self, data: bytes) -> None:
        self._line += data
        while b"\0" in self._line and not self._framed:
            message, _, self._line = self._line.partition(b"\0")
            self._called(message)
        if self._framed:
            rest, self._line = self._line, b""
            self._received(rest)
        elif len(self._line) > MANAGERS.message:
            raise ProtocolError("a message is too long")

    def _called(self, message: bytes) -> None:
        call: Any = None
        if b'"upgrade"' in message:
            with contextlib.suppress(ValueError, RecursionError):  # the service says what it thinks of it
                call = json.loads(message)
        if isinstance(call, dict) and call.get("upgrade") is True:
            fds = self._pipes(call.pop("streams", []))
            self._given = self._spoken_of
            self._framed = True
            message = json.dumps(call).encode()
            self._tell(message + b"\0", fds)
        else:
            self._tell(message + b"\0")

    def _pipes(self, wanted: Any) -> list[int]:
        """The ends that are for the service."""
        if not isinstance(wanted, list) or len(wanted) > MOST_STREAMS:
            raise ProtocolError("streams are not described by a short list")
        fds: list[int] = []
        try:
            for one in wanted:
                fds.append(self._pipe(one, fds))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def _pipe(self, wanted: Any, fds: list[int]) -> int:
        if wanted in (READ, WRITE):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # it is only slower
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
            ours, theirs = (writer, reader) if wanted == READ else (reader, writer)
            self._open(Descriptor(ours), reads=wanted == WRITE, writes=wanted == READ)
            return theirs
        number = wanted[1:] if isinstance(wanted, str) and wanted[:1] == SAME else ""
        if not (number.isascii() and number.isdecimal()) or int(number[:4]) >= len(fds):
            raise ProtocolError("a stream has no direction")
        return os.dup(fds[int(number)])

    def _message(self, data: bytes, count: int) -> None:
        raise ProtocolError("one call at a time")

    def _resized(self, stream: Stream, rows: int, columns: int) -> None:
        try:
            fcntl.ioctl(stream.end.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        except OSError:
            return  # no terminal

    # replies

    def _said(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, MOST_STREAMS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            self.ended = True
        if not self._framed:
            for fd in fds:
                os.close(fd)
            self._to_peer += data
            return
        self._reply += data
        *replies, self._reply = self._reply.split(b"\0")
        for at, reply in enumerate(replies):
            its: list[int] = []
            if at == 0:
                its, self._fds = self._fds, []
            # The kernel ends a read with the bytes that descriptors came with.
            if at == len(replies) - 1 and not self._reply:
                its, fds = its + fds, []
            self._replied(reply, its)
        self._fds += fds

    def _replied(self, reply: bytes, fds: list[int]) -> None:
        for fd in fds:
            self._open(Descriptor(fd), reads=True, writes=True)
        frame = (MESSAGE, len(fds), len(reply), reply)
        if b'"continues"' in reply and json.loads(reply).get("continues") is True:
            self._send(*frame)
        elif fds:
            # It is over when what it brings is.
            self._send(*frame)
            self._lasting = True
        elif self._final is None:
            self._final = frame
            # What came before it is not to come after it.
            self._left = {each.number: MOST_LEFT for each in self._streams.values() if each.reads}

    def _moved(self) -> None:
        if self._lasting and not self._streams:
            self._told = True
        if self._final is None:
            self.ended = self.ended or (self._told and not self._to_peer)
            return
        for number in list(self._left):
            self._drain(number)
        if not self._left and not self._told:
            self._send(*self._final)
            self._told = True
            self._flush_peer()
        if self._told and not self._to_peer:
            self.ended = True

    def _drain(self, number: int) -> None:
        """Take what is there now of a stream, unless the peer has no room for it yet."""
        stream = self._streams.get(number)
        while stream and stream.reads and self._left[number] > 0:
            if stream.credit <= 0:
                return
            before = stream.credit
            if not self._take(stream):
                break
            self._left[number] -= before - stream.credit
        del self._left[number]

    # the end

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ProtocolError):
            log.warning("a connection of another host was ended: %s", error)

    def _close(self) -> None:
        self._control.close()  # whatever the service was doing for the peer is given up
        close_all(self._fds)
        if self._told:
            for stream in self._streams.values():
                stream.end.close()
            self._part()
            self._streams.clear()
        broken = [each for each in self._streams.values() if each.writes and each.number < self._given]
        for stream in broken:
            del self._streams[stream.number]
        super()._close()
        _hold([each.end for each in broken])


def _hold(ends: list[End]) -> None:
    """Close pipes that not all has come through, but not before those who read them are gone: they would take that for
    the end, and half of a file for a whole one."""
    deadline = time.monotonic() + HOLD
    while ends and (left := deadline - time.monotonic()) > 0:
        poller = select.poll()
        for end in ends:
            poller.register(end.fileno(), 0)  # only whether it is broken
        gone = {fd for fd, _ in poller.poll(left * 1000)}
        for end in [each for each in ends if each.fileno() in gone]:
            ends.remove(end)
            end.close()
    for end in ends:
        end.close()
