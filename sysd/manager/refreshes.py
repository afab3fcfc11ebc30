# SPDX-License-Identifier: Apache-2.0
"""Bringing an instance to what another one is by now, of which it was a copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sysd.manager.arrivals import Arrivals, Coming
from sysd.manager.guests import STOPPED
from sysd.manager.instances import Instances, Update
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle
from sysd.manager.quotas import Quotas
from sysd.manager.snapshots import Snapshots
from sysd.manager.table import Table
from sysd.manager.trees import exclusive_layers
from sysd.model.errors import BusyError, InvalidError
from sysd.model.instance import Instance, Kind
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Taken
from sysd.runtime import container
from sysd.units.helper import see_through

WORD = "refresh"


class Refreshes:
    def __init__(
        self,
        table: Table,
        instances: Instances,
        snapshots: Snapshots,
        lifecycle: Lifecycle,
        quotas: Quotas,
        arrivals: Arrivals,
    ) -> None:
        self._table = table
        self._instances = instances
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._quotas = quotas
        self._arrivals = arrivals

    async def check(self, instance: Instance, kind: Kind) -> None:
        """Raise unless it can be brought to what one of this kind is."""
        if instance.kind is not kind:
            raise InvalidError(f"{instance.reference} is a {instance.kind}, and no copy of a {kind}")
        if await self._lifecycle.refresh(instance) not in STOPPED:
            raise BusyError(f"{instance.reference} is running", "stop it before it is refreshed")

    def missing(self, instance: Instance, said: Sequence[Taken]) -> list[Taken]:
        """Of the snapshots of the source those that it lacks: they are the same by name and time."""
        has = {(each.name, each.created) for each in self._snapshots.of(instance)}
        return [each for each in said if (each.name, each.created) not in has]

    async def refresh(self, handle: Handle, coming: Coming, uuid: str, said: Sequence[Taken]) -> None:
        """said: the snapshots of the source. First come those that are missing, one after the other, then all the rest
        at once; last go those that the source has not. Whatever is there if it ends between is whole."""
        async with self._table.lock(uuid):
            current = self._table.ready(uuid)
            await self.check(current, coming.image.kind)
            new = coming.new
            update = Update(new.config, new.devices, new.profiles, new.description, new.ephemeral)
            changed = replace(self._instances.updated(current, update), image=coming.image.fingerprint)
            await self._lifecycle.forget(current)
            try:
                async with exclusive_layers(current), self._quotas.lifted(current):
                    await self._exchange(current, changed, coming)
            finally:
                await see_through(self._load(uuid))
            for each in self._gone(current, said):
                await self._snapshots.remove(current, each)
        self._arrivals.tell(handle, coming)

    async def _exchange(self, current: Instance, changed: Instance, coming: Coming) -> None:
        had = {each.name: each for each in self._snapshots.of(current)}
        for snapshot in self._arrivals.snapshots(coming, changed):
            old = had.get(snapshot.name)
            await self._arrivals.put(changed, snapshot, container.state_dir(current), instead_of=old)

        async def fill(upper: Path) -> None:
            await self._arrivals.begin(changed, upper)

        await self._snapshots.exchange(changed, WORD, fill)

    def _gone(self, instance: Instance, said: Sequence[Taken]) -> list[Snapshot]:
        there = {(each.name, each.created) for each in said}
        return [each for each in self._snapshots.of(instance) if (each.name, each.created) not in there]

    async def _load(self, uuid: str) -> None:
        await self._lifecycle.load([self._table.by_uuid(uuid)])
