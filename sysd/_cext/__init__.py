# SPDX-License-Identifier: Apache-2.0
"""System calls that Python's standard library lacks, typed. Each raises OSError as os.* does.

Sources: mount_setattr(2), fsopen(2), move_mount(2), openat2(2), setns(2), clone(2), user_namespaces(7), quotactl(2),
FS_IOC_FSSETXATTR(2const), process_madvise(2).
"""

from __future__ import annotations

import posix as os

from sysd._cext._native import ffi as _ffi
from sysd._cext._native import lib as _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_NOSYMFOLLOW = 0x200000

MS_SLAVE = 1 << 19

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


def move_mount(mount: int, to_fd: int, to: str = "") -> None:
    """Attach a detached mount at the directory to_fd, or at path to beneath it."""
    _checked(_lib.sc_move_mount(mount, to_fd, to.encode()), f"move_mount {to}")


def mount_attributes(
    dir_fd: int, path: str = "", *, attributes: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    _checked(
        _lib.sc_mount_attributes(dir_fd, path.encode(), attributes, propagation, recursive),
        f"mount_setattr {path}",
    )


def new_mount(fs_type: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
    """A detached mount of a new file system; an option with value None is a flag."""
    flat = [_ffi.new("char[]", word.encode()) for key, value in options.items() for word in (key, value or "")]
    return _checked(_lib.sc_new_mount(fs_type.encode(), [*flat, _ffi.NULL], attributes), f"mount {fs_type}")


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


def mount_layers(name: str, rootfs: str, state_dir: str, id_base: int, userns: int) -> int:
    """The overlay of an image and an instance's own layer, both shifted into the user namespace; its root. userns is
    negative for a privileged guest, which has none.

    The caller has the layers' lock, and a mount namespace of its own, in which fixed places serve. From then on it
    touches files as the guest's root.
    """
    what = _ffi.new("const char **")
    words = [_ffi.new("char[]", word.encode()) for word in (name, rootfs, state_dir)]  # *what is one of them
    root = _lib.sc_mount_layers(*words, id_base, userns, what)
    return _checked(root, _ffi.string(what[0]).decode() if what[0] else "layers")


def new_userns(uid_map: str, gid_map: str) -> int:
    """A user namespace of these maps, as /proc/PID/uid_map takes them."""
    return _checked(_lib.sc_userns(uid_map.encode(), gid_map.encode()), "new user namespace")


def core_cookie(pid: int) -> int:
    """What tells those that pid shares cores with from all others, 0 when it does so with everyone."""
    cookie = _ffi.new("uint64_t *")
    _checked(_lib.sc_core_cookie(pid, cookie), "core scheduling")
    return int(cookie[0])


def share_core_cookie(source: int, target: int) -> None:
    """Give a task the cookie of another, and the calling thread as well."""
    _checked(_lib.sc_share_core_cookie(source, target), "core scheduling")


def page_out(pidfd: int, ranges: Sequence[tuple[int, int]]) -> None:
    """Have what a process maps leave memory until it is touched again; of each range the address and the bytes."""
    numbers = _ffi.new("uint64_t[]", [number for both in ranges for number in both])
    _checked(_lib.sc_page_out(pidfd, numbers, len(ranges)), "process_madvise")


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
