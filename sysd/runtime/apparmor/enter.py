# SPDX-License-Identifier: Apache-2.0
"""How a process of ours gets into a guest's AppArmor profile: a worker before it looks at the
guest's files. The launcher and the service that runs commands do the same in C.

Always through a /proc of the host's or of our own making: what is written to one that a guest has arranged may end in
a file of the guest's.

Source: proc_pid_attr_write() in the kernel's fs/proc/base.c, apparmor_setprocattr() in security/apparmor/lsm.c.
"""

from __future__ import annotations

import os

_ATTRIBUTES = "/proc/thread-self/attr/apparmor"


def open_door() -> int:
    """For go_through(): to be opened while a /proc to be trusted is in view, by the thread that is to use it."""
    return os.open(f"{_ATTRIBUTES}/current", os.O_WRONLY | os.O_CLOEXEC)


def go_through(door: int, profile: str) -> None:
    """Enter a profile now and for good. Closes the door."""
    try:
        os.write(door, f"changeprofile {profile}".encode())
    except FileNotFoundError:
        why = f"AppArmor has no profile {profile} any more: 'systemctl reload apparmor' loads it"
        raise FileNotFoundError(why) from None
    finally:
        os.close(door)
