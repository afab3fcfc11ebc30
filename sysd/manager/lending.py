# SPDX-License-Identifier: Apache-2.0
"""PCI functions of the host's that virtual machines have (sysd.runtime.vm.lending). A machine that starts takes them
itself, and systemd gives them back when it has ended; here is what changes while one runs, and what was left."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping

from sysd.manager.guests import STOPPED
from sysd.manager.table import Table
from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.runtime import sysfs
from sysd.runtime.vm import handing, lending, parts, vfio
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.unit import device_policy
from sysd.units import helper, modules
from sysd.units.bus import BusError
from sysd.units.helper import see_through
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)

UNIT = "syscont-lend@{}.service"
LIMIT = 60.0
_numbers = itertools.count(1)


class Lending:
    def __init__(self, table: Table, systemd: Systemd) -> None:
        self._table = table
        self._systemd = systemd

    async def get_ready(self) -> None:
        """Before a machine is to have any."""
        await modules.ensure(self._systemd, vfio.MODULE, vfio.is_there)
        await self.tidy()

    async def tidy(self) -> None:
        """What machines that do not run have is given back: what did so for them was killed."""
        for folder in sysfs.entries(lending.LENT_DIR):
            instance = self._table.find_uuid(folder.name)
            with _told(instance):
                if instance is None:
                    await self._run("give-back", folder.name)
                elif self._table.status(instance).state in STOPPED:
                    await self._run("give-back-left", folder.name, instance.unit)

    async def started(self, uuid: str) -> None:
        """A machine runs, or was found again. What it was to be given when a daemon ended, and was not, goes back."""
        if not lending.loans(uuid):
            return
        async with self._table.lock(uuid):
            instance = self._table.find_uuid(uuid)
            machine = self._table.live(instance).guest if instance else None
            if not instance or not isinstance(machine, MachineGuest):
                return
            with _told(instance):
                there = await machine.execute("qom-list", {"path": "/machine/peripheral"})
                names = {str(one.get("name")) for one in there}
                left = [one for one, loan in lending.loans(uuid).items() if parts.id_of(loan.device) not in names]
                if left:
                    await self._run("give-back", uuid, *left)

    @contextlib.asynccontextmanager
    async def lent(
        self, machine: MachineGuest, instance: Instance, had: Mapping[str, Part], new: Mapping[str, Part]
    ) -> AsyncIterator[None]:
        """The functions among new parts can be plugged into a machine that has others. What is not among had, to which
        those that were plugged are added, when this fails is given back."""
        wanted = parts.functions(new)
        if not wanted:
            yield
            return
        try:
            await self._run("take", instance.uuid, instance.reference, *lending.pairs(wanted))
            await self._show(machine, instance, {**had, **new})
            yield
        except BaseException:
            left = {name: part for name, part in new.items() if name not in had}
            await see_through(self.give_back(machine, instance, had, left))
            raise

    async def give_back(
        self, machine: MachineGuest, instance: Instance, left: Mapping[str, Part], gone: Mapping[str, Part]
    ) -> None:
        """What was unplugged from a machine that still has what is left. It is told to the log when that fails."""
        functions = parts.functions(gone).values()
        if not functions:
            return
        with _told(instance):
            await self._show(machine, instance, left)
        with _told(instance):
            await self._run("give-back", instance.uuid, *functions)

    async def _show(self, machine: MachineGuest, instance: Instance, found: Mapping[str, Part]) -> None:
        """What QEMU may open is what it has."""
        try:
            await self._systemd.set_properties(instance.unit, device_policy(found.values()))
        except BusError as error:
            raise FailedError(f"systemd refused the devices: {error.message}") from None
        handing.lock_memory(machine, vfio.locked_memory(int(machine.spec["most_memory"])))
        if not vfio.has_iommufd():
            await handing.functions(machine, vfio.groups(parts.functions(found).values()))

    async def _run(self, *words: str) -> None:
        unit = UNIT.format(f"{os.getpid()}-{next(_numbers)}")
        what = helper.Helper(unit, "Lend PCI functions to a virtual machine", lending.command(*words), {})
        await helper.run(self._systemd, what, LIMIT)


@contextlib.contextmanager
def _told(instance: Instance | None) -> Iterator[None]:
    try:
        yield
    except FailedError as error:
        log.error("%s: %s", instance.reference if instance else "a machine that is gone", error.message)
