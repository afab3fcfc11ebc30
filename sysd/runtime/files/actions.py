# SPDX-License-Identifier: Apache-2.0
"""What the worker does once it is in an instance's tree: there "/" is the guest's, and so are its rights.

The guest may change anything at any moment. So whatever a path led to is acted on through the descriptor that this
gave, links in /proc that jump elsewhere are refused, and only files and folders are ever opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable, Iterator

from sysd import _cext as c
from sysd.archive.tree import Parts, directory, resolve
from sysd.model.errors import CancelledError, ExistsError, FailedError, InvalidError, NotFoundError
from sysd.model.files import FileRequest, split
from sysd.runtime.trees import remove_beneath

CHUNK = 1 << 20
MAX_UNSIZED = 64 << 20
"""What is read at most of a file that says it has no bytes, as those of /proc do."""
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
_RESOLVE = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device node",
    stat.S_IFBLK: "a device node",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}

Result = dict[str, str]
Progress = Callable[[int, int], None]


class Tree:
    """The tree of which root is "/". consent returns when what came may take its place, or raises."""

    def __init__(self, root: int, progress: Progress, consent: Callable[[], None] = lambda: None) -> None:
        self._root = root
        self.progress = progress
        self._consent = consent

    # files

    def push(self, request: FileRequest, data: int) -> Result:
        """Put what data holds in the place of a file, at once: who reads it sees all of the old or all of the new."""
        place = self._destination(request)
        found = resolve(self._root, _encode(place))
        if found and not stat.S_ISREG(found[1].st_mode):
            raise InvalidError(f"/{place} is {_kind(found[1])}", "only files are written")
        with self._parent(found[0] if found else None, place) as (parent, name):
            mode, uid, gid = _wanted(request, found[1] if found else None, FILE_MODE)
            with _draft(parent) as (fd, draft):
                size = self._copy(data, fd, None)
                if request.size not in (-1, size):
                    raise FailedError(f"{request.path}: {size} of {request.size} bytes came", "it is left as it was")
                self._consent()
                _give(fd, uid, gid)
                os.fchmod(fd, mode)
                os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
        return {"size": str(size)}

    def pull(self, request: FileRequest, data: int) -> Result:
        """Copy a file to data; what is none is refused before anything is written."""
        look = self.open(request.path, os.O_PATH)
        try:
            _check_file(request.path, os.fstat(look))
        finally:
            os.close(look)
        fd = self.open(request.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            info = os.fstat(fd)
            _check_file(request.path, info)
            size = self._copy(fd, data, info.st_size)
        finally:
            os.close(fd)
        return {
            "mode": f"{stat.S_IMODE(info.st_mode):04o}",
            "uid": str(info.st_uid),
            "gid": str(info.st_gid),
            "size": str(size),
        }

    def delete(self, request: FileRequest) -> Result:
        """Of a link, the link itself."""
        parts = split(request.path)
        if not parts:
            raise InvalidError("an instance's root folder can't be deleted", "'syscont delete' deletes the instance")
        parent = self.open("/".join(parts[:-1]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                os.unlink(parts[-1], dir_fd=parent)
            elif request.recursive:
                remove_beneath(parent, parts[-1])
            else:
                os.rmdir(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)
        return {}

    # folders

    def make_directory(self, request: FileRequest) -> Result:
        parts = split(request.path)
        if not parts:
            raise ExistsError("the root folder exists already")
        if request.parents:
            self.make_parents(parts)
            if resolve(self._root, _encode(request.path)):
                os.close(self.open(request.path, os.O_PATH | os.O_DIRECTORY))
                return {}
        parent = self.open("/".join(parts[:-1]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            _make_folder(parent, parts[-1], _wanted(request, None, DIRECTORY_MODE))
        except FileExistsError:
            raise ExistsError(f"{request.path} exists already") from None
        finally:
            os.close(parent)
        return {}

    # ways

    def open(self, path: str, flags: int) -> int:
        """What path leads to in the tree, links followed as the guest's kernel would."""
        return c.openat2(self._root, path.lstrip("/") or ".", flags, _RESOLVE)

    def _destination(self, request: FileRequest) -> str:
        """Where a file that comes goes: to path itself, or below it when that is a folder."""
        parts = split(request.path)
        if request.parents:
            self.make_parents([*parts, ""] if request.path.endswith("/") else parts)
        found = resolve(self._root, _encode(request.path))
        is_directory = found is not None and stat.S_ISDIR(found[1].st_mode)
        if request.path.endswith("/") and not is_directory:
            raise NotFoundError(f"no directory {request.path}", "--create-dirs makes it")
        if is_directory and not request.name:
            raise InvalidError(f"{request.path} is a directory", "name the file in it")
        return "/".join([*parts, request.name] if is_directory else parts)

    def make_parents(self, parts: list[str]) -> None:
        """The folders on the way to the last of parts, links followed as the guest's kernel would."""
        for count in range(1, len(parts)):
            path = "/".join(parts[:count])
            try:
                os.close(self.open(path, os.O_PATH | os.O_DIRECTORY))
            except FileNotFoundError:
                parent = self.open("/".join(parts[: count - 1]), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.mkdir(parts[count - 1], DIRECTORY_MODE, dir_fd=parent)
                except FileExistsError:
                    raise InvalidError(f"/{path} is a link to nothing") from None
                finally:
                    os.close(parent)

    @contextlib.contextmanager
    def _parent(self, resolved: Parts | None, place: str) -> Iterator[tuple[int, bytes]]:
        """The folder that a file is in, or is to be in, and its name there. A link to nothing is replaced."""
        parts = resolved
        if parts is None:
            above = resolve(self._root, _encode(os.path.dirname(place)))
            if above is None or not stat.S_ISDIR(above[1].st_mode):
                raise NotFoundError(f"no directory /{os.path.dirname(place)}", "--create-dirs makes it")
            parts = (*above[0], _encode(os.path.basename(place)))
        with directory(self._root, parts[:-1]) as parent:
            yield parent, parts[-1]

    def _copy(self, source: int, target: int, size: int | None) -> int:
        """Copy from one descriptor to the other, as many bytes as are there now; holes of files stay holes."""
        info = os.fstat(source)
        if size is None and stat.S_ISREG(info.st_mode):
            size = info.st_size - os.lseek(source, 0, os.SEEK_CUR)
        holes = bool(size) and stat.S_ISREG(info.st_mode) and _ends_here(target)
        left = size or (MAX_UNSIZED if size is not None else None)
        done = 0
        while left is None or done < left:
            if holes and (hole := _hole(source)):
                hole = min(hole, (left or 0) - done)
                os.lseek(source, hole, os.SEEK_CUR)
                os.ftruncate(target, os.lseek(target, hole, os.SEEK_CUR))
                done += hole
                continue
            data = read_some(source, CHUNK if left is None else min(CHUNK, left - done))
            if not data:
                break
            write_all(target, data)
            done += len(data)
            self.progress(done, size or 0)
        return done


@contextlib.contextmanager
def _draft(parent: int) -> Iterator[tuple[int, str]]:
    """A new file in a folder, which is either renamed or gone at the end."""
    name = f".syscont-{os.urandom(8).hex()}"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        yield fd, name
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=parent)
        raise
    finally:
        os.close(fd)


