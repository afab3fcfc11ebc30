# SPDX-License-Identifier: Apache-2.0
"""The lock that keeps a second mount of an instance's layers away.

Source: overlayfs.rst ("Sharing and copying layers": two mounts with one upper folder have no defined behaviour).
"""

from __future__ import annotations

import fcntl
import os


def open_layers(state_dir: str) -> int:
    """The folder that the lock is on: shared by those who work in a running guest, exclusive for a mount."""
    return os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def try_lock(layers: int, how: int) -> bool:
    """Take the lock (LOCK_SH or LOCK_EX) if it is free. It is held as long as the descriptor, or a copy of it that
    another process got, is open."""
    try:
        fcntl.flock(layers, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
