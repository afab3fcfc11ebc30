# SPDX-License-Identifier: Apache-2.0
"""The near side of a connection to another host: varlink as on the socket, with descriptors of this process as streams.

It needs nothing that only some systems have: threads read and write descriptors, and no descriptor is passed on.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Collection, Sequence

from sysd.codec import decode, encode
from sysd.model.errors import SyscontError
from sysd.remote.copier import Copier, Sink, Source
from sysd.remote.dial import explained
from sysd.remote.ends import Socket
from sysd.remote.frames import READ, SAME, SIZE, WRITE, ProtocolError
from sysd.remote.link import Link, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # which makes no enumerations, and is there already

CHUNK = 1 << 16
MOST_MESSAGE = 256 << 20
"""Bytes of a reply: a list of all that a host has may be long."""
BUFFER = 1 << 20


class Calling(Link):
    """local is the other end of the control: whoever has it sends messages and reads replies there, and must have
    attached what goes with a message before it is sent. opened collects the near ends of streams that replies bring."""

    def __init__(self, tls: ssl.SSLSocket, address: str) -> None:
        self.local, control = socket.socketpair()
        super().__init__(tls, control, MOST_MESSAGE)
        self._address = address
        self._line = b""
        self._attached: list[Stream] | None = None
        self._sources: list[Copier] = []
        self._sinks: list[Copier] = []
        self._final: bytes | None = None
        self._lasting = False
        self.opened: list[socket.socket] = []
        self.failure: SyscontError | None = None
        """Why it ended, when it did before its time."""

    def start(self) -> None:
        """Signals are for the thread that this is called in: none of those of a link takes any."""
        thread = threading.Thread(target=self.run, daemon=True)
        if not hasattr(signal, "pthread_sigmask"):
            thread.start()
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # what the caller's thread does

    def attach(self, fds: Sequence[int], written: Collection[int]) -> list[str]:
        """Have descriptors go with the next message, which is then to say "upgrade", and "streams" with what this
        returns. written: places of those that the host writes to. They stay the caller's, who may close them."""
        self._attached = []
        said: list[str] = []
        for at, fd in enumerate(fds):
            same = [before for before in range(at) if {at, before} <= set(written) and _is_same(fds[before], fd)]
            said.append(f"{SAME}{same[0]}" if same else WRITE if at in written else READ)
            if not same:
                self._attach(fd, written=at in written)
        return said

    def _attach(self, fd: int, *, written: bool) -> None:
        near, far = _pair()
        copier = (Sink if written else Source)(os.dup(fd), far, self.abort)
        (self._sinks if written else self._sources).append(copier)
        assert self._attached is not None
        self._attached.append(self._open(Socket(near), reads=not written, writes=written))

    def resize(self, opened: int, rows: int, columns: int) -> None:
        """Tell the size of the terminal that one of the opened streams is of."""
        self.local.sendall(encode([opened, rows, columns]).encode() + b"\0")

    @property
    def error(self) -> OSError | None:
        """What went wrong with a descriptor that was attached."""
        return next((each.error for each in (*self._sources, *self._sinks) if each.error), None)

    # the control

    def _said(self) -> None:
        data = self._control.recv(CHUNK)
        if not data:
            self.ended = True
        self._line += data
        *messages, self._line = self._line.split(b"\0")
        for message in messages:
            if self._framed:
                opened, rows, columns = decode(message.decode())
                self._send(SIZE, self._given + opened, rows << 16 | columns)
            else:
                self._called(message)

    def _called(self, message: bytes) -> None:
        self._to_peer += message + b"\0"
        if self._attached is not None:
            self._framed = True
            self._given = self._spoken_of
            for copier in (*self._sources, *self._sinks):
                copier.start()

    # the peer

    def _plain(self, data: bytes) -> None:
        self._tell(data)

    def _message(self, data: bytes, count: int) -> None:
        if self._final is not None:
            raise ProtocolError("a reply after the last one")
        for _ in range(count):
            near, far = _pair()
            self._open(Socket(near), reads=True, writes=True)
            self.opened.append(far)
        more = b'"continues"' in data and _continues(data)
        if more or count:
            self._tell(data + b"\0")
            self._lasting = not more
            return
        self._final, self._done = data, True
        for stream in self._streams.values():
            stream.last = True
            self._finish(stream)

    def _moved(self) -> None:
        """The last reply is told when all that came before it is where it belongs."""
        if self._lasting and not self._streams:
            self.ended = True
        if self._final is None or any(stream.writes for stream in self._streams.values()):
            return
        if self._final:
            for sink in self._sinks:
                sink.join()
            if self.error is None:
                self._tell(self._final + b"\0")
            self._final = b""
        self.ended = self.ended or not self._to_control

    def _resized(self, stream: Stream, rows: int, columns: int) -> None:
        raise ProtocolError("a terminal of ours has the size that it has")

    # the end

    def _failed(self, error: Exception) -> None:
        if self.error is None:
            self.failure = explained(error if isinstance(error, OSError) else OSError(str(error)), self._address)


def _continues(reply: bytes) -> bool:
    try:
        found = decode(reply.decode())
    except ValueError:
        raise ProtocolError("a reply is not JSON") from None
    return isinstance(found, dict) and found.get("continues") is True


def _pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    for one in (near, far):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return near, far


def _is_same(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same place, where what is written must stay in order."""
    if one == other:
        return True
    left, right = os.fstat(one), os.fstat(other)
    return bool(left.st_ino) and (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)
