# SPDX-License-Identifier: Apache-2.0
"""Disks of virtual machines that come as a whole, each in the format that was said, never in one that its bytes look
like: what is on a raw disk is its guest's, which may write a header of another format that names files of the host.

Whatever comes becomes target/disk.img, raw and sparse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from enum import StrEnum

from sysd.archive.extract import refuse, segments
from sysd.archive.tape import CHUNK, Member, Read, TarReader
from sysd.images import tools
from sysd.images.stream import spooled, write_at
from sysd.model.errors import InvalidError
from sysd.model.sizes import format_size
from sysd.storage import qcow2

NAME = "disk.img"
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class Format(StrEnum):
    QCOW2 = "qcow2"
    RAW = "raw"


def receive(read: Read, form: Format, target: int, limit: int) -> int:
    """Make disk.img in the folder target of what read gives; returns the disk's size. limit is the most that may be
    written meanwhile: a disk may be larger than that, as long as there is not more data on it."""
    fd = os.open(NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        take: Callable[[Read, int, int, int], int] = _raw if form is Format.RAW else _qcow2
        size = take(read, fd, target, limit)
        os.fsync(fd)
        return size
    finally:
        os.close(fd)


def unpack(reader: TarReader, member: Member, target: int, limit: int) -> tuple[int, int]:
    """Make disk.img in the folder target of an archive's member, a raw disk, holes or not; returns the disk's size, and
    how much data is on it, of which limit is the most."""
    if not member.isreg():
        raise refuse(member, "should be a disk, and is no plain file")
    if not 0 < member.size <= qcow2.MAX_SIZE:
        raise refuse(member, f"can't be a disk of {member.size} bytes", f"at most {qcow2.MAX_SIZE >> 40} TiB")
    fd = os.open(NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        data = 0
        for offset, length in segments(reader, member):
            end = offset + length
            while offset < end:
                chunk = reader.tape.read_some(min(CHUNK, end - offset))
                data = _put(fd, chunk, offset, data, limit)
                offset += len(chunk)
        size = _rounded(member.size)
        os.ftruncate(fd, size)
        os.fsync(fd)
        return size, data
    finally:
        os.close(fd)


def _raw(read: Read, fd: int, target: int, limit: int) -> int:
    size = data = 0
    while chunk := _fill(read):
        data = _put(fd, chunk, size, data, limit)
        size += len(chunk)
        if size > qcow2.MAX_SIZE:
            raise InvalidError(f"the disk has more than {qcow2.MAX_SIZE >> 40} TiB")
    if not size:
        raise InvalidError("the disk is empty")
    size = _rounded(size)
    os.ftruncate(fd, size)
    return size


def _put(fd: int, chunk: bytes, offset: int, data: int, limit: int) -> int:
    """Write what is not zeros; data is how much that was before, and is returned with what came to it."""
    for at in range(0, len(chunk), _BLOCK):
        block = chunk[at : at + _BLOCK]
        if block != _ZEROS[: len(block)]:
            data += len(block)
            _check_limit(data, limit)
            write_at(fd, block, offset + at)
    return data


def _rounded(size: int) -> int:
    return -(-size // qcow2.SECTOR) * qcow2.SECTOR


def _qcow2(read: Read, fd: int, target: int, limit: int) -> int:
    first = _fill(read)
    if not first.startswith(qcow2.MAGIC):
        raise InvalidError("the disk is not in the format qcow2", "say what it is: --format raw")
    with spooled(_again(first, read), target, limit) as copy:
        disk = qcow2.inspect(copy)
        _check_limit(os.fstat(copy).st_size + qcow2.data_size(copy, disk), limit)
        os.ftruncate(fd, disk.size)
        _convert(copy, fd)
    return disk.size


def _convert(source: int, target: int) -> None:
    """QEMU is told both formats, and that there is no other file; few threads, as the sandbox has few."""
    given = {
        "driver": "qcow2",
        "backing": None,
        "file": {"driver": "file", "filename": f"/proc/self/fd/{source}", "locking": "off"},
    }
    wanted = f"driver=raw,file.driver=file,file.locking=off,file.filename=/proc/self/fd/{target}"
    how = ["-q", "-n", "--target-is-zero", "-m", "4", "--target-image-opts"]
    tools.run(["qemu-img", "convert", *how, f"json:{json.dumps(given)}", wanted], source, target)


def _fill(read: Read) -> bytes:
    """CHUNK bytes, less only at the end."""
    parts, size = [], 0
    while size < CHUNK and (data := read(CHUNK - size)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _again(first: bytes, read: Read) -> Read:
    ahead = [first]
    return lambda size: ahead.pop() if ahead else read(size)


def _check_limit(needed: int, limit: int) -> None:
    if needed > limit:
        raise InvalidError(f"the disk has more data than its limit of {format_size(limit)}")
