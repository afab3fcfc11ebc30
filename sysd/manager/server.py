# SPDX-License-Identifier: Apache-2.0
"""The configuration of the host as a whole, and what it makes of instances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance, Phase
from sysd.model.server import SCHEMA

Check = Callable[[Mapping[str, str], Mapping[str, str]], None]
"""Called with the configuration as it is and as it is to be, which it puts in force; raises SyscontError when that
can't be, and leaves all as it was."""


class Server:
    def __init__(
        self,
        catalog: Catalog,
        events: EventBus,
        operations: Operations,
        table: Table,
        lifecycle: Lifecycle,
    ) -> None:
        self._catalog = catalog
        self._events = events
        self._operations = operations
        self._table = table
        self._lifecycle = lifecycle
        self._checks: list[Check] = []

    def before_change(self, check: Check) -> None:
        """Have it called before each change."""
        self._checks.append(check)

    @property
    def config(self) -> dict[str, str]:
        return self._catalog.server_config

    async def change(self, values: Mapping[str, str], unset: Collection[str], owner: int) -> None:
        """Set and remove keys, all or none."""
        removed = set(unset)
        await self._change(lambda: SCHEMA.changed(self.config, values, removed), owner)

    async def update(self, config: Mapping[str, str], owner: int) -> None:
        """Have these keys and no others."""
        await self._change(lambda: SCHEMA.check(config), owner)

    async def _change(self, change: Callable[[], dict[str, str]], owner: int) -> None:
        """Returns when it is in force in what can be changed at once. Not recorded: after a crash units are made anew
        at the next start anyway."""
        after = change()
        if after == self.config:
            return
        self._check(after)
        before = {instance.uuid: self._table.expanded(instance) for instance in self._table.all()}
        self._catalog.remember_server_config(after)
        self._table.forget_expanded()
        self._events.publish(Event(Kind.SERVER_CHANGED, "", changed=("ServerConfig",)))
        changed = [one for one in self._table.all() if self._table.expanded(one) != before[one.uuid]]
        for instance in changed:
            self._events.publish(Event(Kind.INSTANCE_CHANGED, instance.name, instance.project, ("ExpandedConfig",)))
        if changed:

            async def work(handle: Handle) -> None:
                await self._put_in_force(handle, changed)

            operation = self._operations.begin("change-server-config", "server", work, owner, record=False)
            await self._operations.wait(operation.id)

    def _check(self, after: Mapping[str, str]) -> None:
        """All or none of those who are asked puts it in force."""
        done: list[Check] = []
        try:
            for check in self._checks:
                check(self.config, after)
                done.append(check)
        except SyscontError:
            for check in reversed(done):
                with suppress(SyscontError):
                    check(after, self.config)
            raise

    async def _put_in_force(self, handle: Handle, instances: Sequence[Instance]) -> None:
        failed: list[str] = []
        for done, instance in enumerate(instances):
            handle.progress(instance.name, done, len(instances))
            try:
                async with self._table.lock(instance.uuid):
                    current = self._table.by_uuid(instance.uuid)
                    if current.phase is Phase.READY:
                        await self._lifecycle.put_in_force(current)
            except SyscontError as error:
                if self._table.find_uuid(instance.uuid):
                    failed.append(error.message)
        if failed:
            raise FailedError(f"the configuration has changed, but not all is in force: {'; '.join(failed)}")
