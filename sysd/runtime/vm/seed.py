# SPDX-License-Identifier: Apache-2.0
"""Files on a small disk that can only be read: ISO 9660 (ECMA-119), level 1 but for the names, which are as long and as
low as the files' own. Kernels take them as they are, and cloud-init finds the disk by its name (NoCloud)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from sysd.model import cloudinit
from sysd.model.instance import Instance

LABEL = "cidata"
SECTOR = 2048
_SYSTEM = 16
"""Sectors at the beginning, which are the system's."""
_PATHS_LITTLE, _PATHS_BIG, _ROOT, _FILES = range(_SYSTEM + 2, _SYSTEM + 6)
_NO_TIME = b"0" * 16 + b"\0"
_LONG_AGO = bytes((80, 1, 1, 0, 0, 0, 0))
_FOLDER = 2


def of_instance(instance: Instance) -> bytes:
    """What cloud-init in an expanded instance is told; empty where it is told nothing."""
    if not cloudinit.wants_disk(instance):
        return b""
    return image({name: text.encode() for name, text in cloudinit.seed(instance).items()})


def image(files: Mapping[str, bytes]) -> bytes:
    """All in one folder, whose entries fit a sector."""
    at, entries, contents = _FILES, [], b""
    for name, data in sorted(files.items()):
        entries.append(_entry(f"{name};1".encode(), at, len(data)))
        contents += _padded(data)
        at += _sectors(len(data))
    descriptors = [_primary(at), _padded(b"\xffCD001\1")]
    return b"".join([bytes(_SYSTEM * SECTOR), *descriptors, *_paths(), _folder(entries), contents])


def _primary(sectors: int) -> bytes:
    """Of the volume (8.4)."""
    parts = [
        b"\1CD001\1\0",
        b" " * 32,
        LABEL.encode().ljust(32),
        bytes(8),
        _both32(sectors),
        bytes(32),
        _both16(1),
        _both16(1),
        _both16(SECTOR),
        _both32(len(_path())),
        struct.pack("<II", _PATHS_LITTLE, 0),
        struct.pack(">II", _PATHS_BIG, 0),
        _entry(b"\0", _ROOT, SECTOR, _FOLDER),
        b" " * (4 * 128 + 3 * 37),
        _NO_TIME * 4,
        b"\1\0",
    ]
    return _padded(b"".join(parts))


def _path(order: str = "<") -> bytes:
    """The one entry of the table of folders."""
    return struct.pack(f"{order}BBIH", 1, 0, _ROOT, 1) + b"\0\0"


def _paths() -> Sequence[bytes]:
    return [_padded(_path(order)) for order in "<>"]


def _folder(entries: Sequence[bytes]) -> bytes:
    found = b"".join([*(_entry(name, _ROOT, SECTOR, _FOLDER) for name in (b"\0", b"\1")), *entries])
    if len(found) > SECTOR:
        raise ValueError("too many files for a small disk")
    return _padded(found)


def _entry(name: bytes, at: int, size: int, flags: int = 0) -> bytes:
    """Of a folder."""
    fixed = _both32(at) + _both32(size) + _LONG_AGO + bytes([flags, 0, 0]) + _both16(1) + bytes([len(name)])
    found = bytes(1) + fixed + name + bytes(1 - len(name) % 2)
    return bytes([len(found) + 1]) + found


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _both32(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def _sectors(size: int) -> int:
    return -(-size // SECTOR)


def _padded(data: bytes) -> bytes:
    return data.ljust(_sectors(len(data)) * SECTOR, b"\0")
