# SPDX-License-Identifier: Apache-2.0
"""An instance's tree, put together from its layers; and the lock that keeps a second mount of them away.

For the launcher, and for whoever works on the files of a stopped instance (sysd.runtime.inside). As on the path of
every start, imports stay few. Source: overlayfs.rst ("Sharing and copying layers": two mounts with one upper folder
have no defined behaviour).
"""

from __future__ import annotations

import fcntl
import posix as os
import time

from sysd import _cext as c
from sysd.runtime.beneath import LaunchError

LAUNCH_DIR = "/run/syscont/launch"
PATIENCE = 5.0
"""Seconds that a launcher waits for the layers: workers of the guest's last run end with it, but not at once."""
_PAUSE = 0.02


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


def lock_layers(state_dir: str) -> int:
    """Take the lock for a mount that outlives this process; held until the descriptor is closed."""
    layers = open_layers(state_dir)
    deadline = time.monotonic() + PATIENCE
    while not try_lock(layers, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise LaunchError("its files are being worked on: 'syscont operation list' shows by what")
        time.sleep(_PAUSE)
    return layers


def mount_layers(name: str, rootfs: str, state_dir: str, id_base: int, userns: int) -> int:
    """The overlay of the image and the instance's own layer, both shifted into the user namespace; its root. userns is
    negative for a privileged guest, which has none.

    The caller has a mount namespace of its own, in which fixed places serve: layers must be attached before an overlay
    can use them (until Linux 6.15). From then on it touches files as the guest's root.
    """
    for source, place_name in ((rootfs, "image"), (state_dir, "state")):
        tree = c.open_tree(source)
        if userns >= 0:
            c.idmap_mount(tree, userns)
        place = os.open(f"{LAUNCH_DIR}/{place_name}", os.O_PATH | os.O_DIRECTORY)
        c.move_mount(tree, place)
    # What overlayfs makes in its work folder is owned by whoever mounts: that must be an id of the guest's.
    c.set_fs_ids(id_base, id_base)
    overlay = c.new_mount(
        "overlay",
        {
            "source": name,
            "lowerdir": f"{LAUNCH_DIR}/image",
            "upperdir": f"{LAUNCH_DIR}/state/upper",
            "workdir": f"{LAUNCH_DIR}/state/work",
            "redirect_dir": "on",
            # Layers are copied (snapshots): with an index, the kernel would take a copy for a damaged one.
            "index": "off",
        },
    )
    place = os.open(f"{LAUNCH_DIR}/root", os.O_PATH | os.O_DIRECTORY)
    c.move_mount(overlay, place)
    return os.open(f"{LAUNCH_DIR}/root", os.O_PATH | os.O_DIRECTORY)
