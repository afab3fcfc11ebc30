# SPDX-License-Identifier: Apache-2.0
"""Hardware that comes and goes while instances that are to have it run (sysd.runtime.devices.comes_and_goes)."""

from __future__ import annotations

import asyncio
import logging

from sysd.manager.guests import STOPPED
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance, Kind
from sysd.runtime import container, devices
from sysd.runtime.devices.uevents import UeventWatch
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.plugging import Change, plug
from sysd.runtime.spec import Share, read_devices, write_shares
from sysd.runtime.vm import parts, spec, usb
from sysd.units.bus import BusError
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)


class Hardware:
    def __init__(self, table: Table, lifecycle: Lifecycle, systemd: Systemd) -> None:
        self._table = table
        self._lifecycle = lifecycle
        self._systemd = systemd
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def start(self) -> None:
        """From now on; what has changed before, while nobody watched, is looked for at once."""
        try:
            UeventWatch(self.changed)
        except OSError as error:
            log.warning("hardware that comes and goes is not seen: %s", error)
        self.changed()

    async def started(self, uuid: str) -> None:
        """A guest came up. How it was launched was written down earlier, when it is by systemd or by a reboot."""
        instance = self._table.find_uuid(uuid)
        if instance and self._follows(instance):
            await self._apply(uuid)

    def changed(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self._again:
            self._again = False
            for instance in self._table.all():
                if self._follows(instance):
                    await self._apply(instance.uuid)

    def _follows(self, instance: Instance) -> bool:
        return any(map(devices.comes_and_goes, self._table.expanded(instance).devices.values()))

    async def _apply(self, uuid: str) -> None:
        try:
            async with self._table.lock(uuid):
                await self._follow(self._table.ready(uuid))
        except BusError as error:
            log.warning("systemd refused the devices of an instance: %s", error.message)
        except SyscontError as error:
            log.warning("an instance's devices could not follow the hardware: %s", error.message)

    async def _follow(self, instance: Instance) -> None:
        """The caller holds the instance's lock."""
        if instance.kind is Kind.VM:
            return await self._follow_machine(instance)
        had = read_devices(instance.uuid)
        if had is None:
            return
        moving = self._table.expanded(instance).devices
        there = devices.present(moving)
        gone = [
            share
            for share in had.shares
            if share not in there and devices.comes_and_goes(moving.get(share.device, {"type": "none"}))
        ]
        new = [share for share in there if share not in had.shares]
        if not gone and not new:
            return
        guest = self._table.live(instance).guest
        if self._table.status(instance).state in STOPPED:
            await self._lifecycle.reload(instance)  # for those who start it by systemctl
        elif isinstance(guest, ContainerGuest):
            kept = [share for share in had.shares if share not in gone]
            await self._replace(guest, kept, gone, new)

    async def _follow_machine(self, instance: Instance) -> None:
        written, there = spec.read(instance.uuid), usb.present(self._table.expanded(instance).devices)
        if written is None or usb.held(parts.load(written["parts"])) == there:
            return
        if self._table.status(instance).state in STOPPED:
            await self._lifecycle.reload(instance)
        else:
            await self._lifecycle.apply_devices(instance)

    async def _replace(self, guest: ContainerGuest, kept: list[Share], gone: list[Share], new: list[Share]) -> None:
        """What is gone may be opened no more, whatever the guest has made of its node: the number may soon be that of
        something else."""
        await self._systemd.set_properties(guest.unit, container.device_policy([*kept, *new]))
        for share in gone:
            await _try(guest, Change(remove=[share]))
        shown = [*kept, *[share for share in new if await _try(guest, Change(add=[share]))]]
        if len(shown) < len(kept) + len(new):
            await self._systemd.set_properties(guest.unit, container.device_policy(shown))
        write_shares(guest.uuid, devices.in_order(shown))


async def _try(guest: ContainerGuest, change: Change) -> bool:
    """Whether it could be made: a guest may have put something else in the way."""
    try:
        await plug(guest, change)
    except FailedError as error:
        log.warning("%s: its devices do not follow the hardware: %s", guest.unit, error.message)
        return False
    return True
