# SPDX-License-Identifier: Apache-2.0
"""Units beside virtual machines (sysd.runtime.vm.helpers): of devices that come and go while their machine runs, and
those that end before it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from sysd.manager.background import Background
from sysd.manager.table import Live, Table
from sysd.model.errors import BusyError, FailedError
from sysd.model.instance import Instance
from sysd.runtime.vm import helpers, parts
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.units.bus import BusError
from sysd.units.systemd import JobError, Properties, Systemd

log = logging.getLogger(__name__)

LOOK, LOOKS = 0.05, 40
"""Seconds between looks whether systemd has forgotten a unit that has ended, and how many."""
_ENDED = (None, "inactive", "failed")
"""States of a unit that serves nobody; None is of one that systemd does not know any more."""


class Beside:
    def __init__(self, table: Table, systemd: Systemd) -> None:
        self._table = table
        self._systemd = systemd
        self._background = Background()
        systemd.on_unit_change(self._unit_changed)

    @contextlib.asynccontextmanager
    async def served(self, instance: Instance, device: str, part: Part) -> AsyncIterator[None]:
        """What serves a device that is about to come runs; on unless that fails. Raises FailedError."""
        await self._serve(instance, device, part)
        try:
            yield
        except BaseException:
            await asyncio.shield(self.stop(instance, device, part))
            raise

    async def _serve(self, instance: Instance, device: str, part: Part) -> None:
        for unit, properties in helpers.of_instance(instance, {device: part}).items():
            try:
                await self._systemd.finish(unit, await self._start(unit, properties))
            except (BusError, JobError) as error:
                raise FailedError(f"{unit} can't be started: {error}", f"journalctl -u {unit}") from None

    async def _start(self, unit: str, properties: Properties) -> str:
        """One that the machine was started with stays known while it runs, and can't be made anew."""
        for _ in range(LOOKS):
            known = await self._systemd.list_units(unit)
            if not known:
                return await self._systemd.start_transient(unit, properties)
            if known[0].description == properties["Description"].value:
                await self._systemd.reset_failed(unit)
                return await self._systemd.start_unit(unit)
            await asyncio.sleep(LOOK)
        raise FailedError(f"{unit} is what it was when the instance started", "stop the instance to change it")

    async def stop(self, instance: Instance, device: str, part: Part) -> None:
        """After a device has gone."""
        if unit := helpers.unit_of(instance, device, part):
            with contextlib.suppress(BusError):
                await self._systemd.wait_job(await self._systemd.stop_unit(unit))
            await self._systemd.reset_failed(unit)

    async def forget(self, instance: Instance) -> None:
        """Those of an instance whose own unit is forgotten already."""
        for pattern in helpers.patterns(instance):
            for info in await self._systemd.list_units(pattern):
                with contextlib.suppress(BusyError):
                    await self._systemd.forget(info.name)


    # those that end

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        reference = helpers.reference_of(unit) if "ActiveState" in changed else ""
        if reference and self._table.knows(reference):
            self._background.run(self.look(self._table.get(reference).uuid))

    async def look(self, uuid: str) -> None:
        """See what a running machine is without. QEMU has no way to another server: what its guest has of one that has
        ended is of no use before the machine starts anew."""
        instance = self._table.find_uuid(uuid)
        machine = self._table.live(instance).guest if instance else None
        if instance is None or not isinstance(machine, MachineGuest):
            return
        before = self._table.live(instance).lost
        made = parts.load(machine.spec.get("parts", {}))
        served = {unit: name for name, part in made.items() if (unit := helpers.unit_of(instance, name, part))}
        if not served and not before:
            return
        try:
            units = [info for one in helpers.patterns(instance) for info in await self._systemd.list_units(one)]
        except BusError:
            return
        known = {info.name: info.active_state for info in units}
        lost = tuple(sorted(name for unit, name in served.items() if known.get(unit) in _ENDED))
        if self._table.find_uuid(uuid) is None or self._table.live(instance).guest is not machine:
            return  # it has ended meanwhile, and with it all that served it

        def lose(live: Live) -> None:
            live.lost = lost

        self._table.observe(instance, lose)
        for unit, name in served.items():
            if name in lost and name not in before:
                log.error("%s has ended: its guest is without it until the instance is started anew", unit)
