# SPDX-License-Identifier: Apache-2.0
"""The register of instances: the only way to put one into the store and the table, to change, rename or drop it.

Both change together, and nothing gets in that the rules of its project do not allow.
"""

from __future__ import annotations

from collections.abc import Callable

from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.operations import Operations, Work
from sysd.manager.rules import Rules
from sysd.manager.table import Table
from sysd.model.instance import Instance
from sysd.model.operation import Operation
from sysd.store.database import Store


class Register:
    def __init__(self, store: Store, events: EventBus, operations: Operations, table: Table, rules: Rules) -> None:
        self._store = store
        self._events = events
        self._operations = operations
        self._table = table
        self._rules = rules

    def check(self, *changed: Instance) -> None:
        """Raise what put would raise: asked first where something is done before, such as to what runs."""
        self._rules.check(changed)

    def begin(self, kind: str, instance: Instance, work: Work, owner: int) -> Operation:
        """Add a new instance, and start the operation that makes it: both are on disk together, before anything is
        made."""
        self.check(instance)
        operation = self._operations.begin(
            kind, instance.reference, work, owner, put=lambda: self._store.put_instance(instance)
        )
        self._table.add(instance)
        self._publish(Kind.INSTANCE_ADDED, instance)
        return operation

    def put(self, *changed: Instance) -> None:
        """Take the new values of instances: all or none."""
        self.check(*changed)
        self.commit(changed)

    def put_soon(self, *changed: Instance) -> None:
        """put, without holding everybody up while the disk writes: on_disk() says when it is there."""
        with self._store.later():
            self.put(*changed)

    async def on_disk(self) -> None:
        """When all that was put before is on disk."""
        await self._store.on_disk()

    def commit(self, changed: tuple[Instance, ...], besides: Callable[[], None] | None = None) -> None:
        """put, when the rules were asked already about what will hold; besides writes what belongs to it."""
        with self._store.transaction():
            if besides:
                besides()
            for instance in changed:
                self._store.put_instance(instance)
        for instance in changed:
            self._table.add(instance)

    def rename(self, instance: Instance, renamed: Instance) -> None:
        """Give an instance another name, or another project; its lock and what is seen of it stay."""
        self.check(renamed)
        self._store.put_instance(renamed)
        self._table.rename(instance, renamed)
        self._publish(Kind.INSTANCE_REMOVED, instance)
        self._publish(Kind.INSTANCE_ADDED, renamed)

    def drop(self, instance: Instance) -> None:
        """One that is half made or half deleted, which the next start of the daemon would remove as well."""
        with self._store.later():
            self._store.delete_instance(instance.uuid)
        self._table.remove(instance)
        self._publish(Kind.INSTANCE_REMOVED, instance)

    def _publish(self, kind: Kind, instance: Instance) -> None:
        self._events.publish(Event(kind, instance.name, instance.project))
