# SPDX-License-Identifier: Apache-2.0
"""The extractor: the one place where an archive becomes files, with all the guards against hostile ones.

Every path is walked by descriptors beneath the tree's root, and no link is ever followed.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from sysd.archive import xattrs
from sysd.archive.tape import Member, TarReader
from sysd.archive.tree import Parts, Tree, lstat, open_directory, show, show_parts
from sysd.model.errors import FailedError, InvalidError, SyscontError
from sysd.model.sizes import format_size

IDS = 65536
MODE_BITS = 0o7777
MAX_MEMBERS = 4_000_000
MAX_PATH = 4096
MAX_COMPONENT = 255
MAX_DEFAULT_ACLS = 65536

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = (b"dev",)

Place = Callable[[Parts], Parts | None]


def refuse(member: Member, why: str, hint: str = "") -> InvalidError:
    return InvalidError(f"archive member {show(encode(member.name))} {why}", hint)


def encode(text: str) -> bytes:
    """The bytes that tarfile read a name from."""
    return text.encode("utf-8", "surrogateescape")


def split_name(name: str) -> Parts:
    """The components of a name below the archive's top; raises InvalidError for one that could lead elsewhere."""
    raw = encode(name)
    parts = tuple(part for part in raw.split(b"/") if part not in (b"", b"."))
    why = ""
    if not raw:
        why = "has an empty name"
    elif b"\0" in raw:
        why = "has a zero byte in its name"
    elif raw.startswith(b"/"):
        why = "is an absolute path"
    elif b".." in parts:
        why = "leads out with '..'"
    elif len(raw) > MAX_PATH or any(len(part) > MAX_COMPONENT for part in parts):
        why = f"has a name of more than {MAX_PATH} bytes, or of more than {MAX_COMPONENT} between slashes"
    if why:
        raise InvalidError(f"archive member {show(raw)} {why}")
    return parts


def segments(reader: TarReader, member: Member) -> list[tuple[int, int]]:
    """(offset, length) of each piece of the file that the archive holds, in order; the tape is where they begin."""
    listed: object = member.sparse
    # The old format pads its map with empty pieces at offset 0.
    found = [(int(a), int(b)) for a, b in listed if b] if isinstance(listed, list) else [(0, member.size)]
    last = 0
    for offset, length in found:
        if length < 0 or offset < last or offset + length > member.size:
            raise refuse(member, "has a malformed map of its holes")
        last = offset + length
    if member.offset_data + sum(length for _, length in found) > reader.content_end():
        raise refuse(member, "has a map of holes that does not fit its size")
    reader.tape.seek(member.offset_data)
    return found


