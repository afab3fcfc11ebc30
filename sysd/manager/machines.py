# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: how they are launched, and what changes in those that run."""

from __future__ import annotations

import logging
from pathlib import Path

from sysd.manager.filters import Filters
from sysd.manager.images import Images
from sysd.manager.interfaces import FindUplink, links_of
from sysd.manager.table import Table
from sysd.model.devices.disk import root_size
from sysd.model.errors import BusyError, FailedError, InvalidError
from sysd.model.instance import Instance
from sysd.model.machine import DEFAULT_DISK
from sysd.model.sizes import format_size
from sysd.runtime.vm import kvm, parts, spec, unit
from sysd.runtime.vm.machine import MachineGuest
from sysd.storage import qcow2
from sysd.units.systemd import Properties, Systemd

log = logging.getLogger(__name__)


class Machines:
    def __init__(
        self, table: Table, images: Images, systemd: Systemd, filters: Filters, find_uplink: FindUplink
    ) -> None:
        self._table = table
        self._images = images
        self._systemd = systemd
        self._filters = filters
        self._find_uplink = find_uplink

    async def begin(self, expanded: Instance, upper: Path) -> None:
        """A disk of the size that is asked for, with nothing on it yet that its image has not."""
        image = self._images.find(expanded.image)
        size = root_size(expanded.devices) or max(DEFAULT_DISK, image.disk_size)
        if size < image.disk_size:
            least = format_size(image.disk_size)
            raise InvalidError(f"size of {expanded.reference}: its image has a disk of {least}", f"at least {least}")
        with (upper / unit.DISK).open("xb") as stream:
            stream.write(qcow2.empty(size))

    async def prepare(self, expanded: Instance) -> Properties:
        if why := kvm.refusal():
            log.warning("%s will be emulated, which is slow: %s", expanded.reference, why)
        made = await self._make_spec(expanded)
        made.write()
        return unit.unit_properties(expanded, made)

    async def _make_spec(self, expanded: Instance) -> spec.MachineSpec:
        links = await links_of(expanded, self._find_uplink)
        await self._filters.put(expanded)
        written = spec.read(expanded.uuid)
        had = parts.load(written["parts"]) if written else {}
        return unit.make_spec(unit.Wanted(expanded, self._images.find(expanded.image), links, had))

    def live_properties(self, expanded: Instance) -> Properties:
        return unit.live_properties(expanded.config)

    async def change_limits(self, expanded: Instance) -> None:
        return

    async def change_devices(self, instance: Instance) -> None:
        raise FailedError(f"{instance.name} runs", "stop it before its devices are changed")

    async def freeze(self, instance: Instance) -> None:
        await self.running(instance).execute("stop")

    async def thaw(self, instance: Instance) -> None:
        await self.running(instance).execute("cont")

    def running(self, instance: Instance) -> MachineGuest:
        """Raises BusyError."""
        found = self._table.live(instance).guest
        if not isinstance(found, MachineGuest):
            raise BusyError(f"{instance.name} is not running", "try again")
        return found

    async def forget(self, instance: Instance) -> None:
        for path in spec.sockets_of(instance.uuid):
            path.unlink(missing_ok=True)