def _make_folder(parent: int, name: str, wanted: tuple[int, int, int]) -> None:
    """With a mode, a user and a group; or not at all."""
    mode, uid, gid = wanted
    os.mkdir(name, 0o700, dir_fd=parent)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _give(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)
        raise


def _wanted(request: FileRequest, found: os.stat_result | None, mode: int) -> tuple[int, int, int]:
    """Mode, user and group: as asked for, else as they are, else root's."""
    was = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) if found else (mode, 0, 0)
    asked = (request.mode, request.uid, request.gid)
    mode, uid, gid = (new if new >= 0 else old for new, old in zip(asked, was, strict=True))
    return mode, uid, gid


def _give(fd: int, uid: int, gid: int) -> None:
    """Only the kernel knows the ids of the user namespace that we are in (chown(2): EINVAL)."""
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InvalidError(f"the instance has no user {uid} or no group {gid}", "see security.idmap.size") from None


def _check_file(path: str, info: os.stat_result) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise InvalidError(f"{path} is a directory", "--recursive takes all that is in it")
    if not stat.S_ISREG(info.st_mode):
        raise InvalidError(f"{path} is {_kind(info)}", "only files are read")


def _kind(info: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(info.st_mode), "no file")


def _encode(path: str) -> bytes:
    return os.fsencode(path)


def _hole(fd: int) -> int:
    """How many bytes of a hole are ahead in a file."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        ahead = os.lseek(fd, here, os.SEEK_DATA) - here
    except OSError:  # ENXIO: there is nothing but a hole
        ahead = os.fstat(fd).st_size - here
    os.lseek(fd, here, os.SEEK_SET)
    return max(ahead, 0)


def _ends_here(fd: int) -> bool:
    """Whether a hole can be made by going on: in a file, at its end, and not one to which all writes are appended."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return False
    return os.lseek(fd, 0, os.SEEK_CUR) >= info.st_size


def read_some(fd: int, size: int) -> bytes:
    """At most size bytes, as soon as there are some; none at the end."""
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:  # whoever gave us the descriptor shares its flags
            select.select([fd], [], [])


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except BrokenPipeError:
            raise CancelledError("nobody reads what is pulled") from None

