# SPDX-License-Identifier: Apache-2.0
"""What an image arrives as: bytes from a descriptor, hashed as they come, turned into one plain tar stream.

Formats are told apart by their first bytes. Compressed ones are unpacked by the usual programs, squashfs is turned
into tar by sqfs2tar; so hostile input meets those programs only inside the worker's sandbox.
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from sysd.archive.tape import CHUNK, Read, damaged
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.sizes import format_size

MAGIC_LENGTH = 8
_STDERR_LIMIT = 4096
_FEEDER_GRACE = 0.2


@dataclass(frozen=True, slots=True)
class Format:
    """How to recognise a format, and the command that makes plain tar of it."""

    name: str
    magic: bytes
    argv: tuple[str, ...]
    package: str
    seekable: bool = False


FORMATS = (
    Format("gzip", b"\x1f\x8b", ("gzip", "-dc"), "gzip"),
    Format("bzip2", b"BZh", ("bzip2", "-dc"), "bzip2"),
    Format("xz", b"\xfd7zXZ\0", ("xz", "-dc", "--format=xz", "--memlimit-decompress=512MiB"), "xz-utils"),
    Format("lzma", b"\x5d\0\0", ("xz", "-dc", "--format=lzma", "--memlimit-decompress=512MiB"), "xz-utils"),
    Format("zstd", b"\x28\xb5\x2f\xfd", ("zstd", "-dcq"), "zstd"),
    Format("lz4", b"\x04\x22\x4d\x18", ("lz4", "-dcq"), "lz4"),
    Format("squashfs", b"hsqs", ("sqfs2tar", "--root-becomes", "."), "squashfs-tools-ng", seekable=True),
)
QCOW2 = b"QFI\xfb"


def detect(start: bytes) -> Format | None:
    """The format that a file starting so has; None for plain tar."""
    if start.startswith(QCOW2):
        raise InvalidError("this is a virtual machine's disk, no archive", "say so: --format qcow2")
    return next((fmt for fmt in FORMATS if start.startswith(fmt.magic)), None)


@dataclass(slots=True)
class Digest:
    """SHA-256 over all inputs in the order in which they are read, and how far that has come."""

    progress: Callable[[int, int], None] = lambda done, total: None
    total: int = 0
    done: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.done += len(data)
        self.progress(self.done, self.total)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class Input:
    """One given descriptor, read from where it stands to its end."""

    def __init__(self, fd: int, digest: Digest) -> None:
        self._fd = fd
        self._digest = digest
        self._ahead = b""

    def start(self) -> bytes:
        """The first bytes, which read() will return again."""
        while len(self._ahead) < MAGIC_LENGTH and (data := self._take(MAGIC_LENGTH - len(self._ahead))):
            self._ahead += data
        return self._ahead

    def read(self, size: int) -> bytes:
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data or self._take(size)

    def drain(self) -> None:
        """Read the rest, for the digest's sake."""
        while self.read(CHUNK):
            pass

    def _take(self, size: int) -> bytes:
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            # Whoever gave us the descriptor shares its flags.
            select.select([self._fd], [], [])
            return self._take(size)
        self._digest.update(data)
        return data


@contextmanager
def tar_stream(source: Input, spool: int, limit: int) -> Iterator[Read]:
    """Read function for the tar in source; leaving the block without an error checks that all was well.

    spool is a directory's descriptor for the temporary file that squashfs needs; limit bounds that file.
    """
    fmt = detect(source.start())
    if not source.start():
        raise InvalidError("the archive is empty")
    if fmt is None:
        yield source.read
        source.drain()
    elif fmt.seekable:
        with spooled(source.read, spool, limit) as copy, Filter(fmt, copy) as unpacker:
            yield unpacker.read
    else:
        with Filter(fmt, source) as unpacker:
            yield unpacker.read


@contextmanager
def spooled(read: Read, directory: int, limit: int) -> Iterator[int]:
    """An unnamed temporary file with all that read gives.

    Also made of a regular file: its owner could change it between being hashed and being unpacked.
    """
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        size = 0
        while data := read(CHUNK):
            size += len(data)
            if size > limit:
                raise InvalidError(f"the image has more than its limit of {format_size(limit)}")
            write_all(fd, data)
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


class Filter:
    """A program that turns its input, an Input or a seekable file, into the tar stream that read() returns."""

    def __init__(self, fmt: Format, source: Input | int) -> None:
        self._fmt = fmt
        self._source = source
        self._feeder: threading.Thread | None = None
        self._feed_error: OSError | None = None
        self._abandoned = False
        self._complaint = b""
        self._process = self._start()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._listener.start()
        if isinstance(self._source, Input):
            self._feeder = threading.Thread(target=self._feed, args=(self._source,), daemon=True)
            self._feeder.start()
        return self

    def __exit__(self, kind: object, *args: object) -> None:
        if kind is None:
            self._finish()
        else:
            self._abandon()
        self._listener.join()
        assert self._process.stdout
        self._process.stdout.close()

    def read(self, size: int) -> bytes:
        assert self._process.stdout
        data = os.read(self._process.stdout.fileno(), size)
        if not data:
            # A program that failed explains a short stream better than the tar parser could.
            self._finish()
        return data

    def _start(self) -> subprocess.Popen[bytes]:
        argv = list(self._fmt.argv)
        seekable = isinstance(self._source, int)
        if isinstance(self._source, int):
            argv.append(f"/proc/self/fd/{self._source}")
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if seekable else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(self._source,) if isinstance(self._source, int) else (),
                bufsize=0,
            )
        except FileNotFoundError as error:
            raise UnsupportedError(
                f"can't unpack {self._fmt.name}: the program {argv[0]} is missing", f"apt install {self._fmt.package}"
            ) from error

    def _feed(self, source: Input) -> None:
        assert self._process.stdin
        stdin = self._process.stdin
        try:
            with stdin:
                while data := source.read(CHUNK):
                    write_all(stdin.fileno(), data)
        except BrokenPipeError:
            # The program has read enough, or has failed and will say so.
            if not self._abandoned:
                source.drain()
        except OSError as error:
            self._feed_error = error

    def _listen(self) -> None:
        """Keep the end of what the program complains about; one that nobody reads would block it."""
        assert self._process.stderr
        with self._process.stderr as pipe:
            while data := os.read(pipe.fileno(), _STDERR_LIMIT):
                self._complaint = (self._complaint + data)[-_STDERR_LIMIT:]

    def _abandon(self) -> None:
        self._abandoned = True
        self._process.kill()
        self._process.wait()
        if self._feeder:
            # It may be waiting for input that never comes; then it ends with this program.
            self._feeder.join(_FEEDER_GRACE)

    def _finish(self) -> None:
        if self._feeder:
            self._feeder.join()
        if self._feed_error:
            raise self._feed_error
        if self._process.wait():
            self._listener.join()
            lines = self._complaint.decode("utf-8", "backslashreplace").split("\n")
            reason = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
            raise damaged(reason)
