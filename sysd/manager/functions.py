# SPDX-License-Identifier: Apache-2.0
"""Virtual functions of the host's cards that instances have as interfaces (sysd.runtime.sriov.lending). One that starts
takes them itself, and systemd gives them back when it has ended; here is what changes while it runs, and what was left.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, replace

from dbus_next import Variant

from sysd.manager.guests import STOPPED
from sysd.manager.table import Table
from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.model.network import Network
from sysd.network import links
from sysd.runtime import container, sysfs
from sysd.runtime.container import Links
from sysd.runtime.guest import ContainerGuest, Guest
from sysd.runtime.plugging import Change, plug
from sysd.runtime.spec import Plugged, read_devices
from sysd.runtime.sriov import cards, lending, loans
from sysd.runtime.sriov.loans import Wanted
from sysd.runtime.vm import parts, virtual
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.spec import Descriptor, MachineSpec
from sysd.units import helper
from sysd.units.helper import see_through
from sysd.units.systemd import SERVICE, Systemd

log = logging.getLogger(__name__)

UNIT, BESIDE = "syscont-functions@{}.service", "syscont-functions-of@{}.service"
LIMIT = 60.0
_numbers = itertools.count(1)


def check_parent(network: Network) -> int:
    """The index of the link of a network's card, 0 for one that is not there yet. Raises FailedError for one that is no
    card with virtual functions."""
    index = links.interface_index(network.link)
    if index:
        cards.find(network.link)
    return index


async def _devices_of(running: Guest) -> set[str]:
    """Devices that a guest has, perhaps not as its configuration says, as far as functions go. Raises FailedError."""
    has = loans.of(running.uuid)
    if isinstance(running, MachineGuest):
        there = await running.execute("qom-list", {"path": "/machine/peripheral"})
        names = {str(one.get("name")) for one in there}
        return {device for device in has if parts.id_of(device) in names}
    had = read_devices(running.uuid)
    return set(had.nics) if had else set(has)


class Functions:
    def __init__(self, table: Table, systemd: Systemd) -> None:
        self._table = table
        self._systemd = systemd

    async def get_ready(self, wanted: Mapping[str, Wanted]) -> None:
        """Before an instance is to have any. Raises FailedError for a parent that has none."""
        for device, one in wanted.items():
            try:
                for parent in one.parents:
                    cards.find(parent)
            except FailedError as error:
                raise FailedError(f"device {device}: {error.message}", error.hint) from None
        if wanted:
            await self.tidy()

    async def tidy(self) -> None:
        """What instances that do not run have is put back: what did so for them was killed."""
        for folder in sysfs.entries(loans.FUNCTIONS_DIR):
            instance = self._table.find_uuid(folder.name)
            try:
                if instance is None:
                    await self._run("give-back", folder.name)
                elif self._table.status(instance).state in STOPPED:
                    await self._run("give-back-left", folder.name, instance.unit)
            except FailedError as error:
                log.error("%s: %s", instance.reference if instance else "an instance that is gone", error.message)

    async def take(self, instance: Instance, wanted: Mapping[str, Wanted]) -> dict[str, str]:
        """Functions for new devices of an instance that runs: their addresses, by device. Raises FailedError, and gives
        back what it took."""
        if not wanted:
            return {}
        try:
            await self._run("take", instance.uuid, instance.reference, loans.words(wanted))
            return {device: loan.function for device, loan in loans.of(instance.uuid).items() if device in wanted}
        except BaseException:
            await see_through(self.give_back(instance, wanted))
            raise

    async def chosen(
        self, instance: Instance, made: MachineSpec, new: Mapping[str, Part]
    ) -> tuple[MachineSpec, dict[str, Part]]:
        """Of new parts of a machine that runs those that are functions, with their addresses: it, and they, as they are
        then. Raises FailedError."""
        wanted = {device: one for device, one in loans.parse(made.virtual).items() if device in new}
        found = await self.take(instance, wanted)
        values = virtual.filled(asdict(made), found)
        descriptors = [Descriptor(**each) for each in values["descriptors"]]
        changed = {name: values[name] for name in ("parts", "functions", "arguments")}
        made = replace(made, descriptors=descriptors, **changed)
        return made, {name: part for name, part in parts.load(made.parts).items() if name in new}

    async def started(self, uuid: str) -> None:
        """An instance runs, or was found again. What it was to be given when a daemon ended, and was not, goes back."""
        if not loans.of(uuid):
            return
        async with self._table.lock(uuid):
            instance = self._table.find_uuid(uuid)
            running = self._table.live(instance).guest if instance else None
            if not instance or not running:
                return
            try:
                has = await _devices_of(running)
            except FailedError as error:
                log.error("%s: %s", instance.reference, error.message)
                return
            await self.give_back(instance, [device for device in loans.of(uuid) if device not in has])

    async def give_back(self, instance: Instance, devices: Iterable[str]) -> None:
        """Of an instance that runs on. It is told to the log when that fails."""
        has = loans.of(instance.uuid)
        if gone := [device for device in devices if device in has]:
            try:
                await self._run("give-back", instance.uuid, *gone)
            except FailedError as error:
                log.error("%s: %s", instance.reference, error.message)

    @contextlib.asynccontextmanager
    async def changed(
        self, instance: Instance, running: ContainerGuest, had: Mapping[str, Plugged], made: Links
    ) -> AsyncIterator[None]:
        """For the block, a running container can be given the links of what it is to have; what it had and is not to
        have goes back after it. One that is to be another is set up anew: the guest loses it at once, and gets it back
        when the block fails."""
        before, wanted = {device: loan.wanted for device, loan in loans.of(instance.uuid).items()}, made.virtual
        new = {device: one for device, one in wanted.items() if device not in before or before[device].name != one.name}
        for device in before.keys() - wanted.keys() & made.nics.keys():
            if before[device].port:  # whose name the new end is to have
                raise FailedError(f"device {device}: it runs", "stop it before acceleration is changed")
        other = {device: before[device] for device in new if device in before}
        try:
            if new:
                await self._see_to_its_end(instance)
                await self._run("take", instance.uuid, instance.reference, loans.words(new))
            yield
        except BaseException:
            await see_through(self._undo(instance, running, had, new, other))
            raise
        await self.give_back(instance, [device for device in before if device not in wanted])

    async def _see_to_its_end(self, instance: Instance) -> None:
        """Have what a running container is given come back when it ends, also while the daemon is away: by its own
        unit, if that has known of such devices from the beginning, or else by one beside it."""
        commands = await self._systemd.unit_property(instance.unit, SERVICE, "ExecStopPost")
        beside = BESIDE.format(instance.uuid)
        if any(container.GIVE_BACK in argv for _, argv, *_ in commands) or await self._systemd.list_units(beside):
            return
        properties = {
            "Description": Variant("s", f"Virtual functions of {instance.reference}"),
            "BindsTo": Variant("as", [instance.unit]),
            "Before": Variant("as", [instance.unit]),  # so it is stopped after it
            "CollectMode": Variant("s", "inactive-or-failed"),
            "Slice": Variant("s", "syscont.slice"),
            "Type": Variant("s", "oneshot"),
            "RemainAfterExit": Variant("b", True),
            "ExecStop": Variant("a(sasb)", [container.giving_back(instance.uuid)]),
        }
        await self._systemd.finish(beside, await self._systemd.start_transient(beside, properties))

    async def _undo(
        self,
        instance: Instance,
        running: ContainerGuest,
        had: Mapping[str, Plugged],
        new: Mapping[str, Wanted],
        other: Mapping[str, Wanted],
    ) -> None:
        await self.give_back(instance, [device for device in new if device not in other])
        try:
            if other:
                await self._run("take", instance.uuid, instance.reference, loans.words(other))
            for device in other:
                if device in had:
                    await plug(running, Change(links=[*had[device].plug, *had[device].tune]))
        except FailedError as error:
            log.error("%s: its interface can't be given back to it: %s", instance.reference, error.message)

    async def _run(self, *words: str) -> None:
        unit = UNIT.format(f"{os.getpid()}-{next(_numbers)}")
        what = helper.Helper(unit, "Lend virtual functions to an instance", lending.command(*words), {})
        await helper.run(self._systemd, what, LIMIT)
