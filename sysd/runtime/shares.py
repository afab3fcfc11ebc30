# SPDX-License-Identifier: Apache-2.0
"""What of the host is shown in a guest's tree: folders and files (disks), and device nodes.

Always in three steps, when a guest starts as well as while it runs:

    prepare   as the host's root, in a mount namespace of our own: each one is mounted at a numbered place
    collect   with the guest's user namespace entered, in a copy of that mount namespace: when it is copied the kernel
              locks the mounts' attributes, so that no guest can make a read-only one writable (mount_namespaces(7))
    attach    in the guest's own mount namespace, with no more rights than its root has

In the copy each mount is also locked in its place; a clone of it, which collect gives, is not, so that it can be taken
away while the guest runs. Nodes are made in a tmpfs of ours: no file system of the guest's ever holds one.

Imports stay few: the launcher is among the users.
"""

from __future__ import annotations

import os
import stat

from sysd import _cext as c
from sysd.runtime.beneath import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypedDict

    class Share(TypedDict):
        """sysd.runtime.spec.Share as it comes out of JSON."""

        device: str
        path: str
        source: str
        required: bool
        recursive: bool
        shift: bool
        slave: bool
        attributes: int
        node: str
        number: tuple[int, int]
        mode: int
        owner: tuple[int, int]


PLACES = "/run/syscont/launch/devices"
OURS = ("/var/lib/syscont/", "/run/syscont/")
SOCKETS = "/run/syscont/proxies/"
"""The one place of ours that is shown in guests: sockets of proxies."""

_KINDS = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}
_INSIDE = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS


def prepare(shares: Sequence[Share], userns: int, id_base: int) -> None:
    """Mount each at its place. One that is not there and not required has none. userns is negative for a privileged
    guest, to which nothing is shifted."""
    places = c.new_mount("tmpfs", {"source": "syscont", "mode": "0755"}, c.ATTR_NOSUID | c.ATTR_NOEXEC)
    c.move_mount(places, os.open(PLACES, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    for number, share in enumerate(shares):
        if share["node"]:
            _make_node(places, str(number), share, id_base)
        else:
            _bind(places, str(number), share, userns)


def _make_node(places: int, name: str, share: Share, id_base: int) -> None:
    uid, gid = share["owner"]
    os.mknod(name, _KINDS[share["node"]], os.makedev(*share["number"]), dir_fd=places)
    os.chmod(name, share["mode"], dir_fd=places)
    os.chown(name, id_base + uid, id_base + gid, dir_fd=places)


def _bind(places: int, name: str, share: Share, userns: int) -> None:
    try:
        source = _open_source(share)
    except FileNotFoundError:
        if share["required"]:
            raise LaunchError(f"device {share['device']}: {share['source']} is not there") from None
        return
    recursive = share["recursive"]
    tree = c.open_tree(f"/proc/self/fd/{source}", c.OPEN_TREE_CLONE | (c.AT_RECURSIVE if recursive else 0))
    if share["shift"] and userns >= 0:
        try:
            c.idmap_mount(tree, userns, recursive=recursive)
        except OSError as error:
            raise LaunchError(f"device {share['device']}: {share['source']} can't be shifted: {error}") from None
    propagation = c.MS_SLAVE if share["slave"] else c.MS_PRIVATE
    c.mount_attributes(tree, attributes=share["attributes"], propagation=propagation, recursive=recursive)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.mkdir(name, 0o700, dir_fd=places)
    else:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=places))
    c.move_mount(tree, os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=places))


def _open_source(share: Share) -> int:
    """The source on the host. What is ours is shown to no guest, whatever path or link leads there."""
    source = c.openat2(-100, share["source"], os.O_PATH, c.RESOLVE_NO_MAGICLINKS)
    real = os.readlink(f"/proc/self/fd/{source}") + "/"
    if real.startswith(OURS) and not real.startswith(SOCKETS):
        raise LaunchError(f"device {share['device']}: {share['source']} is syscont's own")
    return source


def collect(shares: Sequence[Share]) -> list[tuple[Share, int]]:
    """Detached clones of those that have a place."""
    found = []
    for number, share in enumerate(shares):
        try:
            found.append((share, c.open_tree(f"{PLACES}/{number}", c.OPEN_TREE_CLONE | c.AT_RECURSIVE)))
        except FileNotFoundError:
            continue
    return found


def attach(collected: Sequence[tuple[Share, int]], root: int) -> None:
    """Show them beneath root, the guest's. The caller has the rights of the guest's root, and no more."""
    for share, tree in collected:
        target = within(root, share["path"], directory=stat.S_ISDIR(os.fstat(tree).st_mode), what=share["device"])
        c.move_mount(tree, target)
        os.close(target)
        os.close(tree)


def within(root: int, path: str, *, directory: bool, what: str) -> int:
    """The folder or file at path in the guest's tree, made when missing. Links of the guest's are followed as the
    guest itself would, and none leads out of its root."""
    try:
        return c.openat2(root, path, os.O_PATH, _INSIDE)
    except FileNotFoundError:
        pass
    *parents, name = (word for word in path.split("/") if word)
    try:
        at, prefix = root, ""
        for word in parents:
            prefix = f"{prefix}/{word}"
            at = _folder(root, prefix, at, word)
        if directory:
            os.mkdir(name, 0o755, dir_fd=at)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=at))
        return c.openat2(at, name, os.O_PATH, c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise LaunchError(f"device {what}: there is no place for it at {path} of the instance: {error}") from None


def _folder(root: int, path: str, at: int, name: str) -> int:
    """The folder at path beneath root; when missing it is made as name in the folder at."""
    try:
        return c.openat2(root, path, os.O_PATH | os.O_DIRECTORY, _INSIDE)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=at)
        return c.openat2(at, name, os.O_PATH | os.O_DIRECTORY, c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS)


def identities(shares: Sequence[Share]) -> Iterator[tuple[int, int]]:
    """What each of them is known by in the guest; (0, 0) for a source that is gone. In the host's view."""
    for share in shares:
        if share["node"]:
            yield (0, os.makedev(*share["number"]))
            continue
        try:
            status = os.stat(share["source"])
            yield (status.st_dev, status.st_ino)
        except OSError:
            yield (0, 0)


def detach(share: Share, identity: tuple[int, int], root: int, proc: int) -> None:
    """Take it away from a guest; proc is the host's /proc. Raises LaunchError when the guest has something else at its
    place: what it has put elsewhere is gone after its next start."""
    try:
        found = c.openat2(root, share["path"], os.O_PATH | os.O_NOFOLLOW, _INSIDE)
    except FileNotFoundError:
        return
    status = os.fstat(found)
    seen = (0, status.st_rdev) if share["node"] else (status.st_dev, status.st_ino)
    if identity != (0, 0) and seen != identity:
        raise LaunchError(f"device {share['device']}: {share['path']} of the instance is something else by now")
    os.fchdir(proc)
    c.unmount(f"self/fd/{found}")
    os.chdir("/")
    os.close(found)
    if share["node"]:
        _remove_placeholder(root, share["path"])


def _remove_placeholder(root: int, path: str) -> None:
    parent, _, name = path.rpartition("/")
    at = c.openat2(root, parent or "/", os.O_PATH | os.O_DIRECTORY, _INSIDE)
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        os.unlink(name, dir_fd=at)
    os.close(at)
