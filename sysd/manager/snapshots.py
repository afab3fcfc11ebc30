# SPDX-License-Identifier: Apache-2.0
"""Snapshots of instances: taking, restoring, renaming, deleting them.

A snapshot's row is written when its layer is on disk, and removed before its layer is: a layer without a row is swept
at start. So there are only whole snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sysd.manager import layers
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.guests import STOPPED
from sysd.manager.kept import Kept
from sysd.manager.layers import Layers
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.quotas import Quotas
from sysd.manager.register import Register
from sysd.manager.states import States
from sysd.manager.stillness import Stillness
from sysd.manager.table import Table
from sysd.manager.trees import exclusive_layers
from sysd.model import names, snapshot
from sysd.model.config import SCHEMA, get_bool
from sysd.model.errors import ExistsError, InvalidError, NotFoundError, SyscontError
from sysd.model.instance import VOLATILE, Instance, new_uuid
from sysd.model.operation import Operation
from sysd.model.restrictions import check_allowed
from sysd.model.snapshot import Snapshot
from sysd.runtime import container
from sysd.store.database import Store
from sysd.units.helper import see_through

log = logging.getLogger(__name__)

RESTORE = f"{VOLATILE}restore"
"""Set in an instance's row from the moment at which a restore is to be finished, and no longer undone."""


RESTORING = "restore-snapshot"
"""The kind of operation that stops an instance and starts it again."""


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """name: by snapshots.pattern when empty. reuse: take the place of one of that name. expires: microseconds since
    the epoch, 0 for never, None for what snapshots.expiry says. scheduled: only if the schedule's keys want it now.
    stateful: with the memory of a virtual machine."""

    name: str = ""
    reuse: bool = False
    expires: int | None = None
    scheduled: bool = False
    stateful: bool = False


