# SPDX-License-Identifier: Apache-2.0
"""qcow2, QEMU's format for disks (docs/interop/qcow2 of QEMU's): whether a stranger's file is a whole disk that needs
nothing else, and an empty disk of our own. Data is converted by QEMU, which is told the format and never asked for it.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sysd.model.errors import InvalidError
from sysd.model.sizes import Usage

MAGIC = b"QFI\xfb"
MAX_SIZE = 16 << 40
"""Bytes of the largest disk, which is also that of the largest file on ext4."""
SECTOR = 512
HEADER_SIZE = 104

_BASE = struct.Struct(">4sIQIIQIIQQIIQ")
_REST = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_CLUSTER_BITS = range(9, 22)
_OWN_CLUSTER_BITS = 16
_MAX_L1 = 32 << 20
_MAX_REFCOUNTS = 8 << 20
_MAX_ORDER = 6

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_RAW_DATA_FILE = 2
_ZSTD = 1
_EXTENDED_CLUSTER_BITS = 14
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_DESCRIBES = 0x7FFF_FFFF_FFFF_FFFE
"""Of an entry of an L2 table: all but its marks for one user and for zeros."""
_ZERO, _COMPRESSED = 1, 1 << 62
_DESCRIBES_OR_ZERO = _DESCRIBES | _ZERO
_TELLING = {
    0xE2792ACA: "names a backing file's format",
    0x44415441: "names a data file",
    0x0537BE77: "is encrypted",
}


@dataclass(frozen=True, slots=True)
class Qcow2:
    """What a header says; size is the disk's, offsets are the file's, all in bytes. l1_size is a number of entries."""

    version: int
    size: int
    cluster_bits: int
    l1_size: int
    l1_offset: int
    extended: bool = False

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        return self.cluster // (16 if self.extended else 8)

    @property
    def l1_needed(self) -> int:
        return -(-self.size // (self.cluster * self.l2_entries))


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a disk, in bytes; place is where its data is in the file, 0 for none: then it is all zeros."""

    offset: int
    length: int
    place: int = 0


def inspect(fd: int) -> Qcow2:
    """The header of the file fd; raises InvalidError for one that is none, leads elsewhere, or can't be true."""
    head = os.pread(fd, HEADER_SIZE + SECTOR, 0)
    if not head.startswith(MAGIC):
        raise InvalidError("the disk is not in the format qcow2", "say what it is: --format raw")
    if len(head) < HEADER_SIZE:
        raise _wrong("ends in its header")
    _, version, backing, _, bits, size, crypt, l1_size, l1_offset, counts, count_clusters, snapshots, _ = (
        _BASE.unpack_from(head)
    )
    if version not in (2, 3):
        raise _wrong(f"has version {version}", "2 and 3 are known")
    if backing:
        raise _wrong("has a backing file", "make a whole one: qemu-img convert -O qcow2")
    if crypt:
        raise _wrong("is encrypted")
    if snapshots:
        raise _wrong("has snapshots in it", "make a plain one: qemu-img convert -O qcow2")
    if bits not in _CLUSTER_BITS:
        raise _wrong(f"has clusters of 2^{bits} bytes", "2^9 to 2^21 are possible")
    check_size(size)
    length, features = _rest(head, version)
    found = Qcow2(version, size, bits, l1_size, l1_offset, bool(features & _EXTENDED))
    _check_extensions(fd, length, found.cluster)
    _check_tables(fd, found, counts, count_clusters)
    return found


def check_size(size: int) -> int:
    """Raise InvalidError when no disk has so many bytes."""
    if not 0 < size <= MAX_SIZE:
        raise InvalidError(f"a disk can't have {size} bytes", f"at most {MAX_SIZE >> 40} TiB")
    if size % SECTOR:
        raise InvalidError(f"a disk can't have {size} bytes", f"a multiple of {SECTOR} is needed")
    return size


def data_size(fd: int, disk: Qcow2) -> int:
    """The most bytes of data that all of the disk can have: a small file can stand for a huge disk by naming the same
    data everywhere. Raises InvalidError for tables that are outside of the file, or used twice."""
    end = os.fstat(fd).st_size
    clusters = 0
    seen: set[int] = set()
    for offset in _l2_tables(fd, disk):
        if offset % disk.cluster or offset + disk.cluster > end or offset in seen:
            raise _wrong("is damaged: a table is used twice, or is outside of the file")
        seen.add(offset)
        clusters += _count(_numbers(fd, offset, disk.cluster), disk.extended)
    return min(clusters * disk.cluster, disk.size)


def extents(fd: int, disk: Qcow2) -> Iterator[Extent]:
    """What the file has of its disk, in order; the rest is what is below it. Raises InvalidError for a file that does
    not look like one of our own that QEMU has written to: a QEMU that its guest took over may have."""
    end, found = os.fstat(fd).st_size, 0
    if disk.extended:
        raise _wrong("is none of those that are made here")
    seen: set[int] = set()
    for start, table in _l1_entries(fd, disk):
        if table % disk.cluster or table + disk.cluster > end or table in seen:
            raise _wrong("is damaged: a table is used twice, or is outside of the file")
        seen.add(table)
        for number, entry in enumerate(_numbers(fd, table, disk.cluster)):
            offset = start + number * disk.cluster
            if not entry & _DESCRIBES_OR_ZERO or offset >= disk.size:
                continue
            place = entry & _OFFSET
            if entry & _COMPRESSED or place % disk.cluster:
                raise _wrong("is none of those that are made here")
            length = min(disk.cluster, disk.size - offset)
            if entry & _ZERO or not place:
                yield Extent(offset, length)
                continue
            found += disk.cluster
            if found > end:
                raise _wrong("is damaged: it has more data than it is long")
            yield Extent(offset, length, place)


