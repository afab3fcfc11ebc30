# SPDX-License-Identifier: Apache-2.0
"""What goes over a connection after a call with "upgrade": frames, in which replies and streams go beside each other.

A frame is a kind, a stream and a number, which is how many bytes follow in those that have some. A stream is what a
descriptor is on one host: one that goes with the call, or comes with a reply. They have their numbers in the order in
which they are first spoken of. Of each stream a side may send no more than the other has room for: WINDOW at first,
and then as much as it is granted, which is said when bytes have been taken out at the far end. So one that nobody
reads from holds up no other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MESSAGE, DATA, END, STOP, CREDIT, SIZE = range(6)
"""A reply, whose stream is how many streams come with it; bytes; no more bytes will come; no more bytes are wanted; so
many more bytes may come; a terminal has so many rows (in the upper half of the number) and columns."""
HEAD = struct.Struct("!BBI")
WINDOW = 4 << 20
MOST_STREAMS = 8
MOST_DATA = 1 << 20
MOST_SIZE = 65535

READ, WRITE, SAME = "r", "w", "="
"""What a call says of its descriptors, under "streams": that the far end reads it, writes it, or that it is the same
as the one of the number that comes then ("=1")."""

Frame = tuple[int, int, int, bytes]
"""Kind, stream, number and bytes."""


class ProtocolError(Exception):
    """The peer does not keep to this."""


class Splitter:
    """Makes frames of what comes; most: bytes that a message may have."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()
        self._head: tuple[int, int, int] | None = None

    def split(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that are there now. Bytes of a stream are given as they come, a frame of them in pieces."""
        self._buffer += data
        while True:
            if self._head is None:
                if len(self._buffer) < HEAD.size:
                    return
                self._head = self._checked(*HEAD.unpack_from(self._buffer))
                del self._buffer[: HEAD.size]
            kind, stream, number = self._head
            if kind == DATA:
                piece = self._taken(min(number, len(self._buffer)))
                self._head = (kind, stream, number - len(piece)) if len(piece) < number else None
                if piece:
                    yield kind, stream, number, piece
                if self._head:
                    return
            elif kind == MESSAGE:
                if len(self._buffer) < number:
                    return
                self._head = None
                yield kind, stream, number, self._taken(number)
            else:
                self._head = None
                yield kind, stream, number, b""

    def _taken(self, size: int) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        return piece

    def _checked(self, kind: int, stream: int, number: int) -> tuple[int, int, int]:
        if kind > SIZE or number > (self._most if kind == MESSAGE else MOST_DATA if kind == DATA else 0xFFFFFFFF):
            raise ProtocolError(f"a frame of kind {kind} with {number}")
        return kind, stream, number
