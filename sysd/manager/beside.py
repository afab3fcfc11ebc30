# SPDX-License-Identifier: Apache-2.0
"""Units beside virtual machines (sysd.runtime.vm.helpers), of devices that come and go while their machine runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from sysd.model.errors import BusyError, FailedError
from sysd.model.instance import Instance
from sysd.runtime.vm import helpers
from sysd.runtime.vm.hardware import Part
from sysd.units.bus import BusError
from sysd.units.systemd import JobError, Properties, Systemd

log = logging.getLogger(__name__)

LOOK, LOOKS = 0.05, 40
"""Seconds between looks whether systemd has forgotten a unit that has ended, and how many."""


class Beside:
    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        systemd.on_unit_change(_note_end)

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


def _note_end(unit: str, changed: dict[str, Any]) -> None:
    """QEMU has no way to another: what is in the guest of it is of no use before the machine starts anew."""
    if changed.get("ActiveState") == "failed" and unit.startswith((helpers.FOLDERS, helpers.TPMS)):
        log.error("%s has failed: its guest is without it until the instance is started anew", unit)
