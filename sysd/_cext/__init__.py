# SPDX-License-Identifier: Apache-2.0
"""System calls that Python's standard library lacks, typed. Each raises OSError as os.* does.

Sources: mount_setattr(2), fsopen(2), move_mount(2), openat2(2), setns(2), clone(2), user_namespaces(7), quotactl(2),
FS_IOC_FSSETXATTR(2const).
"""

from __future__ import annotations

import posix as os

from sysd._cext._native import ffi as _ffi
from sysd._cext._native import lib as _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_NOSYMFOLLOW = 0x200000

MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

NETLINK_ROUTE = 0


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(_ffi.errno, f"{what}: {os.strerror(_ffi.errno)}")
    return result


def open_tree(path: str, flags: int = OPEN_TREE_CLONE, dir_fd: int = -100) -> int:
    """A detached copy of the mount at path (with OPEN_TREE_CLONE), or a handle to it."""
    return _checked(_lib.sc_open_tree(dir_fd, path.encode(), flags | OPEN_TREE_CLOEXEC), f"open_tree {path}")


def move_mount(mount: int, to_fd: int, to: str = "") -> None:
    """Attach a detached mount at the directory to_fd, or at path to beneath it."""
    _checked(_lib.sc_move_mount(mount, to_fd, to.encode()), f"move_mount {to}")


def idmap_mount(mount: int, userns: int, *, recursive: bool = False) -> None:
    """Make a detached mount show its files shifted by the user namespace's mapping."""
    _checked(_lib.sc_idmap_mount(mount, userns, recursive), "mount_setattr idmap")


def unmount(path: str) -> None:
    """Take the mount at path away, also when it is in use; a link at path is followed."""
    _checked(_lib.sc_unmount(path.encode()), f"umount {path}")


def mount_attributes(
    dir_fd: int, path: str = "", *, attributes: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    _checked(
        _lib.sc_mount_attributes(dir_fd, path.encode(), attributes, propagation, recursive),
        f"mount_setattr {path}",
    )


def new_mount(fs_type: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
    """A detached mount of a new file system; an option with value None is a flag."""
    fs = _checked(_lib.sc_fsopen(fs_type.encode()), f"fsopen {fs_type}")
    try:
        for key, value in options.items():
            encoded = _ffi.NULL if value is None else value.encode()
            _checked(_lib.sc_fsconfig(fs, key.encode(), encoded), f"{fs_type} option {key}={value}")
        _checked(_lib.sc_fsconfig(fs, _ffi.NULL, _ffi.NULL), f"create {fs_type}")
        return _checked(_lib.sc_fsmount(fs, attributes), f"fsmount {fs_type}")
    finally:
        os.close(fs)


def openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    return _checked(_lib.sc_openat2(dir_fd, path.encode(errors="surrogateescape"), flags, resolve), f"open {path}")


def syncfs(fd: int) -> None:
    """Wait until the file system that fd is on has all that was written to it."""
    _checked(_lib.sc_syncfs(fd), "syncfs")


def unshare(flags: int) -> None:
    _checked(_lib.sc_unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    _checked(_lib.sc_setns(fd, flags), "setns")


def pivot_root() -> None:
    """Make the working directory the root of this mount namespace and let go of the old one."""
    _checked(_lib.sc_pivot_root(), "pivot_root")


def set_ids(uid: int, gid: int) -> None:
    _checked(_lib.sc_set_ids(uid, gid), "setresuid")


def set_fs_ids(uid: int, gid: int) -> None:
    """Touch file systems as uid and gid from now on, with all capabilities kept."""
    _checked(_lib.sc_set_fs_ids(uid, gid), "setfsuid")


def new_userns(uid_map: str, gid_map: str) -> int:
    """A user namespace of these maps, as /proc/PID/uid_map takes them."""
    return _checked(_lib.sc_userns(uid_map.encode(), gid_map.encode()), "new user namespace")


def clone_sibling() -> int:
    """Like os.fork, but the child is a child of this process's parent. Only for a process with one thread."""
    return _checked(_lib.sc_clone_sibling(), "clone")


def bound_capabilities(*, privileged: bool) -> None:
    """Give up for good, for this process and its children, the capabilities that mean the host. privileged: and
    those that a user namespace would take the power from."""
    _checked(_lib.sc_bound_capabilities(privileged), "capability bounding set")


def leave_keyring() -> None:
    """Have a new session keyring, and none of the host's."""
    _checked(_lib.sc_leave_keyring(), "new session keyring")


def install_filter(program: bytes) -> None:
    """Let a compiled filter judge the system calls of this process and its children, from the next one on."""
    _checked(_lib.sc_install_filter(program, len(program)), "seccomp filter")


def new_core_cookie() -> None:
    """Share processor cores with no one, from now on, but with what this process forks; nothing where cores can't
    be kept apart, for want of the kernel's support or of a second thread."""
    _checked(_lib.sc_new_core_cookie(), "core scheduling")


def core_cookie(pid: int) -> int:
    """What tells those that pid shares cores with from all others, 0 when it does so with everyone."""
    cookie = _ffi.new("uint64_t *")
    _checked(_lib.sc_core_cookie(pid, cookie), "core scheduling")
    return int(cookie[0])


def netlink_socket_in(pidfd: int, protocol: int, groups: int) -> int:
    """A non-blocking netlink socket in the network namespace of the process behind pidfd."""
    return _checked(_lib.sc_netlink_in(pidfd, protocol, groups), "netlink socket")


def project_of(fd: int) -> int:
    """The project that a file is counted by; 0 is nobody's."""
    project = _ffi.new("uint32_t *")
    _checked(_lib.sc_get_project(fd, project), "project of a file")
    return int(project[0])


def set_project(folder: int, project: int) -> None:
    """Have a folder, and what is made in it from now on, counted by a project."""
    _checked(_lib.sc_set_project(folder, project), "project of a folder")


def limits_projects(fd: int) -> bool:
    """Whether the file system of fd holds projects to limits."""
    return bool(_checked(_lib.sc_limits_projects(fd), "project quotas"))


def project_quota(fd: int, project: int) -> tuple[int, int]:
    """(bytes in use, most that may be or 0) of a project on the file system of fd."""
    used, limit = _ffi.new("uint64_t *"), _ffi.new("uint64_t *")
    _checked(_lib.sc_project_quota(fd, project, used, limit), "project quota")
    return int(used[0]), int(limit[0])


def limit_project(fd: int, project: int, limit: int) -> None:
    """Let a project take so many bytes, in whole KiB, on the file system of fd; 0 for no limit."""
    _checked(_lib.sc_limit_project(fd, project, limit), "limit of a project")
