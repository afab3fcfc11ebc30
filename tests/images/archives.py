# SPDX-License-Identifier: Apache-2.0
"""Archives made in memory, honest and hostile ones, member by member."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

METADATA = (
    f"architecture: {os.uname().machine}\n".encode()
    + b"creation_date: 1424284563\nproperties: {os: Test, release: '1'}\n"
)


@dataclass(frozen=True)
class Entry:
    name: str
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1000000000
    link: str = ""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)
    format: Literal[0, 1, 2] = tarfile.PAX_FORMAT

    def encode(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.uid, info.gid, info.mtime = self.type, self.mode, self.uid, self.gid, self.mtime
        info.linkname, info.size, info.pax_headers = self.link, len(self.data), dict(self.pax)
        info.devmajor, info.devminor = self.device
        padding = -len(self.data) % 512
        return info.tobuf(self.format, "utf-8", "surrogateescape") + self.data + bytes(padding)


def directory(name: str, mode: int = 0o755, **more: object) -> Entry:
    return Entry(name, tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: str, target: str) -> Entry:
    return Entry(name, tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name, tarfile.LNKTYPE, link=target)


def metadata(data: bytes = METADATA) -> Entry:
    return Entry("metadata.yaml", data=data)


def tar(entries: Iterable[Entry | bytes], end: bytes = bytes(1024)) -> bytes:
    """Raw bytes among the entries are put in as they are."""
    return b"".join(entry if isinstance(entry, bytes) else entry.encode() for entry in entries) + end


# The least that is accepted as an image.
INIT = Entry("rootfs/sbin/init", mode=0o755, data=b"#!/bin/sh\n")
MINIMAL = (metadata(), directory("rootfs"), directory("rootfs/sbin"), INIT)


def unified(*entries: Entry | bytes) -> bytes:
    """A good image with these members after its own."""
    return tar([*MINIMAL, *entries])


def sparse(name: str, size: int) -> bytes:
    """A member in GNU's old sparse format which is one hole of size bytes."""
    header = bytearray(Entry(name, tarfile.GNUTYPE_SPARSE, format=tarfile.GNU_FORMAT).encode())
    header[386:398] = _number(size)
    header[398:410] = _number(0)
    header[483:495] = _number(size)
    return _with_checksum(header)


def with_size(entry: Entry, size: int) -> bytes:
    """An entry whose header claims another size; entry must have no content."""
    return with_field(entry, 124, _number(size))


def with_field(entry: Entry, offset: int, value: bytes) -> bytes:
    """An entry with other bytes in its header."""
    header = bytearray(entry.encode())
    header[offset : offset + len(value)] = value
    return _with_checksum(header)


def _number(value: int) -> bytes:
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(11, "big", signed=value < 0)


def _with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def compressed_bomb(size: int) -> bytes:
    """A small gzip file that claims a member of size zero bytes, and has them."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(tar(MINIMAL, b"") + with_size(Entry("rootfs/bomb"), size))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    return out.getvalue()
