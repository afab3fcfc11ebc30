# SPDX-License-Identifier: Apache-2.0
"""Containers: how they are launched, and what changes in those that run."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from sysd.manager import hotplug
from sysd.manager.filters import Filters
from sysd.manager.functions import Functions
from sysd.manager.images import Images
from sysd.manager.interfaces import FindUplink, links_of
from sysd.manager.proxies import Proxies
from sysd.manager.table import Table
from sysd.model.errors import BusyError, FailedError
from sysd.model.instance import Instance
from sysd.runtime import container, limits
from sysd.runtime.apparmor import own
from sysd.runtime.container import Links
from sysd.runtime.devices.disk import io_properties
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.spec import Given, LaunchSpec, read_devices
from sysd.units.bus import BusError
from sysd.units.systemd import Properties, Systemd


class Containers:
    def __init__(
        self,
        table: Table,
        images: Images,
        systemd: Systemd,
        proxies: Proxies,
        filters: Filters,
        find_uplink: FindUplink,
        functions: Functions,
    ) -> None:
        self._table = table
        self._images = images
        self._systemd = systemd
        self._proxies = proxies
        self._filters = filters
        self._find_uplink = find_uplink
        self._functions = functions

    async def begin(self, expanded: Instance, upper: Path) -> None:
        return

    async def prepare(self, expanded: Instance) -> dict[str, Properties]:
        await own.load(expanded.uuid, expanded.config)
        spec, _ = await self._make_spec(expanded)
        spec.write()
        image = self._images.find(expanded.image)
        return {expanded.unit: container.unit_properties(expanded, image, spec, self._choose_cpus(expanded))}

    async def _make_spec(self, expanded: Instance) -> tuple[LaunchSpec, Links]:
        links = await links_of(expanded, self._find_uplink)
        await self._functions.get_ready(links.virtual)
        await self._filters.put(expanded)
        return container.make_spec(expanded, self._images.find(expanded.image), links), links

    def _choose_cpus(self, instance: Instance) -> frozenset[int]:
        """Spread instances over the processors; running or not, as a loaded unit can be started without us."""
        live = self._table.live(instance)
        others = (self._table.live(other).cpus for other in self._table.all() if other.uuid != instance.uuid)
        live.cpus = limits.choose_cpus(instance.config, live.cpus, others)
        return live.cpus

    def live_properties(self, expanded: Instance) -> Properties:
        return limits.live_properties(expanded.config, self._choose_cpus(expanded))

    async def change_limits(self, expanded: Instance) -> None:
        return

    async def change_stopped(self, expanded: Instance) -> None:
        return

    async def freeze(self, instance: Instance) -> None:
        await self._systemd.freeze(instance.unit)

    async def thaw(self, instance: Instance) -> None:
        await self._systemd.thaw(instance.unit)

    async def why(self, instance: Instance) -> str:
        return ""

    async def power_off(self, instance: Instance, timeout: float | None) -> None:
        return

    def is_kept(self, instance: Instance) -> bool:
        return False

    def drop_kept(self, instance: Instance) -> None:
        return

    async def forget(self, instance: Instance) -> None:
        own.unload(instance.uuid)

    async def change_devices(self, instance: Instance) -> None:
        had, running = read_devices(instance.uuid), self._table.live(instance).guest
        if had is None or not isinstance(running, ContainerGuest):
            raise BusyError(f"{instance.name} is not in a state in which its devices can be changed", "try again")
        try:
            spec = await self._change_devices(self._table.expand(instance), had, running)
        except BaseException as error:
            await asyncio.shield(self._keep_devices(instance, had))
            if isinstance(error, BusError):
                raise FailedError(f"{instance.name}: systemd refused the devices: {error.message}") from error
            if isinstance(error, FailedError):
                raise FailedError(f"{instance.name}: {error.message}", error.hint) from None
            raise
        spec.write_devices()

    async def _change_devices(self, expanded: Instance, had: Given, running: ContainerGuest) -> LaunchSpec:
        """From here on filters are those of the new configuration."""
        spec, links = await self._make_spec(expanded)
        if links.stays and not had.pin:
            raise FailedError("it runs", "stop it before it is given a physical, routed or ipvlan interface")
        todo = hotplug.steps(had.shares, had.nics, spec)
        # What comes is allowed before it is there; what goes, until it is gone.
        both = {**container.device_policy([*had.shares, *spec.shares]), **io_properties(expanded.devices)}
        await self._systemd.set_properties(expanded.unit, both)
        await self._proxies.sync(expanded)
        async with self._functions.changed(expanded, running, had.nics, links):
            await hotplug.change(running, todo)
        await self._systemd.set_properties(expanded.unit, container.device_policy(spec.shares))
        return spec

    async def _keep_devices(self, instance: Instance, had: Given) -> None:
        """After a change that could not be made: what it is allowed, its proxies and filters, as they were."""
        before = self._table.expanded(self._table.by_uuid(instance.uuid))
        with contextlib.suppress(BusError):
            await self._systemd.set_properties(instance.unit, container.device_policy(had.shares))
        with contextlib.suppress(FailedError):
            await self._proxies.sync(before)
        with contextlib.suppress(FailedError):
            await self._filters.put(before)
