# SPDX-License-Identifier: Apache-2.0
"""What an instance takes, and how it runs, as it is when somebody asks. None is what nobody can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = int | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. current: what the guest uses; of a virtual machine by its own word. limit: the most that it may. host and
    peak: what all that runs it takes of the host now, and took at most; of a container host is current."""

    current: Number = None
    peak: Number = None
    limit: Number = None
    swap: Number = None
    host: Number = None


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes. used: what it takes of the host beside its image; size: the most that it may, or that its guest sees.
    read and written since the start; a container's root has those of all its disks."""

    used: Number = None
    size: Number = None
    read: Number = None
    written: Number = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of an interface since it was made, as its guest counts it. link: the host's end, if it has one."""

    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int
    link: str = ""


@dataclass(frozen=True, slots=True)
class MachineUsage:
    """How a virtual machine runs. accelerator: kvm, or tcg for one that is emulated, which why says the reason of.
    boot: uefi, or direct without firmware. cid: its address on vsock, 0 for none. agent: whether one is there.
    processors: how many it has. cookies: by cookie of core scheduling, on how many of them it is."""

    accelerator: str
    why: str = ""
    boot: str = ""
    secure_boot: bool = False
    cid: int = 0
    agent: bool = False
    processors: Number = None
    cookies: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceUsage:
    """cpu: nanoseconds of processors' time. tasks: processes and threads on the host. disks and interfaces are named
    after their devices. machine: None for containers, and for what does not run."""

    cpu: Number = None
    memory: Memory = Memory()
    tasks: Number = None
    disks: Mapping[str, Disk] = field(default_factory=dict)
    interfaces: Mapping[str, Traffic] = field(default_factory=dict)
    machine: MachineUsage | None = None
