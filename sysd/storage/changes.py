# SPDX-License-Identifier: Apache-2.0
"""What has become of a tree: two views of it, of which the later one is looked at anew.

Whoever changes a file can give it its old time of modification again, but not that of its change of status
(inode(7)), which only the host's clock makes: that is what is trusted here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 256
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TooDeepError(Exception):
    """Folders in folders beyond what anything here follows."""


@dataclass(frozen=True, slots=True)
class Change:
    """path: relative, without a leading slash, "" of the tree itself. gone: what was there is not any more; else it is
    new, or another, itself: what is in a folder is told for itself."""

    path: bytes
    gone: bool


def changes(before: int, after: int, since: int) -> Iterator[Change]:
    """From one open folder to another that was once the same, each with what is below it. since: nanoseconds of the
    epoch before which they were. What changes its kind is gone first. Folders come before what is in them."""
    if _changed(os.fstat(before), os.fstat(after), since):
        yield Change(b"", gone=False)
    yield from _below(before, after, b"", since, 0)


def _below(before: int, after: int, path: bytes, since: int, depth: int) -> Iterator[Change]:
    """before is -1 where there was nothing."""
    if depth > MAX_DEPTH:
        raise TooDeepError(path)
    names = set()
    with os.scandir(after) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            names.add(name)
            yield from _entry(before, after, name, path + b"/" + name if path else name, since, depth)
    if before >= 0:
        with os.scandir(before) as entries:
            gone = [name for entry in entries if (name := os.fsencode(entry.name)) not in names]
        for name in gone:
            yield Change(path + b"/" + name if path else name, gone=True)


def _entry(before: int, after: int, name: bytes, path: bytes, since: int, depth: int) -> Iterator[Change]:
    now, was = _lstat(after, name), _look(before, name)
    if was and stat.S_IFMT(was.st_mode) != stat.S_IFMT(now.st_mode):
        yield Change(path, gone=True)
        was = None
    if was is None or _changed(was, now, since):
        yield Change(path, gone=False)
    if stat.S_ISDIR(now.st_mode):
        there, here = os.open(name, _OPEN, dir_fd=before) if was else -1, os.open(name, _OPEN, dir_fd=after)
        try:
            yield from _below(there, here, path, since, depth + 1)
        finally:
            for fd in (there, here):
                if fd >= 0:
                    os.close(fd)


def _look(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return _lstat(folder, name) if folder >= 0 else None
    except FileNotFoundError:
        return None


def _lstat(folder: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _changed(was: os.stat_result, now: os.stat_result, since: int) -> bool:
    """Also by what a clock that was set back would not tell."""
    return now.st_ctime_ns >= since or _shape(was) != _shape(now)


def _shape(info: os.stat_result) -> tuple[int, ...]:
    # What size a folder has is for its file system to say.
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, size
