# SPDX-License-Identifier: Apache-2.0
"""How a process of ours gets into a guest's AppArmor profile: the launcher as it executes the guest's init, a worker
before it looks at the guest's files.

Always through a /proc of the host's or of our own making: what is written to one that a guest has arranged may end in
a file of the guest's. As this is on the path of every start, imports stay few.

Source: proc_pid_attr_write() in the kernel's fs/proc/base.c, apparmor_setprocattr() in security/apparmor/lsm.c.
"""

from __future__ import annotations

import posix as os

from sysd.runtime.beneath import LaunchError

_ATTRIBUTES = "/proc/thread-self/attr/apparmor"


def at_exec(profile: str) -> None:
    """Have this thread's next exec enter a profile."""
    _write(os.open(f"{_ATTRIBUTES}/exec", os.O_WRONLY | os.O_CLOEXEC), "exec", profile)


def open_door() -> int:
    """For go_through(): to be opened while a /proc to be trusted is in view, by the thread that is to use it."""
    return os.open(f"{_ATTRIBUTES}/current", os.O_WRONLY | os.O_CLOEXEC)


def go_through(door: int, profile: str) -> None:
    """Enter a profile now and for good. Closes the door."""
    _write(door, "changeprofile", profile)


def _write(attribute: int, how: str, profile: str) -> None:
    try:
        os.write(attribute, f"{how} {profile}".encode())
    except FileNotFoundError:
        raise LaunchError(f"AppArmor has no profile {profile} any more: 'systemctl reload apparmor' loads it") from None
    finally:
        os.close(attribute)
