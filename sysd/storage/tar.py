# SPDX-License-Identifier: Apache-2.0
"""Writing a tar archive of a few files that are there in parts: holes are written as such, in the form that GNU tar
calls posix 1.0, which tar(1), Go and Python read.
"""

from __future__ import annotations

import os
import struct
import tarfile
from collections.abc import Callable

from sysd.storage.flat import Flat, spans

CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_FITS = 1 << 33
"""The first size that does not fit into a header's twelve octal digits."""

Write = Callable[[bytes], object]


class Writer:
    """All belongs to root, and no moment is told."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def folder(self, path: str) -> None:
        info = tarfile.TarInfo(path)
        info.type, info.mode = tarfile.DIRTYPE, 0o700
        self._header(info)

    def link(self, path: str, target: str) -> None:
        info = tarfile.TarInfo(path)
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
        self._header(info)

    def text(self, path: str, content: str) -> None:
        data = content.encode()
        self._header(_file(path, len(data), 0o600))
        self._write(data)
        self._pad(len(data))

    def file(self, path: str, fd: int, mode: int) -> None:
        size = os.fstat(fd).st_size
        self._header(_file(path, size, mode))
        self._copy(fd, 0, size)
        self._pad(size)

    def disk(self, path: str, flat: Flat) -> None:
        parts = spans(flat)
        index = _index(parts, flat.size)
        folder, _, name = path.rpartition("/")
        size = len(index) + sum(length for _, length in parts)
        info = _file(f"{folder}/GNUSparseFile.0/{name}".lstrip("/"), size, 0o600)
        told = {"major": "1", "minor": "0", "name": path, "realsize": str(flat.size)}
        info.pax_headers = {f"GNU.sparse.{key}": value for key, value in told.items()}
        self._header(info)
        self._write(index)
        self._data(flat, parts)
        self._pad(size)

    def end(self) -> None:
        self._write(bytes(2 * _BLOCK))

    def _data(self, flat: Flat, parts: list[tuple[int, int]]) -> None:
        """Each of the pieces is in one of the parts."""
        pieces = iter([*flat.pieces, None])
        piece = next(pieces)
        for offset, length in parts:
            at, end = offset, offset + length
            while piece and piece.offset < end:
                self._zeros(piece.offset - at)
                self._copy(piece.fd, piece.place, piece.length)
                at, piece = piece.end, next(pieces)
            self._zeros(end - at)

    def _header(self, info: tarfile.TarInfo) -> None:
        size = info.size
        if size < _FITS:
            self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            return
        # As a binary number, not as one of the further headers: of a file with holes readers don't agree about these.
        info.size = 0
        head = bytearray(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        last = len(head) - _BLOCK
        struct.pack_into(">BxxxQ", head, last + 124, 0x80, size)
        head[last + 148 : last + 156] = b" " * 8
        head[last + 148 : last + 156] = b"%06o\0 " % sum(head[last:])
        self._write(bytes(head))

    def _copy(self, fd: int, place: int, length: int) -> None:
        while length:
            data = os.pread(fd, min(length, CHUNK), place)
            if not data:  # a file that became shorter meanwhile
                self._zeros(length)
                return
            self._write(data)
            place, length = place + len(data), length - len(data)

    def _zeros(self, length: int) -> None:
        while length > 0:
            self._write(bytes(min(length, CHUNK)))
            length -= CHUNK

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % _BLOCK))


def _file(path: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, mode
    return info


def _index(parts: list[tuple[int, int]], size: int) -> bytes:
    """Decimal numbers: how many parts, then where each is and how long. One of no bytes at the end tells the size to
    those who don't read realsize."""
    listed = [*parts, (size, 0)]
    numbers = [len(listed), *(number for part in listed for number in part)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % _BLOCK)
