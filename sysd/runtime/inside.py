# SPDX-License-Identifier: Apache-2.0
"""How a worker of ours gets into an instance's tree, running or not: with that tree as its "/", and as its root.

For a running guest that is its own mount and user namespace, for a stopped one a new mount of its layers in a mount
namespace of the worker's own. Either way nothing of the host is left in view but the descriptors that the worker
holds, and its rights are the guest's root's: what the guest has put in the way of a path can lead to nothing that the
guest could not reach itself. The worker stays in the host's pid namespace, where a guest can neither see nor stop it.

Irrevocable, and for a process with one thread only. Source: setns(2), pivot_root(2) NOTES.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from sysd import _cext as c
from sysd.runtime.apparmor import enter
from sysd.runtime.spec import LAUNCH_DIR


@dataclass(frozen=True, slots=True)
class Running:
    """By the descriptor of the guest's PID 1. privileged: it has no user namespace of its own. profile: the guest's of
    AppArmor, which may be empty."""

    pidfd: int
    privileged: bool
    profile: str = ""

    def enter(self) -> None:
        door = enter.open_door() if self.profile else -1
        c.setns(self.pidfd, c.CLONE_NEWNS if self.privileged else c.CLONE_NEWUSER | c.CLONE_NEWNS)
        os.close(self.pidfd)
        _become_its_root()
        if self.profile:
            enter.go_through(door, self.profile)


@dataclass(frozen=True, slots=True)
class Stopped:
    """By its layers, as in the launcher's spec. The caller holds their lock exclusively (sysd.runtime.layers)."""

    name: str
    rootfs: str
    state_dir: str
    id_base: int
    uid_map: str
    gid_map: str
    privileged: bool

    def enter(self) -> None:
        userns = -1 if self.privileged else c.new_userns(self.uid_map, self.gid_map)
        c.unshare(c.CLONE_NEWNS)
        root_dir = os.open("/", os.O_PATH | os.O_DIRECTORY)
        c.mount_attributes(root_dir, propagation=c.MS_SLAVE, recursive=True)
        os.close(root_dir)
        os.close(c.mount_layers(self.name, self.rootfs, self.state_dir, self.id_base, userns))
        os.chdir(f"{LAUNCH_DIR}/root")
        c.pivot_root()
        os.chdir("/")
        if userns >= 0:
            c.setns(userns, c.CLONE_NEWUSER)
            os.close(userns)
        _become_its_root()


Way = Running | Stopped


def to_message(way: Way) -> dict[str, Any]:
    """As JSON for a worker's command line; descriptors keep their numbers."""
    return {type(way).__name__: asdict(way)}


def from_message(message: dict[str, Any]) -> Way:
    if "Running" in message:
        return Running(**message["Running"])
    return Stopped(**message["Stopped"])


def _become_its_root() -> None:
    """From here on the guest's files are in view: no module may ever be loaded from them."""
    sys.path.clear()
    sys.meta_path.clear()
    c.set_ids(0, 0)
    if os.getresuid() != (0, 0, 0) or os.getresgid() != (0, 0, 0):
        raise PermissionError("the guest's root can't be become")
