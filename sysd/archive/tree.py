# SPDX-License-Identifier: Apache-2.0
"""A directory tree that is only ever walked by descriptors, one real directory at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from sysd.model.errors import InvalidError

MAX_DEPTH = 256
MAX_LINKS = 40
Parts = tuple[bytes, ...]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def show(name: bytes) -> str:
    """A name from an archive as it may stand in a message: printable, and not too long."""
    text = repr(name.decode("utf-8", "backslashreplace"))
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def show_parts(parts: Parts) -> str:
    return show(b"/".join(parts) or b".")


def open_directory(name: bytes, parent: int) -> int:
    """Open a real directory below parent; raises OSError with ENOTDIR for a link."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def lstat(name: bytes, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


@dataclass(slots=True)
class _Level:
    name: bytes
    fd: int
    times: tuple[int, int]
    touched: bool = False


@dataclass(slots=True)
class Tree:
    """Keeps the directories on the way to the last used one open, and puts back their times when it leaves them."""

    root: int
    _levels: list[_Level] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._levels = [_Level(b"", self.root, _times(self.root))]
        return self

    def __exit__(self, *args: object) -> None:
        self._leave(1)
        _put_times_back(self._levels.pop())

    def enter(self, parts: Parts) -> int:
        """Descriptor of the directory parts, made when it is missing; it stays valid until the next call."""
        if len(parts) > MAX_DEPTH:
            raise InvalidError(f"archive member {show_parts(parts)} is nested more than {MAX_DEPTH} directories deep")
        common = 0
        while common < min(len(parts), len(self._levels) - 1) and parts[common] == self._levels[common + 1].name:
            common += 1
        self._leave(common + 1)
        for index in range(common, len(parts)):
            self._push(parts[: index + 1])
        return self._levels[-1].fd

    def touch(self) -> None:
        """The last entered directory is about to change; its times will be put back."""
        self._levels[-1].touched = True

    def set_times(self, times: tuple[int, int]) -> None:
        """Times that the last entered directory is to have in the end."""
        self._levels[-1].times = times
        self._levels[-1].touched = True

    def _push(self, path: Parts) -> None:
        parent = self._levels[-1].fd
        try:
            fd = open_directory(path[-1], parent)
        except FileNotFoundError:
            self.touch()
            os.mkdir(path[-1], 0o755, dir_fd=parent)
            fd = open_directory(path[-1], parent)
            os.fchmod(fd, 0o755)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidError(f"{show_parts(path)} is not a directory, and has members") from error
            raise
        self._levels.append(_Level(path[-1], fd, _times(fd)))

    def _leave(self, keep: int) -> None:
        while len(self._levels) > keep:
            level = self._levels.pop()
            _put_times_back(level)
            os.close(level.fd)


def _times(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_atime_ns, info.st_mtime_ns


def _put_times_back(level: _Level) -> None:
    if level.touched:
        with suppress(PermissionError):  # someone else's folder, in which the caller may write
            os.utime(level.fd, ns=level.times)


@contextmanager
def directory(root: int, parts: Parts) -> Iterator[int]:
    """Descriptor of an existing directory beneath root, no link followed; raises OSError when it isn't one."""
    fd = os.dup(root)
    try:
        for part in parts:
            inner = open_directory(part, fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def resolve(root: int, path: bytes) -> tuple[Parts, os.stat_result] | None:
    """What path leads to when root is its `/`, links followed as the guest's kernel would; None when to nothing."""
    todo = path.split(b"/")
    done: list[bytes] = []
    info = os.fstat(root)
    links = 0
    while todo:
        part = todo.pop(0)
        if part in (b"", b".", b".."):
            done = done[:-1] if part == b".." else done
            continue
        try:
            with directory(root, tuple(done)) as parent:
                info = os.stat(part, dir_fd=parent, follow_symlinks=False)
                target = os.readlink(part, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        done = [] if target.startswith(b"/") else done
        todo[:0] = target.split(b"/")
    return tuple(done), info
