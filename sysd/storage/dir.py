# SPDX-License-Identifier: Apache-2.0
"""Driver dir: plain folders on any file system, cloned file by file. Data is shared where the file system can do that
(FICLONE: btrfs, xfs, bcachefs), else copied within the kernel, holes left out. Sizes are project quotas (ext4, xfs).

A layer was written by a guest: it is walked by descriptors only, no link is followed, and nothing in it is parsed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sysd import _cext as c
from sysd.model.errors import CancelledError, FailedError
from sysd.storage import quota
from sysd.storage.driver import Cancelled

MAX_DEPTH = 1000
"""Folders within folders: each level takes two descriptors. A path of PATH_MAX bytes has at most 2048."""
CHUNK = 1 << 30
FICLONE = 0x40049409
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What a file system, or two of them, answer that can't share data.
_UNSHARED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ETXTBSY)


class Dir:
    name = "dir"

    is_limited = staticmethod(quota.is_limited)
    assign = staticmethod(quota.assign)
    project_of = staticmethod(quota.project_of)
    usage = staticmethod(quota.usage)
    limit = staticmethod(quota.limit)

    def clone(self, source: Path, target: Path, cancelled: Cancelled, project: int = 0) -> None:
        links = target.with_name(target.name + ".links")
        try:
            links.mkdir(mode=0o700)
            target.mkdir(mode=0o700)
            if project:
                quota.assign(target, project)
            with contextlib.ExitStack() as stack:
                fds = [os.open(path, _FOLDER) for path in (source, target, links)]
                for fd in fds:
                    stack.callback(os.close, fd)
                _Cloning(fds[2], cancelled).run(fds[0], fds[1])
        except OSError as error:
            raise FailedError(f"{source} can't be copied: {error.strerror}") from error
        finally:
            shutil.rmtree(links, ignore_errors=True)

    def settle(self, target: Path) -> None:
        fd = os.open(target, _FOLDER)
        try:
            c.syncfs(fd)
        finally:
            os.close(fd)


@dataclass(slots=True)
class _Level:
    """A folder under way: its own attributes come last, when nothing in it changes its times any more."""

    source: int
    target: int
    entries: Iterator[str]

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


@dataclass(slots=True)
class _Cloning:
    """One clone. links is a folder on the target's file system in which each file that has several names is kept
    under its inode's number, for the second name and those that follow."""

    links: int
    cancelled: Cancelled
    _levels: list[_Level] = field(default_factory=list)

    def run(self, source: int, target: int) -> None:
        try:
            self._enter(os.dup(source), os.dup(target))
            while self._levels:
                level = self._levels[-1]
                name = next(level.entries, None)
                if name is None:
                    _finish_folder(level)
                    self._levels.pop().close()
                else:
                    self._copy(name, level)
        finally:
            for level in self._levels:
                level.close()

    def _enter(self, source: int, target: int) -> None:
        self._levels.append(_Level(source, target, iter(os.listdir(source))))
        if len(self._levels) > MAX_DEPTH:
            raise FailedError(f"it has folders more than {MAX_DEPTH} deep within each other")

    def _copy(self, name: str, level: _Level) -> None:
        if self.cancelled():
            raise CancelledError("copying was cancelled")
        info = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=level.target)
            source = os.open(name, _FOLDER, dir_fd=level.source)
            try:
                target = os.open(name, _FOLDER, dir_fd=level.target)
            except BaseException:
                os.close(source)
                raise
            self._enter(source, target)
            return
        if info.st_nlink > 1 and self._link(str(info.st_ino), name, level):
            return
        _copy_one(name, info, level)
        if info.st_nlink > 1:
            with contextlib.suppress(FileExistsError):
                os.link(name, str(info.st_ino), src_dir_fd=level.target, dst_dir_fd=self.links, follow_symlinks=False)

    def _link(self, inode: str, name: str, level: _Level) -> bool:
        """Whether name could be made another name of a file that was copied before."""
        try:
            os.link(inode, name, src_dir_fd=self.links, dst_dir_fd=level.target, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EMLINK:  # the name in our own folder counts too
                raise
            return False
        return True


def _copy_one(name: str, info: os.stat_result, level: _Level) -> None:
    if stat.S_ISREG(info.st_mode):
        _copy_file(name, info, level)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
    else:
        # Whiteouts among them: character devices 0:0.
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=level.target)
    os.chown(name, info.st_uid, info.st_gid, dir_fd=level.target, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        # Following is harmless: it was made just now, and nobody else has access.
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=level.target)
    _copy_attributes(f"/proc/self/fd/{level.source}/{name}", f"/proc/self/fd/{level.target}/{name}")
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=level.target, follow_symlinks=False)


def _copy_file(name: str, info: os.stat_result, level: _Level) -> None:
    source = os.open(name, _SOURCE, dir_fd=level.source)
    try:
        target = os.open(name, _TARGET, 0o600, dir_fd=level.target)
        try:
            if info.st_size:
                _copy_data(source, target, info.st_size)
            _finish(source, target, info)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_data(source: int, target: int, size: int) -> None:
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _UNSHARED:
            raise
    end = 0
    while end < size:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to its end
        end = os.lseek(source, begin, os.SEEK_HOLE)
        _copy_range(source, target, begin, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, offset: int, end: int) -> None:
    while offset < end:
        try:
            done = os.copy_file_range(source, target, min(CHUNK, end - offset), offset, offset)
        except OSError as error:
            if error.errno not in _UNSHARED:
                raise
            done = os.pwrite(target, os.pread(source, min(1 << 20, end - offset), offset), offset)
        if not done:
            return  # it was cut short
        offset += done


def _finish_folder(level: _Level) -> None:
    _finish(level.source, level.target, os.fstat(level.source))


def _finish(source: int, target: int, info: os.stat_result) -> None:
    """Owner first, as a new one takes setuid bits and capabilities away; then attributes, as ACLs depend on the
    mode; times last."""
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    _copy_attributes(source, target)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_attributes(source: int | str, target: int | str) -> None:
    """Extended attributes with overlayfs's own (trusted.overlay.*). A path's last part is never followed."""
    follow = isinstance(source, int)
    for name in os.listxattr(source, follow_symlinks=follow):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
