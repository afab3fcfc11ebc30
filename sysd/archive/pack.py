# SPDX-License-Identifier: Apache-2.0
"""A folder as a tar stream: walked by descriptors, no link followed, nothing opened but files and folders.

The tree may change while it is read, and may be made to be endless: depth and memory are bounded, and each file is as
long as it was when its turn came.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sysd.archive.tree import MAX_DEPTH, lstat, open_directory, show
from sysd.model.errors import FailedError, InvalidError

CHUNK = 1 << 20
MAX_LINKS = 100_000
"""Files with several names that are remembered, to be written once; of more than these each name gets a copy."""
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

OpenDirectory = Callable[[bytes, int], int]


@dataclass(slots=True)
class _Level:
    path: bytes
    fd: int
    entries: Iterator[os.DirEntry[str]]


@dataclass(slots=True)
class Packer:
    """write takes all that it is given. uid and gid are those of every member, -1 for the files' own.

    open_directory opens one folder in another; one that raises EXDEV is left empty. skipped counts what an archive is
    not the place for: device nodes, sockets, and what lies on other file systems; done the bytes of files.
    """

    write: Callable[[bytes], None]
    uid: int = -1
    gid: int = -1
    open_directory: OpenDirectory = open_directory
    progress: Callable[[int], None] = lambda done: None
    skipped: int = 0
    done: int = 0
    _links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def run(self, directory: int, name: bytes) -> None:
        """Pack an open folder under a name; with an empty one, what is in it without itself."""
        if name:
            self._put(self._member(name, os.fstat(directory), tarfile.DIRTYPE))
        levels = [self._level(name, os.dup(directory))]
        try:
            while levels:
                entry = next(levels[-1].entries, None)
                if entry is None:
                    os.close(levels.pop().fd)
                elif below := self._entry(levels[-1], entry):
                    levels.append(below)
                    if len(levels) > MAX_DEPTH:
                        raise InvalidError(f"{show(below.path)} is nested more than {MAX_DEPTH} folders deep")
        finally:
            for level in levels:
                os.close(level.fd)
        self.write(bytes(2 * tarfile.BLOCKSIZE))

    def _level(self, path: bytes, fd: int) -> _Level:
        return _Level(path, fd, os.scandir(fd))

    def _entry(self, level: _Level, entry: os.DirEntry[str]) -> _Level | None:
        """Pack one entry; a folder's level is returned."""
        name = os.fsencode(entry.name)
        path = level.path + b"/" + name if level.path else name
        try:
            if entry.is_dir(follow_symlinks=False):
                return self._folder(level.fd, name, path)
            info = lstat(name, level.fd)
            if info:
                self._other(level.fd, name, path, info)
        except FileNotFoundError:
            pass  # the tree is in use
        except BrokenPipeError:
            raise  # of who takes the archive
        except OSError as error:
            raise FailedError(f"{show(path)} can't be read: {error.strerror}") from error
        return None

    def _folder(self, parent: int, name: bytes, path: bytes) -> _Level | None:
        try:
            fd = self.open_directory(name, parent)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOTDIR, errno.ELOOP):
                raise
            self.skipped += 1
            return None
        try:
            self._put(self._member(path, os.fstat(fd), tarfile.DIRTYPE))
            return self._level(path, fd)
        except BaseException:
            os.close(fd)
            raise

    def _other(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self._file(parent, name, path)
        elif kind == stat.S_IFLNK:
            member = self._member(path, info, tarfile.SYMTYPE)
            member.linkname = os.fsdecode(os.readlink(name, dir_fd=parent))
            self._put(member)
        elif kind == stat.S_IFIFO:
            self._put(self._member(path, info, tarfile.FIFOTYPE))
        else:
            self.skipped += 1

    def _file(self, parent: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                self.skipped += 1  # it was another when it was looked at
            elif first := self._earlier(info, path):
                member = self._member(path, info, tarfile.LNKTYPE)
                member.linkname = os.fsdecode(first)
                self._put(member)
            else:
                member = self._member(path, info, tarfile.REGTYPE)
                member.size = info.st_size
                self._put(member)
                self._content(fd, info.st_size)
        finally:
            os.close(fd)

    def _earlier(self, info: os.stat_result, path: bytes) -> bytes | None:
        """The name under which a file with several has been packed."""
        if info.st_nlink < 2:
            return None
        key = (info.st_dev, info.st_ino)
        if key not in self._links and len(self._links) < MAX_LINKS:
            self._links[key] = path
            return None
        return self._links.get(key)

    def _content(self, fd: int, size: int) -> None:
        left = size
        while left and (data := os.read(fd, min(left, CHUNK))):
            self.write(data)
            left -= len(data)
            self.done += len(data)
            self.progress(self.done)
        while left:  # it has become shorter
            self.write(bytes(min(left, CHUNK)))
            left -= min(left, CHUNK)
        self.write(bytes(-size % tarfile.BLOCKSIZE))

    def _member(self, path: bytes, info: os.stat_result, kind: bytes) -> tarfile.TarInfo:
        member = tarfile.TarInfo(os.fsdecode(path))
        member.type = kind
        member.mode = stat.S_IMODE(info.st_mode)
        member.uid = info.st_uid if self.uid < 0 else self.uid
        member.gid = info.st_gid if self.gid < 0 else self.gid
        member.mtime = int(info.st_mtime)
        return member

    def _put(self, member: tarfile.TarInfo) -> None:
        self.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
