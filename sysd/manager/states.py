# SPDX-License-Identifier: Apache-2.0
"""Memory of virtual machines that is kept: when they stop, and with snapshots."""

from __future__ import annotations

from pathlib import Path

from sysd.manager.guests import STOPPED
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.machines import Machines
from sysd.manager.operations import Handle
from sysd.manager.stillness import Stillness
from sysd.manager.table import Table
from sysd.model.config import get_bool
from sysd.model.errors import BusyError, DeniedError, InvalidError, NotRunningError, UnsupportedError
from sysd.model.instance import Instance, Kind
from sysd.runtime.vm import state
from sysd.units.helper import see_through

ALLOWED_BY = "migration.stateful"


class States:
    """The caller holds an instance's lock."""

    def __init__(self, table: Table, lifecycle: Lifecycle, stillness: Stillness, machines: Machines) -> None:
        self._table = table
        self._lifecycle = lifecycle
        self._stillness = stillness
        self._machines = machines

    def check(self, instance: Instance) -> None:
        """Raise unless the memory of an instance can be kept."""
        if instance.kind is not Kind.VM:
            why = f"{instance.name} is a container: what its processes have in memory can't be kept"
            raise UnsupportedError(why, "CRIU is not used, as it can't write down a guest of systemd's")
        if not get_bool(self._table.expanded(instance).config, ALLOWED_BY):
            why = f"the memory of {instance.name} may not be kept"
            raise DeniedError(why, f"syscont config set {instance.name} {ALLOWED_BY}=true")

    def is_kept(self, instance: Instance) -> bool:
        """Whether its next start goes on from memory that was kept."""
        return instance.kind is Kind.VM and self._machines.is_kept(instance)

    async def stop(self, handle: Handle, instance: Instance) -> None:
        """Stop it as it is; its next start goes on from there. Where that fails it runs on."""
        self.check(instance)
        if instance.ephemeral:
            raise InvalidError(f"{instance.name} is ephemeral: it would be deleted with its memory", "stop it as usual")
        self._check_runs(instance)
        async with self._stillness.still(instance):
            handle.progress("memory")
            await self._machines.keep(instance, handle.progress)
            await see_through(self._end(instance))
        await self._lifecycle.reload(self._table.by_uuid(instance.uuid))

    async def _end(self, instance: Instance) -> None:
        await self._lifecycle.let_end(instance, self._machines.end(instance))

    async def save(self, handle: Handle, instance: Instance, folder: Path) -> None:
        """Write the memory of one that stands still into a folder."""
        handle.progress("memory")
        await self._machines.save(instance, folder, handle.progress)

    def move(self, source: Path, folder: Path) -> None:
        """What was saved, into the layer that it belongs to."""
        state.move(source, folder)

    def leave_out(self, instance: Instance, folder: Path) -> None:
        """Of a layer: what of a container is there is its own."""
        if instance.kind is Kind.VM:
            state.drop(folder)

    def check_memory(self, instance: Instance) -> None:
        """Raise unless there is memory that a snapshot can have, or another host."""
        self.check(instance)
        if not self.is_kept(instance):
            self._check_runs(instance)

    def _check_runs(self, instance: Instance) -> None:
        found = self._table.status(instance).state
        if found in STOPPED:
            raise NotRunningError(f"{instance.name} is {found}: it has no memory to keep")
        if self._table.live(instance).guest is None:
            raise BusyError(f"{instance.name} is {found}", "try again")
