# SPDX-License-Identifier: Apache-2.0
"""An instance as it is remembered, and as it is seen."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sysd.model import names

VOLATILE = "volatile."
"""Keys that begin so are what the daemon remembers of an instance; their names are LXD's."""
STATE = f"{VOLATILE}last_state."
"""Among them what is about the run of a guest, and so is no part of a snapshot."""


class Kind(StrEnum):
    CONTAINER = "container"
    VM = "virtual-machine"


class Phase(StrEnum):
    """Where an instance stands between being asked for and being gone; anything but READY is undone or finished.
    ARRIVING: it is all here, and another host has yet to give it up."""

    CREATING = "creating"
    ARRIVING = "arriving"
    READY = "ready"
    DELETING = "deleting"


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    FROZEN = "frozen"
    UNRESPONSIVE = "unresponsive"
    STOPPING = "stopping"
    FAILED = "failed"


RUNS = (State.RUNNING, State.DEGRADED)
"""The guest runs; degraded: a unit beside it, which serves a device of its, has ended, and the guest is without it."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What the store remembers. id_base is the first of the id_count host ids that are its own (sysd.model.idmap), 0
    when it has none yet; config and devices are its own, to which those of its profiles come (see
    sysd.model.profile.expand). quota_id is the project (sysd.storage.quota) for which its files are counted, 0 when
    they are not."""

    uuid: str
    name: str
    image: str
    id_base: int
    project: str = names.DEFAULT_PROJECT
    kind: Kind = Kind.CONTAINER
    phase: Phase = Phase.CREATING
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    description: str = ""
    ephemeral: bool = False
    id_count: int = 65536
    quota_id: int = 0
    created: int = field(default_factory=lambda: time.time_ns() // 1000)

    @property
    def unit(self) -> str:
        return names.unit_name(self.project, self.name)

    @property
    def key(self) -> tuple[str, str]:
        return (self.project, self.name)

    @property
    def machine(self) -> str:
        """Its name with machined, whose names have no colons; instances' have no dots, so none means another."""
        return self.name if self.project == names.DEFAULT_PROJECT else f"{self.name}.{self.project}"

    @property
    def reference(self) -> str:
        """How doors name it: without the project in the default one."""
        return names.qualified(self.project, self.name)


@dataclass(frozen=True, slots=True)
class Status:
    """What is seen of an instance now. leader is the host's PID of the guest's PID 1, 0 when there is none. lost: its
    devices that it is without."""

    state: State = State.STOPPED
    leader: int = 0
    addresses: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def hardware_address(instance: Instance, device: str) -> str:
    """That of a network interface of an expanded instance: given, or made up and remembered."""
    return instance.devices[device].get("hwaddr") or instance.config.get(f"volatile.{device}.hwaddr", "")


def interface_name(instance: Instance, device: str) -> str:
    """In the guest."""
    return instance.devices[device].get("name") or instance.config.get(f"volatile.{device}.name", "eth0")


def host_interface_name(instance: Instance, device: str) -> str:
    """Of the host's end."""
    return instance.devices[device].get("host_name") or instance.config.get(f"volatile.{device}.host_name", "")


def forget(config: Mapping[str, str]) -> dict[str, str]:
    """A configuration without what the daemon remembers: that of another instance."""
    return {key: value for key, value in config.items() if not key.startswith(VOLATILE)}


def new_uuid() -> str:
    return str(uuid.uuid4())
