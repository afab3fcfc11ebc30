# SPDX-License-Identifier: Apache-2.0
"""What the launcher is told: one JSON file per instance in /run/syscont, readable by root only.

It holds all that a start needs, so that a guest's reboot (systemd runs the launcher again)
works while the daemon is away.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

RUNTIME_DIR = Path("/run/syscont")
SPEC_DIR = RUNTIME_DIR / "instances"
HANDOVER_SOCKET = RUNTIME_DIR / "handover"
LAUNCH_DIR = RUNTIME_DIR / "launch"

NETNS_FD = 100
"""The number at which the launcher holds the guest's network namespace while it replays host_links."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """host_links are rtnetlink requests (hex) for the host, guest_links for the guest's namespace. sysctls are by
    path beneath /proc/sys, credentials are base64 by name, seed has cloud-init's files. lxd_socket: /dev/lxd/sock is
    there, too."""

    uuid: str
    name: str
    id_base: int
    rootfs: str
    state_dir: str
    waits_for_guest: bool
    environment: dict[str, str] = field(default_factory=dict)
    host_links: list[str] = field(default_factory=list)
    guest_links: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    core_scheduling: bool = False
    credentials: dict[str, str] = field(default_factory=dict)
    seed: dict[str, str] = field(default_factory=dict)
    lxd_socket: bool = True

    @property
    def path(self) -> Path:
        return spec_path(self.uuid)

    def write(self) -> None:
        """Replace the file atomically."""
        SPEC_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as stream:
            json.dump(asdict(self), stream)
        draft.replace(self.path)


def spec_path(uuid: str) -> Path:
    return SPEC_DIR / f"{uuid}.json"