class Snapshots:
    def __init__(
        self,
        store: Store,
        events: EventBus,
        operations: Operations,
        catalog: Catalog,
        table: Table,
        register: Register,
        lifecycle: Lifecycle,
        stillness: Stillness,
        states: States,
        work: Layers,
        quotas: Quotas,
        kept: Kept,
    ) -> None:
        self._kept = kept
        self._store = store
        self._events = events
        self._operations = operations
        self._catalog = catalog
        self._table = table
        self._register = register
        self._lifecycle = lifecycle
        self._stillness = stillness
        self._states = states
        self._layers = work
        self._quotas = quotas
        self._all: dict[str, dict[str, Snapshot]] = {}
        for each in store.snapshots():
            self._all.setdefault(each.instance, {})[each.name] = each
        events.subscribe(self._instance_removed)

    # asking

    def of(self, instance: Instance) -> list[Snapshot]:
        """The oldest first."""
        return sorted(self._all.get(instance.uuid, {}).values(), key=lambda each: (each.created, each.name))

    def all(self) -> list[Snapshot]:
        return [each for group in self._all.values() for each in group.values()]

    def get(self, instance: Instance, name: str) -> Snapshot:
        try:
            return self._all[instance.uuid][name]
        except KeyError:
            raise NotFoundError(
                f"{instance.reference} has no snapshot {name[:80]!r}",
                f"'syscont snapshot list {instance.reference}' shows what there is",
            ) from None

    def find(self, reference: str) -> tuple[Instance, Snapshot | None]:
        """What ``web1`` or ``web1/snap0`` stands for."""
        instance, _, name = reference.partition("/")
        found = self._table.get(instance)
        return found, self.get(found, name) if "/" in reference else None

    def layer(self, instance: Instance, found: Snapshot) -> Path:
        return layers.snapshots_folder(instance) / found.uuid / layers.UPPER

    def use_image(self, fingerprint: str) -> list[str]:
        """Names of the snapshots that need the image."""
        return [f"snapshot {each.name}" for each in self.all() if each.image == fingerprint]

    def check_room(self, project: str, instance: Instance) -> None:
        """Raise DeniedError unless an instance can be in a project with the snapshots that it has."""
        if self.of(instance):
            check_allowed(self._catalog.project(project), "snapshots", f"the snapshots of {instance.reference}")

    # taking

    def create(self, reference: str, wanted: NewSnapshot, owner: int) -> Operation:
        """The operation's result has the name (snapshot), unless a scheduled one was not to be taken."""
        instance = self._table.get(reference)
        check_allowed(self._catalog.project(instance.project), "snapshots", "a snapshot")
        if wanted.stateful:
            self._states.check_memory(instance)
        if wanted.name:
            names.check_snapshot_name(wanted.name)
            self._check_free(instance, wanted)

        async def work(handle: Handle) -> None:
            async with self._table.lock(instance.uuid):
                current = self._table.ready(instance.uuid)
                if wanted.scheduled and not self._is_due(current):
                    return
                if wanted.stateful:
                    self._states.check_memory(current)
                made = self._plan(current, wanted)
                await self._take(handle, current, made)
            handle.set_result("snapshot", made.name)

        return self._operations.begin("create-snapshot", f"{reference}/{wanted.name}".rstrip("/"), work, owner)

    def _is_due(self, instance: Instance) -> bool:
        running = self._table.status(instance).state not in STOPPED
        return running or get_bool(self._table.expanded(instance).config, "snapshots.schedule.stopped")

    def _plan(self, instance: Instance, wanted: NewSnapshot) -> Snapshot:
        config, now = self._table.expanded(instance).config, datetime.now().astimezone()
        name = wanted.name
        if name:
            self._check_free(instance, wanted)
        else:
            pattern = SCHEMA.text(config, "snapshots.pattern")
            name = snapshot.render(pattern, now, self._all.get(instance.uuid, {}))
        expires = wanted.expires
        if expires is None:
            expires = snapshot.microseconds(snapshot.expiry(SCHEMA.text(config, "snapshots.expiry"), now))
        return snapshot.take(instance, new_uuid(), name, expires, stateful=wanted.stateful)

    def _check_free(self, instance: Instance, wanted: NewSnapshot) -> None:
        if not wanted.reuse and wanted.name in self._all.get(instance.uuid, {}):
            raise ExistsError(f"{instance.reference} has a snapshot {wanted.name} already", "--reuse replaces it")

    async def _take(self, handle: Handle, instance: Instance, made: Snapshot) -> None:
        async with self._layers.draft(layers.snapshots_folder(instance) / made.uuid) as folder:
            async with self._stillness.still(instance):
                saved = made.stateful and not self._states.is_kept(instance)
                if saved:
                    await self._states.save(handle, instance, folder)
                handle.progress("copy")
                await self._layers.clone(layers.upper(instance), folder / layers.UPPER)
            if saved:
                self._states.move(folder, folder / layers.UPPER)
            elif not made.stateful:
                self._states.leave_out(instance, folder / layers.UPPER)
            await self._layers.settle(folder / layers.UPPER)
            replaced = self._all.get(instance.uuid, {}).get(made.name)
            self.put(made, instead_of=replaced)
        if replaced:
            await self._layers.remove(folder.with_name(replaced.uuid))

    def put(self, made: Snapshot, *, instead_of: Snapshot | None = None) -> None:
        """Remember a snapshot whose layer is on disk."""
        self._store.put_snapshot(made, instead_of=instead_of.uuid if instead_of else "")
        self._all.setdefault(made.instance, {})[made.name] = made
        self._changed(made.instance)

    # restoring

    def restore(self, reference: str, name: str, owner: int, *, stateful: bool = False) -> Operation:
        """Make the instance what it was. One that runs is stopped, and started again afterwards. stateful: it goes on
        with the memory that it had."""
        instance = self._table.get(reference)
        _check_memory(instance, self.get(instance, name), stateful=stateful)

        async def work(handle: Handle) -> None:
            async with self._table.lock(instance.uuid):
                current = self._table.ready(instance.uuid)
                found = self.get(current, name)
                _check_memory(current, found, stateful=stateful)
                self._register.check(found.applied(current))
                running = await self._lifecycle.refresh(current) not in STOPPED
                if running:
                    handle.progress("stop")
                    await self._lifecycle.stop(current)
                await self._lifecycle.forget(current)
                try:
                    async with exclusive_layers(current), self._quotas.lifted(current):
                        await self._restore(handle, current, found, stateful=stateful)
                finally:
                    await see_through(self._go_on(current.uuid, start=running or stateful))

        return self._operations.begin(RESTORING, f"{reference}/{name}", work, owner)

    async def _go_on(self, uuid: str, *, start: bool) -> None:
        instance = self._table.by_uuid(uuid)
        if RESTORE in instance.config:
            return  # its layer is not in place
        if start:
            await self._lifecycle.start(instance)
        else:
            await self._lifecycle.load([instance])

    async def _restore(self, handle: Handle, instance: Instance, found: Snapshot, *, stateful: bool) -> None:
        handle.progress("copy")

        async def fill(upper: Path) -> None:
            await self._layers.clone(self.layer(instance, found), upper, self._quotas.number(instance))
            if not stateful:
                self._states.leave_out(instance, upper)

        await self.exchange(found.applied(instance), found.name, fill)

    async def exchange(self, restored: Instance, word: str, fill: Callable[[Path], Awaitable[None]]) -> None:
        """Give a stopped instance, whose layers are its caller's, another layer, which fill makes, and all that is said
        of restored. word is remembered meanwhile."""
        async with self._layers.draft(container.state_dir(restored) / layers.RESTORING) as place:
            await fill(place / layers.UPPER)
            await self._layers.settle(place / layers.UPPER)
            restored = replace(restored, config=restored.config | {RESTORE: word})
            # An address that was chosen then may be another's by now.
            self._register.put(self._kept.remember(restored))
        # From here on it is finished, now or at the next start.
        await see_through(self._finish_restore(restored))

    async def _finish_restore(self, instance: Instance) -> None:
        await self._layers.put_restored(instance)
        config = {key: value for key, value in instance.config.items() if key != RESTORE}
        restored = replace(instance, config=config)
        self._register.commit((self._kept.remember(restored),))
        self._events.publish(Event(Kind.INSTANCE_CHANGED, instance.name, instance.project, _RESTORED))
        self._lifecycle.hosts_changed()
        for left in (layers.OLD, layers.RESTORING):
            await self._layers.remove(container.state_dir(instance) / left)

    # renaming and deleting

    def rename(self, reference: str, name: str, new_name: str, owner: int) -> Operation:
        names.check_snapshot_name(new_name)
        instance = self._table.get(reference)
        self.get(instance, name)

        async def work(handle: Handle) -> None:
            async with self._table.lock(instance.uuid):
                found = self.get(instance, name)
                self._check_free(instance, NewSnapshot(new_name))
                renamed = replace(found, name=new_name)
                self._store.put_snapshot(renamed)
                del self._all[instance.uuid][name]
                self._all[instance.uuid][new_name] = renamed
                self._changed(instance.uuid)

        return self._operations.begin("rename-snapshot", f"{reference}/{name}", work, owner)

    def delete(self, reference: str, name: str, owner: int) -> Operation:
        instance = self._table.get(reference)
        self.get(instance, name)

        async def work(handle: Handle) -> None:
            async with self._table.lock(instance.uuid):
                await self.remove(instance, self.get(instance, name))

        return self._operations.begin("delete-snapshot", f"{reference}/{name}", work, owner)

    async def remove(self, instance: Instance, found: Snapshot) -> None:
        self._store.delete_snapshot(found.uuid)
        del self._all[instance.uuid][found.name]
        self._changed(instance.uuid)
        await self._layers.remove(layers.snapshots_folder(instance) / found.uuid)

    def delete_expired(self, now: int) -> list[Operation]:
        """Begin to delete those whose time is over; now is in microseconds since the epoch."""
        operations = []
        for each in self.all():
            instance = self._table.find_uuid(each.instance)
            if instance and 0 < each.expires <= now:
                operations.append(self.delete(instance.reference, each.name, 0))
        return operations

    def _changed(self, uuid: str) -> None:
        if instance := self._table.find_uuid(uuid):
            changed = ("Snapshots", "StatefulSnapshots")
            self._events.publish(Event(Kind.INSTANCE_CHANGED, instance.name, instance.project, changed))

    def _instance_removed(self, event: Event) -> None:
        if event.kind is Kind.INSTANCE_REMOVED:
            for uuid in [uuid for uuid in self._all if self._table.find_uuid(uuid) is None]:
                del self._all[uuid]

    # after a restart

    async def finish_interrupted(self) -> None:
        """At start, once instances are known and none is being changed."""
        await self._stillness.thaw_left()
        unreadable = self._store.unreadable("snapshots")
        for instance in self._table.all():
            try:
                if RESTORE in instance.config:
                    log.warning("finishing to restore %s", instance.name)
                    await self._finish_restore(instance)
                known = {each.uuid for each in self.of(instance)} | unreadable
                await self._layers.sweep(self._table.by_uuid(instance.uuid), known)
            except (SyscontError, OSError) as error:
                log.error("what is left of an operation on %s can't be put right: %s", instance.name, error)


def _check_memory(instance: Instance, found: Snapshot, *, stateful: bool) -> None:
    if stateful and not found.stateful:
        why = f"snapshot {found.name} of {instance.reference} has no memory"
        raise InvalidError(why, "restore it without --stateful")


_RESTORED = ("Config", "Devices", "ExpandedConfig", "ExpandedDevices", "Profiles", "Description", "Ephemeral")
