# SPDX-License-Identifier: Apache-2.0
"""Ephemeral instances: deleted once they have run and stopped, whether we see that or find it out at our next start."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.guests import STOPPED
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.register import Register
from sysd.manager.table import Table
from sysd.model.config import get_bool
from sysd.model.errors import SyscontError
from sysd.model.instance import STATE, Instance, Phase, State

log = logging.getLogger(__name__)

HAS_RUN = f"{STATE}power"
"""LXD's name; set to RUNNING when an ephemeral instance's guest has begun to run."""
RUNNING = "RUNNING"
SPARED = "SPARED"
"""What was interrupted had asked the guest to stop, which goes on: it is not to be deleted then."""


class Ephemeral:
    def __init__(
        self,
        events: EventBus,
        operations: Operations,
        table: Table,
        register: Register,
        lifecycle: Lifecycle,
        instances: Instances,
    ) -> None:
        self._operations = operations
        self._table = table
        self._register = register
        self._lifecycle = lifecycle
        self._instances = instances
        events.subscribe(self._look)

    def _look(self, event: Event) -> None:
        if event.kind is not Kind.INSTANCE_CHANGED or not {"State", "Leader"} & set(event.changed):
            return
        instance = self._table.find(event.project, event.name)
        if instance is None or not instance.ephemeral or instance.phase is not Phase.READY:
            return
        status, power = self._table.status(instance), instance.config.get(HAS_RUN)
        if status.state in STOPPED and power == RUNNING:
            self._begin(instance)
        elif status.state in STOPPED and power == SPARED:
            self._remember(instance, None)
        elif status.leader and status.state is not State.STOPPING and power != RUNNING:
            self._remember(instance, RUNNING)

    def _remember(self, instance: Instance, power: str | None) -> None:
        rest = {key: value for key, value in instance.config.items() if key != HAS_RUN}
        self._register.commit((replace(instance, config=rest | ({HAS_RUN: power} if power else {})),))

    def _begin(self, instance: Instance) -> None:
        """Delete it when nobody else is at it any more; a restart has started it again by then."""
        uuid = instance.uuid

        async def work(handle: Handle) -> None:
            if self._table.find_uuid(uuid) is None:
                return
            async with self._table.lock(uuid):
                await self._delete_stopped(uuid)

        self._operations.begin("delete-instance", instance.reference, work)

    async def _delete_stopped(self, uuid: str) -> None:
        instance = self._table.find_uuid(uuid)
        if instance is None or not instance.ephemeral or await self._lifecycle.refresh(instance) not in STOPPED:
            return
        if get_bool(self._table.expanded(instance).config, "security.protection.delete"):
            log.warning("%s is ephemeral and has stopped, but is protected and stays", instance.name)
            return
        await self._lifecycle.stop(instance)
        await self._instances.destroy(instance)

    async def finish(self, stopped_by_us: Collection[str]) -> None:
        """At start, when it is known what runs: delete what stopped while nobody looked, but not what an interrupted
        operation had stopped for a while (named by reference): that is as if it had not run yet."""
        for instance in self._table.all():
            if not instance.ephemeral or HAS_RUN not in instance.config:
                continue
            try:
                if instance.reference in stopped_by_us or instance.config[HAS_RUN] == SPARED:
                    await self._spare(instance)
                else:
                    await self._delete_stopped(instance.uuid)
            except (SyscontError, OSError) as error:
                log.error("ephemeral instance %s can't be removed: %s", instance.name, error)

    async def _spare(self, instance: Instance) -> None:
        state = await self._lifecycle.refresh(instance)
        if state in STOPPED:
            self._remember(instance, None)
        elif state is State.STOPPING:
            self._remember(instance, SPARED)
