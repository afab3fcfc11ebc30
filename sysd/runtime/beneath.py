# SPDX-License-Identifier: Apache-2.0
"""Folders, files and mounts in a guest's tree, as the launcher makes them: by descriptors that follow no links."""

from __future__ import annotations

import posix as os

from sysd import _cext as c


class LaunchError(Exception):
    pass


def beneath(root: int, path: str) -> int:
    """The directory path in the guest's tree, made when missing; a link on the way is refused."""
    flags = os.O_PATH | os.O_DIRECTORY
    resolve = c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS
    try:
        return c.openat2(root, path, flags, resolve)
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        at = beneath(root, parent) if parent else root
        os.mkdir(name, 0o755, dir_fd=at)
        return c.openat2(root, path, flags, resolve)
    except OSError as error:
        raise LaunchError(f"/{path} of the instance is not a plain directory: {error.strerror}") from None


def mount_point(root: int, name: str) -> int:
    """The top-level directory for one of the file systems that a guest can't run without. A link that the guest has
    left in its place is removed: it would not start ever again, and the link leads to nothing that it could see."""
    try:
        os.readlink(name, dir_fd=root)
    except OSError:  # no link, or nothing
        return beneath(root, name)
    os.unlink(name, dir_fd=root)
    return beneath(root, name)


def exists_at(directory: int, name: str) -> bool:
    """Whether there is anything of that name, be it a link to nothing."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def mount_tmpfs(id_base: int, at: int, mode: str, size: str) -> int:
    """Mount a new tmpfs of the guest's root's on the directory at; returns its root."""
    owner = str(id_base)
    mount = c.new_mount(
        "tmpfs",
        {"source": "tmpfs", "mode": mode, "uid": owner, "gid": owner, "size": size},
        c.ATTR_NOSUID,
    )
    c.move_mount(mount, at)
    return mount


def write_at(directory: int, name: str, data: bytes, mode: int = 0o444) -> None:
    """Make a file that is not there yet."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
