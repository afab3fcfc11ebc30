# SPDX-License-Identifier: Apache-2.0
"""A virtual machine's disk as the guest sees it: what it has written, over its image's disk. Only read, and by
ourselves: nothing that the overlay says of other files is heeded, and nothing has to be put together first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sysd.storage import qcow2

MOST_PIECES = 20_000
"""Their list is at the head of a file in an archive, of which readers take no more than 1 MiB."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Data on a disk, and where it is: at place of the file fd."""

    offset: int
    length: int
    fd: int
    place: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Flat:
    """size is the disk's; pieces are in order, and all else is zeros."""

    size: int
    pieces: list[Piece]


def flatten(overlay: int, base: int) -> Flat:
    """Of two open files: one of qcow2, and what is below it, which is raw. Raises InvalidError."""
    disk = qcow2.inspect(overlay)
    end = os.fstat(overlay).st_size
    found: list[Piece] = []
    at = 0
    for extent in qcow2.extents(overlay, disk):
        found += _below(base, at, extent.offset)
        # What a file is too short for is zeros.
        if extent.place and (length := min(extent.length, end - extent.place)) > 0:
            found.append(Piece(extent.offset, length, overlay, extent.place))
        at = extent.offset + extent.length
    found += _below(base, at, disk.size)
    return Flat(disk.size, list(_joined(found)))


def _below(base: int, start: int, end: int) -> Iterator[Piece]:
    """What the image has between two places."""
    while start < end:
        try:
            start = os.lseek(base, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        if start >= end:
            return
        stop = min(end, os.lseek(base, start, os.SEEK_HOLE))
        yield Piece(start, stop - start, base, start)
        start = stop


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    last: Piece | None = None
    for piece in pieces:
        if last and (last.end, last.fd, last.place + last.length) == (piece.offset, piece.fd, piece.place):
            last = replace(last, length=last.length + piece.length)
            continue
        if last:
            yield last
        last = piece
    if last:
        yield last


def spans(flat: Flat, most: int = MOST_PIECES) -> list[tuple[int, int]]:
    """(offset, length) of at most that many parts that have all of its data; small holes are in them, too."""
    found = [(piece.offset, piece.length) for piece in flat.pieces]
    gap = 0
    while True:
        merged: list[tuple[int, int]] = []
        for offset, length in found:
            if merged and offset - sum(merged[-1]) <= gap:
                offset, length = merged[-1][0], offset + length - merged.pop()[0]
            merged.append((offset, length))
        if len(merged) <= most:
            return merged
        found, gap = merged, max(2 * gap, 4096)
