# SPDX-License-Identifier: Apache-2.0
"""Hardware that comes and goes while instances that are to have it run (usb and unix-hotplug devices)."""

from __future__ import annotations

import asyncio
import logging

from sysd.manager.guests import STOPPED
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.table import Table
from sysd.model.errors import SyscontError
from sysd.runtime.devices import COMES_AND_GOES
from sysd.runtime.devices.uevents import UeventWatch

log = logging.getLogger(__name__)


class Hardware:
    def __init__(self, table: Table, lifecycle: Lifecycle) -> None:
        self._table = table
        self._lifecycle = lifecycle
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def start(self) -> None:
        """From now on; what has changed before, while nobody watched, is looked for at once."""
        try:
            UeventWatch(self.changed)
        except OSError as error:
            log.warning("hardware that comes and goes is not seen: %s", error)
        self.changed()

    def changed(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self._again:
            self._again = False
            for instance in self._table.all():
                kinds = {options["type"] for options in self._table.expanded(instance).devices.values()}
                if kinds & COMES_AND_GOES and self._table.status(instance).state not in STOPPED:
                    await self._apply(instance.uuid)

    async def _apply(self, uuid: str) -> None:
        try:
            async with self._table.lock(uuid):
                await self._lifecycle.apply_devices(self._table.ready(uuid))
        except SyscontError as error:
            log.warning("an instance's devices could not follow the hardware: %s", error.message)
