# SPDX-License-Identifier: Apache-2.0
"""What the launcher of virtual machines is told (sysd/_cext/launch/machine.c): the file of LaunchSpec, of another form.

It holds all that a start needs, so that systemctl starts a machine while the daemon is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sysd.runtime.spec import RUNTIME_DIR, read_spec, spec_path, write_spec

VM_DIR = RUNTIME_DIR / "vm"
"""Sockets of machines, for root only."""

FIRST_FD = 10


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Something that the launcher opens for QEMU, which has it under the number fd.

    kind: file (path, write), tap (name), macvtap (name, and data, the request that makes it), vfio (name, the address
    of a PCI function), listen and connect (path, of a stream socket), stream (the other end goes to the daemon under
    the name hand), memory (data, in hex)."""

    fd: int
    kind: str
    path: str = ""
    write: bool = False
    name: str = ""
    hand: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """What makes of a start that the machine goes on: the number that QEMU has the file under in which its memory is,
    further arguments, and as in MachineSpec."""

    fd: int
    arguments: list[str]
    prepare: list[dict[str, Any]]
    incoming: str


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """owner: user and group that QEMU runs as. pins: by number of a processor of the guest's the host's that may run
    it, none for all. arguments: QEMU's. qmp: the socket on which the launcher, and what stops the machine, speak to it;
    the daemon has another. incoming: where the memory of a machine that goes on comes from, as QEMU says it; prepare
    are commands before that. resume: what is done in place of these when the machine's memory was kept. nodes: devices
    that QEMU opens by name; functions: IOMMU groups, by PCI function, that it does so. host_links: as in LaunchSpec.
    memory and most_memory, cpus and most_cpus: as in hardware.Machine. parts: what the machine's devices are made of,
    for later changes. arrives: it waits for one that comes here (sysd.runtime.vm.moving), and is not run. emulated: why
    KVM does not run it, empty where it does. boot: direct or uefi, which starts what is signed only if secure_boot.
    virtual: as in LaunchSpec. fixed: what was configured and is so to its end (sysd.runtime.vm.state)."""

    uuid: str
    name: str
    state_dir: str
    owner: int
    waits_for_guest: bool
    core_scheduling: bool
    pins: list[list[int]]
    program: str
    arguments: list[str]
    qmp: str
    descriptors: list[Descriptor]
    nodes: list[str] = field(default_factory=list)
    host_links: list[str] = field(default_factory=list)
    prepare: list[dict[str, Any]] = field(default_factory=list)
    incoming: str = ""
    cid: int = 0
    memory: int = 0
    most_memory: int = 0
    cpus: int = 1
    most_cpus: int = 1
    resume: Resume | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    emulated: str = ""
    boot: str = ""
    secure_boot: bool = False
    functions: dict[str, str] = field(default_factory=dict)
    arrives: bool = False
    virtual: str = ""
    fixed: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return spec_path(self.uuid)

    def write(self) -> None:
        """Replace the file atomically."""
        write_spec(self.uuid, asdict(self))


def read(uuid: str) -> Mapping[str, Any] | None:
    """How a machine was launched; None when that is not known."""
    try:
        found = read_spec(uuid)
    except (OSError, ValueError):
        return None
    return found if "parts" in found else None


def rewrite_parts(uuid: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """What the devices of a running machine are made of by now."""
    write_spec(uuid, {**read_spec(uuid), "parts": parts})


def sockets_of(uuid: str) -> Sequence[Path]:
    return [VM_DIR / f"{uuid}.{name}" for name in ("qmp", "control", "agent")]


def dumps(value: Mapping[str, Any]) -> str:
    """As QEMU's options take it (qemu-qmp-ref(7))."""
    return json.dumps(value, separators=(",", ":"))
