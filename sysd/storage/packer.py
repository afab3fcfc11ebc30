# SPDX-License-Identifier: Apache-2.0
"""The unit that packs archives of root file systems (sysd.storage.pack) or disks (sysd.storage.pack_disks): what it is
told, and what it may do."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from dbus_next import Variant

from sysd.units import helper
from sysd.units.systemd import Properties

_PROGRAM = ("/usr/bin/python3", "-I", "-m")
CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN = 2, 21
TIME_LIMIT = 24 * 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """See sysd.storage.pack."""

    members: Sequence[str]
    first: str = ""
    files: dict[str, str] = field(default_factory=dict)
    trees: dict[str, list[str]] = field(default_factory=dict)
    compress: str = ""

    def layers(self) -> list[str]:
        return sorted({layer for layers in self.trees.values() for layer in layers})

    def sandbox(self) -> Properties:
        """It reads all of some layers, mounts them in a mount namespace of its own, and nothing else."""
        return {
            **_sandbox(self.layers()),
            "CapabilityBoundingSet": Variant("t", 1 << CAP_DAC_READ_SEARCH | 1 << CAP_SYS_ADMIN),
            "SystemCallFilter": Variant("(bas)", [True, ["@system-service", "@mount"]]),
        }

    def command(self) -> Sequence[str]:
        return (*_PROGRAM, "sysd.storage.pack")


@dataclass(frozen=True, slots=True)
class RestPlan(Plan):
    """See sysd.storage.pack_rest."""

    rest: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    since: int = 0

    def layers(self) -> list[str]:
        return sorted({layer for layers in (*self.trees.values(), self.rest) for layer in layers})

    def command(self) -> Sequence[str]:
        return (*_PROGRAM, "sysd.storage.pack_rest")


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """See sysd.storage.pack_disks."""

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    disks: dict[str, tuple[str, str]] = field(default_factory=dict)
    compress: str = ""

    def sandbox(self) -> Properties:
        """It reads some files, and nothing else."""
        read = {*self.copies.values(), *(path for disk in self.disks.values() for path in disk)}
        return {**_sandbox(sorted(read)), "CapabilityBoundingSet": Variant("t", 1 << CAP_DAC_READ_SEARCH)}

    def command(self) -> Sequence[str]:
        return (*_PROGRAM, "sysd.storage.pack_disks")


def open_plan(plan: Plan | DiskPlan) -> int:
    """A descriptor to read it from, the caller's to close."""
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "w") as stream:
        json.dump(asdict(plan), stream)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def packer(unit: str, description: str, plan: Plan | DiskPlan, stdin: int) -> helper.Helper:
    return helper.Helper(unit, description, plan.command(), plan.sandbox(), stdin=stdin)


def _sandbox(paths: Sequence[str]) -> Properties:
    return {
        **helper.hardened(),
        "TemporaryFileSystem": Variant("a(ss)", [[path, "mode=0755,ro"] for path in ("/run", "/var/lib")]),
        "BindReadOnlyPaths": Variant("a(ssbt)", [[path, path, False, 0] for path in paths]),
        "PrivateNetwork": Variant("b", True),
        "RestrictAddressFamilies": Variant("(bas)", [True, []]),
        "InaccessiblePaths": Variant("as", helper.SECRETS),
        "TasksMax": Variant("t", 64),
        "TimeoutStartUSec": Variant("t", TIME_LIMIT * 1_000_000),
    }
