# SPDX-License-Identifier: Apache-2.0
"""Images: named by the SHA-256 of what was imported or built."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from sysd.model.instance import Kind
from sysd.model.templates import Template


class Init(StrEnum):
    """What runs as PID 1: decides which signal means power off, and whether the guest says when it has booted."""

    SYSTEMD = "systemd"
    BUSYBOX = "busybox"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Image:
    """size is that of the unpacked tree in bytes, or what a disk takes on the host; created and imported are
    microseconds since the epoch. own: it was made for an instance that was imported, and goes with the last one that
    uses it.

    Of a virtual machine's: disk_size is how many bytes its disk has for the guest; kernel_command is what its kernel is
    started with where it is started without firmware, empty when the image has no kernel beside its disk."""

    fingerprint: str
    architecture: str
    init: Init
    size: int
    description: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    created: int = 0
    imported: int = field(default_factory=lambda: time.time_ns() // 1000)
    templates: list[Template] = field(default_factory=list)
    own: bool = False
    kind: Kind = Kind.CONTAINER
    disk_size: int = 0
    kernel_command: str = ""