@dataclass(slots=True)
class Extractor:
    """Puts members of an archive below the directory root, to which nobody else has access meanwhile.

    limit is the most that all files together may need in bytes. owners: give each file to whom the archive says, else
    they stay the caller's. mode_bits: those that are kept of modes. depth: how many folders below root the trees begin
    that the archive holds, if it holds several. unbounded says which members may be larger than the limit, as
    other heeds what they need. size is what those kept so far have; placed tells whether anything was put into the
    tree.
    """

    root: int
    reader: TarReader
    limit: int
    place: Place = lambda parts: parts
    owners: bool = True
    mode_bits: int = MODE_BITS
    depth: int = 0
    size: int = 0
    placed: bool = False
    unbounded: Callable[[Parts], bool] = lambda parts: False
    _charged: int = 0
    _members: int = 0
    _tree: Tree = field(init=False)
    _default_acls: list[tuple[Parts, bytes]] = field(default_factory=list)

    def run(self, other: Callable[[Parts, Member], None]) -> None:
        """Extract all that place() puts into the tree; whatever it has no place for goes to other."""
        with Tree(self.root) as self._tree:
            for member in self.reader:
                self._count()
                parts = split_name(member.name)
                self._charge(member, parts)
                target = self.place(parts)
                if target is None:
                    other(parts, member)
                else:
                    self.placed = True
                    self._extract(target, member)
            self._set_default_acls()

    def remove(self, parts: Parts) -> None:
        """Take away what was extracted before, with all that is below it; what is not there is no error."""
        folder = self._tree.enter(parts[:-1])
        info = lstat(parts[-1], folder)
        if info is None:
            return
        self._tree.touch()
        if stat.S_ISDIR(info.st_mode):
            shutil.rmtree(parts[-1], dir_fd=folder)
        else:
            os.unlink(parts[-1], dir_fd=folder)

    def _count(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise InvalidError(f"the archive has more than {MAX_MEMBERS} members")

    def _charge(self, member: Member, parts: Parts) -> None:
        """Count what the member needs before any of it is written; what is only skipped has to be unpacked too."""
        size = member.size if member.isreg() else self.reader.content_end() - member.offset_data
        if size < 0:
            raise refuse(member, "has a negative size")
        if self.unbounded(parts):
            return
        self._charged += size
        if self._charged > self.limit:
            needs = f"the archive needs {format_size(self._charged)}, limit {format_size(self.limit)}"
            raise refuse(member, f"has {format_size(size)}: {needs}")

    def _extract(self, parts: Parts, member: Member) -> None:
        inner = parts[self.depth :]
        if (member.ischr() or member.isblk()) and inner[:1] == _DEVICES and len(inner) > 1:
            # The guest's /dev is made by the host; LXD leaves these out of unprivileged containers too.
            return
        try:
            self._check_owner(member)
            self._put(parts, member)
        except SyscontError as error:
            name = show(encode(member.name))
            if name in error.message:
                raise
            raise type(error)(f"archive member {name}: {error.message}", error.hint) from error
        except OSError as error:
            raise FailedError(f"can't write archive member {show(encode(member.name))}: {error.strerror}") from error

    def _check_owner(self, member: Member) -> None:
        for what, number in (("user", member.uid), ("group", member.gid)):
            if not 0 <= number < IDS:
                raise refuse(member, f"belongs to {what} {number}", f"a container has the ids 0 to {IDS - 1}")

    def _put(self, parts: Parts, member: Member) -> None:
        if not parts:
            self._put_root(member)
        elif member.isdir():
            self._put_directory(self._enter(parts[:-1]), parts, member)
        elif member.isreg():
            self._put_file(self._enter(parts[:-1]), parts[-1], member)
        elif member.issym():
            self._put_link(self._enter(parts[:-1]), parts[-1], member)
        elif member.islnk():
            self._put_hard_link(parts, member)
        elif member.isfifo():
            self._put_fifo(self._enter(parts[:-1]), parts[-1], member)
        elif member.ischr() or member.isblk():
            raise refuse(member, "is a device node", "these are left out below dev/, and refused elsewhere")
        else:
            raise refuse(member, f"is of unknown type {member.type!r}")

    def _enter(self, parts: Parts) -> int:
        """Descriptor of a directory in which something is about to change."""
        fd = self._tree.enter(parts)
        self._tree.touch()
        return fd

    def _put_root(self, member: Member) -> None:
        if not member.isdir():
            raise refuse(member, "should be a directory, and is a link or a file")
        fd = self._tree.enter(())
        self._tree.set_times(_times(member))
        self._set_attributes(fd, (), member)

    def _put_directory(self, parent: int, parts: Parts, member: Member) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            info = lstat(parts[-1], parent)
            if info and not stat.S_ISDIR(info.st_mode):
                raise refuse(member, "is a directory, and was something else before") from None
        fd = open_directory(parts[-1], parent)
        try:
            self._set_attributes(fd, parts, member)
            os.utime(fd, ns=_times(member))
        finally:
            os.close(fd)

    def _put_file(self, parent: int, name: bytes, member: Member) -> None:
        pieces = segments(self.reader, member)
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, name, member)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if member.issparse():
                os.ftruncate(fd, member.size)
            for offset, length in pieces:
                self._copy(fd, offset, length)
            self.size += member.size
            self._set_attributes(fd, (name,), member)
            os.utime(fd, ns=_times(member))
        finally:
            os.close(fd)

    def _copy(self, fd: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            data = memoryview(self.reader.tape.read_some(end - offset))
            while data:
                written = os.pwrite(fd, data, offset)
                offset += written
                data = data[written:]

    def _put_link(self, parent: int, name: bytes, member: Member) -> None:
        target = encode(member.linkname)
        if not target or b"\0" in target or len(target) >= MAX_PATH:
            raise refuse(member, "is a link to a bad name")
        self._remove(parent, name, member)
        os.symlink(target, name, dir_fd=parent)
        self._give(parent, name, member)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def _put_hard_link(self, parts: Parts, member: Member) -> None:
        source = self.place(split_name(member.linkname)) if member.linkname else None
        if not source:
            raise refuse(member, f"is a hard link to {show(encode(member.linkname))}, which is not in the tree")
        if source == parts or source[: self.depth] != parts[: self.depth]:
            raise refuse(member, "is a hard link to itself, or into another tree")
        there = os.dup(self._tree.enter(source[:-1]))
        try:
            info = lstat(source[-1], there)
            if not info or not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                raise refuse(member, f"is a hard link to {show_parts(source)}, which is not a file extracted before")
            here = self._enter(parts[:-1])
            self._remove(here, parts[-1], member)
            os.link(source[-1], parts[-1], src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)

    def _put_fifo(self, parent: int, name: bytes, member: Member) -> None:
        self._remove(parent, name, member)
        os.mkfifo(name, 0o600, dir_fd=parent)
        self._give(parent, name, member)
        # Following is harmless: the name was made in the line before, and nobody else has access.
        os.chmod(name, member.mode & self.mode_bits, dir_fd=parent)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def _give(self, parent: int, name: bytes, member: Member) -> None:
        if self.owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def _remove(self, parent: int, name: bytes, member: Member) -> None:
        """Make room for a member that comes a second time."""
        info = lstat(name, parent)
        if info is None:
            return
        if stat.S_ISDIR(info.st_mode):
            raise refuse(member, "was a directory before, and is something else now")
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            self.size -= info.st_size
        os.unlink(name, dir_fd=parent)

    def _set_attributes(self, fd: int, parts: Parts, member: Member) -> None:
        # Changing the owner clears setuid and file capabilities, so it comes first.
        if self.owners:
            os.fchown(fd, member.uid, member.gid)
        # Without the rights of root, what is to go below a directory takes more than the directory may allow.
        needed = 0 if self.owners or not member.isdir() else 0o700
        os.fchmod(fd, member.mode & self.mode_bits | needed)
        for name, value in xattrs.kept(member.pax_headers):
            if name == xattrs.DEFAULT_ACL:
                self._keep_default_acl(parts, value, member)
            else:
                set_xattr(fd, name, value)

    def _keep_default_acl(self, parts: Parts, value: bytes, member: Member) -> None:
        # Set at the end: files made below it meanwhile would inherit it.
        if len(self._default_acls) >= MAX_DEFAULT_ACLS:
            raise refuse(member, f"is one of more than {MAX_DEFAULT_ACLS} directories with default ACLs")
        if member.isdir():
            self._default_acls.append((parts, value))

    def _set_default_acls(self) -> None:
        for parts, value in self._default_acls:
            try:
                set_xattr(self._tree.enter(parts), xattrs.DEFAULT_ACL, value)
            except SyscontError as error:
                raise type(error)(f"archive member {show_parts(parts)}: {error.message}", error.hint) from error


def set_xattr(fd: int, name: bytes, value: bytes) -> None:
    """Set it; user attributes and ACLs are left out where the file system, or the system, has none of them."""
    if not hasattr(os, "setxattr"):
        return
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and name != xattrs.CAPABILITY:
            return
        raise InvalidError(f"its extended attribute {show(name)} can't be stored: {error.strerror}") from error


def _times(member: Member) -> tuple[int, int]:
    """Access and modification time in nanoseconds; odd ones become the epoch."""
    seconds = float(member.mtime)
    value = int(seconds * 1e9) if math.isfinite(seconds) and 0 <= seconds < 1 << 33 else 0
    return value, value
