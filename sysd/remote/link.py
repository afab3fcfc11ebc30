# SPDX-License-Identifier: Apache-2.0
"""A connection between hosts, and what is moved over it: varlink at first, frames after a call with "upgrade".

At the near end there is a local varlink connection, the control, whose descriptors become streams. A link is run in a
thread of its own, which does nothing but move bytes, and waits for whichever side is slower: it reads no more than it
can get rid of.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections import deque

from sysd.remote.ends import wait
from sysd.remote.frames import (
    CREDIT,
    DATA,
    END,
    HEAD,
    MESSAGE,
    MOST_STREAMS,
    SIZE,
    STOP,
    WINDOW,
    ProtocolError,
    Splitter,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.remote.ends import End
    from sysd.remote.frames import Frame

CHUNK = 1 << 18
ENOUGH = 1 << 20
"""Bytes that may wait to be sent."""
LINGER = 10.0
"""Seconds in which a peer that has been told the last is to hang up."""


class Stream:
    """reads: what end has goes to the peer; writes: what the peer has goes to end. credit: bytes that the peer has room
    for; room: that it knows us to have room for; owed: written out since it was told so. last: the peer has no more."""

    __slots__ = ("credit", "end", "last", "number", "owed", "pending", "reads", "room", "writes")

    def __init__(self, number: int, end: End, *, reads: bool, writes: bool) -> None:
        self.number = number
        self.end = end
        self.reads = reads
        self.writes = writes
        self.credit = self.room = WINDOW
        self.owed = 0
        self.last = False
        self.pending: deque[bytes] = deque()

    @property
    def open(self) -> bool:
        return self.reads or self.writes


class Link:
    """What both sides have in common. It owns the connection, the control and the ends of streams."""

    def __init__(self, tls: ssl.SSLSocket, control: socket.socket, most: int) -> None:
        """most: bytes of a message of the peer's."""
        tls.setblocking(False)
        control.setblocking(False)
        self._tls = tls
        self._control = control
        self._most = most
        self._framed = False
        self._splitter = Splitter(most)
        self._streams: dict[int, Stream] = {}
        self._spoken_of = 0
        self._buffer = memoryview(bytearray(CHUNK))
        self._to_peer = bytearray()
        self._to_control: deque[tuple[bytes, list[int]]] = deque()
        self._blocked = self._more = False
        self._done = False
        """Nothing more is to be heard from the peer, nor told to it."""
        self.ended = False

    def run(self) -> None:
        """To the end of either side; nothing is left open then."""
        try:
            while not self.ended:
                self._turn()
        except (OSError, ProtocolError) as error:
            self._failed(error)
        finally:
            self._close()

    def abort(self) -> None:
        """End it from another thread."""
        try:
            socket.socket.shutdown(self._tls, socket.SHUT_RDWR)
        except OSError:
            return

    # what sides differ in

    def _plain(self, data: bytes) -> None:
        """Bytes of the peer's before frames begin."""
        raise NotImplementedError

    def _message(self, data: bytes, count: int) -> None:
        """A message of the peer's in a frame, and how many streams come with it."""
        raise NotImplementedError

    def _said(self) -> None:
        """The control can be read."""
        raise NotImplementedError

    def _resized(self, stream: Stream, rows: int, columns: int) -> None:
        """A terminal of the peer's has another size."""
        raise NotImplementedError

    def _moved(self) -> None:
        """After each turn."""

    def _failed(self, error: Exception) -> None:
        """It ends by this."""

    # one turn

    def _turn(self) -> None:
        reads, writes = self._wanted()
        readable, writable = wait(reads, writes, 0 if self._more and not self._done else None)
        if (self._tls.fileno() in readable or self._more) and not self._done:
            self._read_peer()
        if self._control.fileno() in writable:
            self._flush_control()
        if self._control.fileno() in readable:
            self._said()
        for stream in list(self._streams.values()):
            if stream.reads and stream.end.fileno() in readable:
                self._take(stream)
            if stream.pending and stream.end.fileno() in writable:
                self._put(stream)
        self._flush_peer()
        self._forget_closed()
        self._moved()

    def _wanted(self) -> tuple[list[int], list[int]]:
        tls, control = self._tls.fileno(), self._control.fileno()
        reads, writes = [], []
        if (self._framed or not self._to_control) and not self._done:
            reads.append(tls)
        if self._blocked:
            writes.append(tls)
        if self._to_control:
            writes.append(control)
        if len(self._to_peer) < ENOUGH:
            reads.append(control)
            reads += [each.end.fileno() for each in self._streams.values() if each.reads and each.credit > 0]
        writes += [each.end.fileno() for each in self._streams.values() if each.pending]
        return reads, writes

    def _forget_closed(self) -> None:
        for stream in [each for each in self._streams.values() if not each.open]:
            stream.end.close()
            del self._streams[stream.number]

    # the peer

    def _read_peer(self) -> None:
        filled, count, self._more = 0, -1, True
        try:
            while filled < CHUNK and count:
                count = self._tls.recv_into(self._buffer[filled:])
                filled += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._more = False
        if self._framed:
            self._received(self._buffer[:filled])
        elif filled:
            self._plain(bytes(self._buffer[:filled]))
        if not count and not self._done:
            self.ended = True

    def _received(self, data: bytes | memoryview) -> None:
        for frame in self._splitter.split(data):
            if frame[0] == MESSAGE:
                self._message(frame[3], frame[1])
            else:
                self._streamed(frame)

    def _streamed(self, frame: Frame) -> None:
        kind, number, value, data = frame
        stream = self._streams.get(number)
        if stream is None:
            if number >= self._spoken_of:
                raise ProtocolError(f"there is no stream {number}")
            return  # it has ended here meanwhile
        if kind == DATA:
            self._got(stream, data)
        elif kind == END:
            stream.last = True
            self._finish(stream)
        elif kind == STOP:
            stream.reads = False
        elif kind == CREDIT:
            stream.credit += value
        elif kind == SIZE:
            self._resized(stream, value >> 16, value & 0xFFFF)

    def _got(self, stream: Stream, data: bytes) -> None:
        stream.room -= len(data)
        if stream.room < 0 or stream.last:
            raise ProtocolError(f"more bytes of stream {stream.number} than there is room for")
        if stream.writes:
            stream.pending.append(data)
            self._put(stream)

    def _send(self, kind: int, stream: int, number: int, data: bytes = b"") -> None:
        self._to_peer += HEAD.pack(kind, stream, number)
        self._to_peer += data

    def _flush_peer(self) -> None:
        if self._done:
            self._to_peer.clear()
            self._blocked = False
        while self._to_peer:
            try:
                with memoryview(self._to_peer) as view:
                    sent = self._tls.send(view)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._blocked = True
                return
            del self._to_peer[:sent]
        self._blocked = False

    # streams

    def _open(self, end: End, *, reads: bool, writes: bool) -> Stream:
        """One more, which has the next number; the peer has the same."""
        if self._spoken_of >= MOST_STREAMS:
            raise ProtocolError("too many streams")
        stream = self._streams[self._spoken_of] = Stream(self._spoken_of, end, reads=reads, writes=writes)
        self._spoken_of += 1
        return stream

    def _take(self, stream: Stream) -> bool:
        """Move what an end has, as much as can be; whether there may be more."""
        if stream.credit <= 0:
            return True
        try:
            data = stream.end.read(min(CHUNK, stream.credit))
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last that had the other side of a terminal open is gone
        if not data:
            stream.reads = False
            self._send(END, stream.number, 0)
            return False
        stream.credit -= len(data)
        self._send(DATA, stream.number, len(data), data)
        return True

    def _put(self, stream: Stream) -> None:
        """Write what is there of the peer's to an end."""
        try:
            while stream.pending:
                first = stream.pending[0]
                written = stream.end.write(first)
                stream.owed += written
                if written < len(first):
                    stream.pending[0] = first[written:]
                else:
                    stream.pending.popleft()
        except BlockingIOError:
            pass
        except OSError:
            stream.pending.clear()
            stream.writes = False
            self._send(STOP, stream.number, 0)
            return
        if stream.owed >= WINDOW // 4:
            stream.room += stream.owed
            self._send(CREDIT, stream.number, stream.owed)
            stream.owed = 0
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        if stream.last and stream.writes and not stream.pending:
            stream.end.finish()
            stream.writes = False

    # the control

    def _tell(self, message: bytes, fds: list[int] | None = None) -> None:
        """Queue bytes for it; fds go with the first of them and are closed then."""
        self._to_control.append((message, fds or []))
        self._flush_control()

    def _flush_control(self) -> None:
        while self._to_control:
            message, fds = self._to_control[0]
            try:
                sent = socket.send_fds(self._control, [message], fds) if fds else self._control.send(message)
            except BlockingIOError:
                return
            close_all(fds)
            if sent < len(message):
                self._to_control[0] = (message[sent:], [])
            else:
                self._to_control.popleft()

    # the end

    def _close(self) -> None:
        self._control.close()
        for _, fds in self._to_control:
            close_all(fds)
        for stream in self._streams.values():
            stream.end.close()
        self._tls.close()

    def _part(self) -> None:
        """Hang up on a peer that has been told all. Not before it has heard it: a connection that is closed with bytes
        unread is reset, and what is under way on it is lost."""
        with contextlib.suppress(OSError, ValueError):  # which say that the peer has not parted yet
            self._tls.unwrap()
        try:
            self._tls.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + LINGER
            while (left := deadline - time.monotonic()) > 0:
                wait([self._tls.fileno()], [], left)
                try:
                    if not self._tls.recv(CHUNK):
                        return
                except BlockingIOError:
                    continue
        except OSError:
            return


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
