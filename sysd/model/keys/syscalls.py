# SPDX-License-Identifier: Apache-2.0
"""Which system calls a guest may make."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.syscalls import check_allow, check_deny
from sysd.model.values import anything, boolean

_ALLOW = "The only system calls that the guest may make, a line each, in LXC's grammar. The others kill who makes them."
_DENY = "System calls that the guest may not make, a line each, in LXC's grammar: 'mount errno 1'."
_DENY_DEFAULT = "Deny what no container should do: forced umounts, kexec, modules, open_by_handle_at."
_DENY_COMPAT = "Deny all system calls of other architectures than the host's own, such as those of 32-bit programs."
_MAKER = (
    "calls are judged by the kernel alone, by a filter that can't follow a pointer; to make a call in a guest's "
    "place takes a process of the host's that stays behind it, and syscont has none."
)
_INTERCEPT = {
    "mknod": f"{_MAKER} A device node is given by a device of type unix-char or unix-block; whiteouts of "
    "overlayfs can be made in any guest.",
    "setxattr": f"{_MAKER} overlayfs in a guest works without, by its mount option userxattr.",
    "mount": f"{_MAKER} The kernel's file systems are not made to read disks that a guest has written; the host "
    "can mount one to be trusted, and a device of type disk shows it.",
    "mount.allowed": "see security.syscalls.intercept.mount.",
    "mount.fuse": "see security.syscalls.intercept.mount; any guest can mount FUSE file systems, as of fuse2fs.",
    "mount.shift": "see security.syscalls.intercept.mount.",
    "bpf": f"{_MAKER} A guest's device policy is that of its unit, and that of all containers in it.",
    "bpf.devices": "see security.syscalls.intercept.bpf.",
    "sched_setscheduler": f"{_MAKER} limits.kernel.rtprio lets a guest have real-time priorities.",
    "sysinfo": f"{_MAKER} What a guest may use of the memory is in its own cgroup.",
}

KEYS = (
    Key("security.syscalls.allow", check_allow, "", _ALLOW, multiline=True),
    Key("security.syscalls.deny", check_deny, "", _DENY, multiline=True),
    Key("security.syscalls.deny_default", boolean, "true", _DENY_DEFAULT),
    Key("security.syscalls.deny_compat", boolean, "false", _DENY_COMPAT),
    Key("security.syscalls.whitelist", check_allow, "", "Old name of security.syscalls.allow.", multiline=True),
    Key("security.syscalls.blacklist", check_deny, "", "Old name of security.syscalls.deny.", multiline=True),
    Key("security.syscalls.blacklist_default", boolean, "true", "Old name of security.syscalls.deny_default."),
    Key("security.syscalls.blacklist_compat", boolean, "false", "Old name of security.syscalls.deny_compat."),
    *(
        Key(f"security.syscalls.intercept.{name}", anything, "", "Make the call in the guest's place.", refused=why)
        for name, why in _INTERCEPT.items()
    ),
)