def empty(size: int) -> bytes:
    """A whole file: a disk of size bytes, all of them zeros. It names no backing file.

    Header, table of reference counts, one block of these, and the table of tables are one after the other. The last has
    as many entries as its clusters have room for: a disk of up to 4 TiB is made larger by a word of its header alone,
    which is written or not, and not by a table that has to move.
    """
    check_size(size)
    cluster = 1 << _OWN_CLUSTER_BITS
    l1_clusters = -(-Qcow2(3, size, _OWN_CLUSTER_BITS, 0, 0).l1_needed * 8 // cluster)
    tables = (l1_clusters * cluster // 8, 3 * cluster, cluster, 1, 0, 0)
    base = _BASE.pack(MAGIC, 3, 0, 0, _OWN_CLUSTER_BITS, size, 0, *tables)
    rest = _REST.pack(0, 0, 0, 4, HEADER_SIZE)
    counts = struct.pack(">Q", 2 * cluster)
    ones = struct.pack(">H", 1) * (3 + l1_clusters)
    parts = (base + rest, counts, ones, b"\0" * (l1_clusters * cluster))
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


def usage(path: Path) -> Usage | None:
    """What a disk takes of the host, and its size; None for a file that is none. A guest may have written it."""
    try:
        with path.open("rb") as stream:
            return Usage(os.fstat(stream.fileno()).st_blocks * SECTOR, inspect(stream.fileno()).size)
    except (OSError, InvalidError):
        return None


def _rest(head: bytes, version: int) -> tuple[int, int]:
    """How long the header is, and which features a reader must know."""
    if version == 2:
        return _BASE.size, 0
    incompatible, _, autoclear, order, length = _REST.unpack_from(head, _BASE.size)
    if incompatible & _DATA_FILE or autoclear & _RAW_DATA_FILE:
        raise _wrong("has its data in another file", "make a whole one: qemu-img convert -O qcow2")
    if incompatible & _CORRUPT:
        raise _wrong("is marked as corrupt", "qemu-img check -r all may repair it")
    if incompatible & ~(_DIRTY | _COMPRESSION | _EXTENDED):
        raise _wrong("has features that are not known")
    if length < HEADER_SIZE or length % 8 or length > HEADER_SIZE + SECTOR or length > len(head):
        raise _wrong(f"has a header of {length} bytes")
    compression = head[HEADER_SIZE] if length > HEADER_SIZE else 0
    if compression != (_ZSTD if incompatible & _COMPRESSION else 0):
        raise _wrong(f"is compressed in an unknown way ({compression})")
    if order > _MAX_ORDER:
        raise _wrong("has reference counts of more than 64 bits")
    return length, incompatible


def _check_extensions(fd: int, start: int, cluster: int) -> None:
    """They stand between the header and the end of the first cluster."""
    head = os.pread(fd, cluster, 0)
    while start + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, start)
        if not kind:
            return
        if kind in _TELLING:
            raise _wrong(_TELLING[kind], "make a whole one: qemu-img convert -O qcow2")
        start += _EXTENSION.size + -(-length // 8) * 8
    if start > len(head):
        raise _wrong("has a header that goes beyond its first cluster")


def _check_tables(fd: int, disk: Qcow2, counts: int, count_clusters: int) -> None:
    end = os.fstat(fd).st_size
    if disk.extended and disk.cluster_bits < _EXTENDED_CLUSTER_BITS:
        raise _wrong("has clusters too small for their parts")
    if not disk.l1_needed <= disk.l1_size <= _MAX_L1 // 8:
        raise _wrong(f"has a table of {disk.l1_size} entries", f"its size needs {disk.l1_needed}")
    if not 0 < count_clusters * disk.cluster <= _MAX_REFCOUNTS:
        raise _wrong(f"has {count_clusters} clusters of reference counts")
    sizes = {disk.l1_offset: disk.l1_size * 8, counts: count_clusters * disk.cluster}
    if len(sizes) < 2 or any(not at or at % disk.cluster or at + size > end for at, size in sizes.items()):
        raise _wrong("is damaged: a table is outside of the file")


def _l2_tables(fd: int, disk: Qcow2) -> Iterator[int]:
    return (table for _, table in _l1_entries(fd, disk))


def _l1_entries(fd: int, disk: Qcow2) -> Iterator[tuple[int, int]]:
    """Where on the disk begins what a table describes, and where in the file that table is."""
    start, step = 0, disk.cluster * disk.l2_entries
    for at in range(0, disk.l1_needed * 8, disk.cluster):
        for entry in _numbers(fd, disk.l1_offset + at, min(disk.cluster, disk.l1_needed * 8 - at)):
            if offset := entry & _OFFSET:
                yield start, offset
            start += step


def _numbers(fd: int, offset: int, size: int) -> array[int]:
    found = array("Q", os.pread(fd, size, offset))
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _count(table: array[int], extended: bool) -> int:
    """Of an extended table every other number says which parts of a cluster are there."""
    return sum(entry & _DESCRIBES != 0 for entry in (table[::2] if extended else table))


def _wrong(why: str, hint: str = "") -> InvalidError:
    return InvalidError(f"the qcow2 file {why}", hint)
