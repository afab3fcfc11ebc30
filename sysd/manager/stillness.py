# SPDX-License-Identifier: Apache-2.0
"""Holding a guest still while its files are copied, and never leaving it so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from sysd.manager.guests import STOPPED
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.table import Table
from sysd.manager.trees import exclusive_layers
from sysd.model.errors import BusyError, FailedError
from sysd.model.instance import RUNS, Instance, State
from sysd.store.database import Store
from sysd.units.bus import BusError
from sysd.units.helper import see_through

log = logging.getLogger(__name__)

_KEY = "frozen"
"""In the store: UUIDs of the instances that we froze, so that a crash leaves none frozen for ever."""


class Stillness:
    def __init__(self, store: Store, table: Table, lifecycle: Lifecycle) -> None:
        self._store = store
        self._table = table
        self._lifecycle = lifecycle
        self._frozen = set((store.get_meta(_KEY) or "").split())

    @contextlib.asynccontextmanager
    async def still(self, instance: Instance) -> AsyncIterator[None]:
        """In the block nothing of the instance runs, and nobody else works on its files. The caller holds its lock. One
        that its user has paused stays so afterwards."""
        async with exclusive_layers(instance), self._frozen_if_running(instance):
            yield

    @contextlib.asynccontextmanager
    async def _frozen_if_running(self, instance: Instance) -> AsyncIterator[None]:
        state = await self._lifecycle.refresh(instance)
        if state in STOPPED or state is State.FROZEN:
            yield
            return
        if state not in RUNS:
            raise BusyError(f"{instance.name} is {state}", "wait until it has booted, or stop it")
        self._remember(self._frozen | {instance.uuid})
        try:
            await self._lifecycle.freeze(instance, freeze=True)
            yield
        finally:
            await see_through(self._thaw(instance))

    async def _thaw(self, instance: Instance) -> None:
        try:
            if await self._lifecycle.refresh(instance) not in STOPPED:
                await self._lifecycle.let_go_on(instance)
                await self._lifecycle.refresh(instance)
        except (BusError, FailedError) as error:
            # Remembered still: the next start of the daemon tries again.
            log.error("%s can't be thawed: %s", instance.name, error)
        else:
            self._remember(self._frozen - {instance.uuid})

    def _remember(self, frozen: set[str]) -> None:
        self._store.set_meta(_KEY, " ".join(sorted(frozen)))
        self._frozen = frozen

    async def thaw_left(self) -> None:
        """At start: let go of what a daemon that was killed had frozen."""
        for uuid in sorted(self._frozen):
            instance = self._table.find_uuid(uuid)
            if instance is None:
                self._remember(self._frozen - {uuid})
            else:
                log.warning("%s was frozen when the daemon ended, and runs on", instance.name)
                await self._thaw(instance)
