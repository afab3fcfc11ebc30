# SPDX-License-Identifier: Apache-2.0
"""A partition table (GPT, UEFI 2.10 chapter 5) written into a disk's image: one of our own layout, nothing is read."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR = 512
MIB = 1 << 20
MARGIN = MIB
"""At both ends of a disk, for the tables; partitions start at multiples of it."""
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
GROW = 1 << 59
"""The file system is to grow to the partition's size (the Discoverable Partitions Specification)."""

_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_TABLE_SECTORS = _ENTRIES * _ENTRY.size // SECTOR
_PROTECTIVE = 0xEE


@dataclass(frozen=True, slots=True)
class Partition:
    """start and size are in bytes."""

    kind: uuid.UUID
    id: uuid.UUID
    name: str
    start: int
    size: int
    flags: int = 0


def write(fd: int, size: int, disk: uuid.UUID, partitions: Sequence[Partition]) -> None:
    """Write both tables of a disk of size bytes, a multiple of a sector."""
    sectors = size // SECTOR
    table = b"".join(map(_entry, partitions)).ljust(_ENTRIES * _ENTRY.size, b"\0")
    os.pwrite(fd, _protective_mbr(sectors), 0)
    os.pwrite(fd, _header(1, sectors - 1, 2, sectors, disk, table) + table, SECTOR)
    backup = sectors - 1 - _TABLE_SECTORS
    os.pwrite(fd, table + _header(sectors - 1, 1, backup, sectors, disk, table), backup * SECTOR)


def _entry(partition: Partition) -> bytes:
    first = partition.start // SECTOR
    last = first + partition.size // SECTOR - 1
    name = partition.name.encode("utf-16-le")
    return _ENTRY.pack(partition.kind.bytes_le, partition.id.bytes_le, first, last, partition.flags, name)


def _header(own: int, other: int, table_at: int, sectors: int, disk: uuid.UUID, table: bytes) -> bytes:
    def packed(checksum: int) -> bytes:
        first, last = 2 + _TABLE_SECTORS, sectors - 2 - _TABLE_SECTORS
        places = (own, other, first, last, disk.bytes_le, table_at)
        shape = (_ENTRIES, _ENTRY.size, zlib.crc32(table))
        return _HEADER.pack(b"EFI PART", 0x10000, _HEADER.size, checksum, 0, *places, *shape)

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective_mbr(sectors: int) -> bytes:
    """One partition over all of the disk, for programs that know no GPT."""
    record = struct.pack("<B3sB3sII", 0, b"\0\2\0", _PROTECTIVE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return b"\0" * 446 + record.ljust(64, b"\0") + b"\x55\xaa"
