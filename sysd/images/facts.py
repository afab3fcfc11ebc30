# SPDX-License-Identifier: Apache-2.0
"""What an unpacked tree is, and what is changed in it so that instances of it get an identity of their own."""

from __future__ import annotations

import errno
import os
import stat

from sysd.archive.tree import Parts, directory, lstat, open_directory, resolve
from sysd.model.errors import InvalidError
from sysd.model.image import Init

NEEDED_DIRECTORIES = (b"dev", b"proc", b"run", b"sys", b"tmp")
_INIT = b"sbin/init"
_EXECUTABLE = 0o111


def find_init(root: int) -> Init:
    """What runs as PID 1 in the tree below descriptor root; raises InvalidError when nothing can."""
    found = resolve(root, _INIT)
    if found is None:
        raise InvalidError("the image has no init", "/sbin/init is missing, or is a link that leads nowhere")
    parts, info = found
    if not stat.S_ISREG(info.st_mode) or not info.st_mode & _EXECUTABLE:
        raise InvalidError("the image has no init", "/sbin/init is not a program")
    return _kind(parts)


def _kind(parts: Parts) -> Init:
    if parts[-2:] == (b"systemd", b"systemd"):
        return Init.SYSTEMD
    return Init.BUSYBOX if parts[-1] == b"busybox" else Init.OTHER


def normalise(root: int) -> None:
    """Make the mount points, and take the builder's host name and machine id out."""
    make_mount_points(root)
    forget_identity(root)


def make_mount_points(root: int) -> None:
    for name in NEEDED_DIRECTORIES:
        _ensure_directory(root, name)


def forget_identity(root: int) -> None:
    """Take host name and machine id out of a tree, or out of a layer of one; raises InvalidError when its /etc is
    something else than a directory."""
    if lstat(b"etc", root) is None:
        return
    try:
        with directory(root, (b"etc",)) as etc:
            _forget(etc)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise InvalidError("/etc of the image is not a directory") from error


def _ensure_directory(root: int, name: bytes) -> None:
    info = lstat(name, root)
    if info is None:
        os.mkdir(name, dir_fd=root)
        fd = open_directory(name, root)
        try:
            os.fchmod(fd, 0o1777 if name == b"tmp" else 0o755)
        finally:
            os.close(fd)
    elif not stat.S_ISDIR(info.st_mode):
        raise InvalidError(f"/{name.decode()} of the image is not a directory")


def _forget(etc: int) -> None:
    if _is_file(b"hostname", etc):
        os.unlink(b"hostname", dir_fd=etc)
    if _is_file(b"machine-id", etc):
        # A new file, in case the old one has other links. Empty means: not a first boot, see machine-id(5).
        os.unlink(b"machine-id", dir_fd=etc)
        fd = os.open(b"machine-id", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=etc, mode=0o444)
        try:
            os.fchmod(fd, 0o444)
        finally:
            os.close(fd)


def _is_file(name: bytes, parent: int) -> bool:
    info = lstat(name, parent)
    return info is not None and stat.S_ISREG(info.st_mode)
