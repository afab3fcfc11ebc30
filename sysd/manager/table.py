# SPDX-License-Identifier: Apache-2.0
"""The table in memory: each instance with what is seen of it. Lists are answered from here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sysd.manager.events import Event, EventBus, Kind
from sysd.model.errors import BusyError, NotFoundError
from sysd.model.instance import Instance, Phase, State, Status
from sysd.model.names import split
from sysd.runtime.guest import Guest

_STATES = {
    "active": State.RUNNING,
    "reloading": State.RUNNING,
    "refreshing": State.RUNNING,
    "activating": State.STARTING,
    "deactivating": State.STOPPING,
    "failed": State.FAILED,
}


@dataclass(slots=True)
class Live:
    """What is seen of one instance. loaded: systemd has its unit, running or not; stale: as it once was configured.
    cpus: which processors its unit has, if limits.cpu says so. responsive: what runs it answers. lost: devices that
    nobody serves any more."""

    active_state: str = "inactive"
    freezer_state: str = "running"
    guest: Guest | None = None
    responsive: bool = True
    lost: tuple[str, ...] = ()
    loaded: bool = False
    stale: bool = False
    cpus: frozenset[int] = frozenset()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def status(self) -> Status:
        state = _STATES.get(self.active_state, State.STOPPED)
        if state is State.RUNNING and self.freezer_state.startswith("frozen"):
            state = State.FROZEN
        if self.guest is None:
            return Status(state)
        if state is State.RUNNING and not self.responsive:
            state = State.UNRESPONSIVE
        elif state is State.RUNNING and self.lost:
            state = State.DEGRADED
        return Status(state, self.guest.leader, self.guest.addresses, self.lost)


class Table:
    def __init__(self, events: EventBus, expand: Callable[[Instance], Instance]) -> None:
        """expand gives an instance what its profiles say."""
        self._events = events
        self.expand = expand
        self._expanded: dict[str, Instance] = {}
        self._instances: dict[str, Instance] = {}
        self._uuids: dict[tuple[str, str], str] = {}
        self._live: dict[str, Live] = {}

    def all(self) -> list[Instance]:
        return [self._instances[uuid] for _, uuid in sorted(self._uuids.items())]

    def get(self, reference: str) -> Instance:
        """The instance of a qualified name: ``web1``, or ``lab:web1`` in another project."""
        found = self.find(*split(reference))
        if found is None:
            raise NotFoundError(f"no instance {reference!r}", "'syscont list' shows what there is")
        return found

    def find(self, project: str, name: str) -> Instance | None:
        uuid = self._uuids.get((project, name))
        return self._instances[uuid] if uuid else None

    def expanded(self, instance: Instance) -> Instance:
        """With what its profiles give it: what is in force, or will be at the next start."""
        found = self._expanded.get(instance.uuid)
        if found is None:
            found = self._expanded[instance.uuid] = self.expand(instance)
        return found

    def forget_expanded(self) -> None:
        self._expanded.clear()

    def by_uuid(self, uuid: str) -> Instance:
        try:
            return self._instances[uuid]
        except KeyError:
            raise NotFoundError("the instance was deleted meanwhile") from None

    def ready(self, uuid: str) -> Instance:
        """Like by_uuid, but not one that is half made or being deleted."""
        instance = self.by_uuid(uuid)
        if instance.phase is Phase.ARRIVING:
            why = f"{instance.name} is on its way here, and the other host has yet to say that it has given it up"
            raise BusyError(why, "it is asked again and again; if it is gone for good: syscont move --take")
        if instance.phase is not Phase.READY:
            raise BusyError(f"{instance.name} is {instance.phase}", "it can't be used")
        return instance

    def rename(self, instance: Instance, renamed: Instance) -> None:
        """Give an instance its new name; its lock and what is seen of it stay."""
        del self._uuids[instance.key]
        self.add(renamed)

    def find_uuid(self, uuid: str) -> Instance | None:
        return self._instances.get(uuid)

    def has(self, project: str, name: str) -> bool:
        return (project, name) in self._uuids

    def knows(self, reference: str) -> bool:
        """Whether there is an instance whose qualified name is just this."""
        found = self.find(*split(reference))
        return found is not None and found.reference == reference

    def add(self, instance: Instance) -> None:
        """Add, or take the new value of, an instance."""
        self._instances[instance.uuid] = instance
        self._expanded.pop(instance.uuid, None)
        self._uuids[instance.key] = instance.uuid
        self._live.setdefault(instance.uuid, Live())

    def remove(self, instance: Instance) -> None:
        if self._uuids.get(instance.key) == instance.uuid:
            del self._uuids[instance.key]
        live = self._live.pop(instance.uuid, None)
        self._instances.pop(instance.uuid, None)
        self._expanded.pop(instance.uuid, None)
        if live and live.guest:
            live.guest.close()

    def live(self, instance: Instance) -> Live:
        return self._live[instance.uuid]

    def lock(self, uuid: str) -> asyncio.Lock:
        """Held by whatever changes the instance."""
        self.by_uuid(uuid)
        return self._live[uuid].lock

    def status(self, instance: Instance) -> Status:
        return self._live[instance.uuid].status

    def observe(self, instance: Instance, change: Callable[[Live], None]) -> None:
        """Change what is seen of an instance and tell which of its properties are others now."""
        live = self._live[instance.uuid]
        before = live.status
        change(live)
        after = live.status
        changed = [
            name
            for name, old, new in (
                ("State", before.state, after.state),
                ("Stateful", before.state, after.state),
                ("Leader", before.leader, after.leader),
                ("CoreCookie", before.leader, after.leader),
                ("Addresses", before.addresses, after.addresses),
                ("LostDevices", before.lost, after.lost),
            )
            if old != new
        ]
        if changed:
            self._events.publish(Event(Kind.INSTANCE_CHANGED, instance.name, instance.project, tuple(changed)))
