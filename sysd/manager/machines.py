# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: how they are launched, and what changes in those that run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from sysd.manager.beside import Beside
from sysd.manager.filters import Filters
from sysd.manager.functions import Functions
from sysd.manager.images import NVRAM, Images
from sysd.manager.interfaces import FindUplink, links_of
from sysd.manager.lending import Lending
from sysd.manager.table import Table
from sysd.model import kinds
from sysd.model.config import get_bool, get_int
from sysd.model.devices.disk import root_size
from sysd.model.errors import BusyError, FailedError, InvalidError, SyscontError
from sysd.model.instance import Instance, State
from sysd.model.machine import DEFAULT_DISK, memory_of, processors_of
from sysd.model.sizes import format_size
from sysd.network.replay import drop_link, open_tap, replay
from sysd.runtime.container import IMAGE_DIR
from sysd.runtime.files.run import watching
from sysd.runtime.spec import Plugged
from sysd.runtime.vm import firmware, helpers, keys, mounts, parts, plugging, resize, spec, state, tpm, unit
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest
from sysd.runtime.vm.parts import SEED_NAME
from sysd.storage import growing, qcow2
from sysd.units import modules
from sysd.units.answers import clean
from sysd.units.helper import see_through
from sysd.units.journal import last_words
from sysd.units.opening import open_file
from sysd.units.systemd import Properties, Systemd

log = logging.getLogger(__name__)

ENDING = 10.0
"""Seconds that QEMU has to end by itself."""
LAST_WORDS = 0.1
PRESS_AGAIN = 1.0
"""Seconds: a guest that is about to boot may not see the power button at first."""


class Machines:
    def __init__(
        self,
        table: Table,
        images: Images,
        systemd: Systemd,
        filters: Filters,
        find_uplink: FindUplink,
        functions: Functions,
    ) -> None:
        self._table = table
        self._images = images
        self._systemd = systemd
        self._filters = filters
        self._find_uplink = find_uplink
        self._functions = functions
        self._beside = Beside(table, systemd)
        self.started = self._beside.look
        self.lending = Lending(table, systemd)
        self._arriving: dict[str, state.Kept] = {}

    async def begin(self, expanded: Instance, upper: Path) -> None:
        """A disk of the size that is asked for, with nothing on it yet that its image has not."""
        image = self._images.find(expanded.image)
        usual = image.disk_size if image.own else max(DEFAULT_DISK, image.disk_size)
        size = root_size(expanded.devices) or usual
        if size < image.disk_size:
            least = format_size(image.disk_size)
            raise InvalidError(f"size of {expanded.reference}: its image has a disk of {least}", f"at least {least}")
        with (upper / unit.DISK).open("xb") as stream:
            stream.write(qcow2.empty(size))
        with contextlib.suppress(FileNotFoundError):
            secure = get_bool(expanded.config, "security.secureboot")
            found = IMAGE_DIR / image.fingerprint / NVRAM
            await asyncio.to_thread(shutil.copyfile, found, firmware.variables(upper, secure=secure))

    async def prepare(self, expanded: Instance) -> dict[str, Properties]:
        arriving = self._arriving.get(expanded.uuid)
        kept, written = arriving or state.read(unit.folder_of(expanded)), spec.read(expanded.uuid)
        had = kept.parts if kept else written["parts"] if written else {}
        made = await self._make_spec(expanded, parts.load(had), kept, arrives=arriving is not None)
        made.write()
        found = parts.load(made.parts)
        if any(part.tpm for part in found.values()):
            await asyncio.to_thread(tpm.make_folder, expanded)
        return {expanded.unit: unit.unit_properties(expanded, made), **helpers.of_instance(expanded, found)}

    async def _make_spec(
        self, expanded: Instance, had: Mapping[str, Part], kept: state.Kept | None = None, *, arrives: bool = False
    ) -> spec.MachineSpec:
        links = await links_of(expanded, self._find_uplink)
        kinds.check_hardware(expanded, (*links.lent, *links.virtual))
        await self._filters.put(expanded)
        if links.macvtaps:
            await modules.ensure(self._systemd, unit.MACVTAP, lambda: modules.has_nodes(unit.MACVTAP))
        await self._functions.get_ready(links.virtual)
        named = any(options["type"] in ("pci", "gpu") for options in expanded.devices.values())
        if named or links.lent or links.virtual:
            await self.lending.get_ready()
        image = self._images.find(expanded.image)
        return unit.make_spec(unit.Wanted(expanded, image, links, had, await self._key(), kept, arrives))

    async def _key(self) -> str:
        """That lets us into guests by ssh; without it, there is the agent."""
        try:
            return await keys.host_key()
        except FailedError as error:
            log.warning("guests are entered by their agent alone: %s", error.message)
            return ""

    def live_properties(self, expanded: Instance) -> Properties:
        return unit.live_properties(expanded.config)

    async def change_limits(self, expanded: Instance) -> None:
        """Memory and a number of processors are changed as far as the guest goes along; which processors run it is
        seen to at the next start."""
        machine, before = self.running(expanded), self._table.expanded(self._table.by_uuid(expanded.uuid))
        memory = memory_of(expanded.config, unit.host_memory())
        if memory != memory_of(before.config, unit.host_memory()):
            await resize.set_memory(machine, memory)
        (count, pins), (had, pinned) = processors_of(expanded.config), processors_of(before.config)
        if (pins or pinned) and pins != pinned:
            raise FailedError(f"{expanded.name} runs", "stop it before it is bound to other processors")
        if count != had:
            await resize.set_processors(machine, count)

    async def change_devices(self, instance: Instance) -> None:
        """What goes comes first. A change that fails half-way leaves what was done before it."""
        machine, expanded = self.running(instance), self._table.expand(instance)
        had = parts.load(machine.spec["parts"])
        made = await self._make_spec(expanded, had)
        wanted = parts.load(made.parts)
        gone = {name: part for name, part in had.items() if name != SEED_NAME and not part.same(wanted.get(name))}
        new = {name: part for name, part in wanted.items() if name != SEED_NAME and not part.same(had.get(name))}
        if any(map(parts.is_own_disk, (*gone.values(), *new.values()))):
            raise FailedError(f"{instance.name} runs", "stop it before its root disk is changed")
        if any(part.tpm for part in (*gone.values(), *new.values())):
            raise FailedError(f"{instance.name} runs", "stop it before it is given or loses a TPM")
        if size := self._growth(expanded):
            await machine.execute("block_resize", {"node-name": "root", "size": size})
        nics = (await links_of(expanded, self._find_uplink)).nics
        there = dict(had)
        try:
            for name, part in gone.items():
                await mounts.leave(machine, part)
                await plugging.unplug(machine, part, _links(None))
                del there[name]
                # Before what serves it ends, which would be missed.
                machine.keep_parts(parts.store(there))
                await self._beside.stop(expanded, name, part)
                await self.lending.give_back(machine, expanded, there, {name: part})
                await self._functions.give_back(expanded, [name])
            made, new = await self._functions.chosen(expanded, made, new)
            async with self.lending.lent(machine, expanded, there, new):
                for name, part in new.items():
                    async with self._beside.served(expanded, name, part):
                        await plugging.plug(machine, part, self._open, _links(nics.get(name)))
                    there[name] = part
                    await mounts.enter(machine, part)
        except BaseException:
            machine.keep_parts(parts.store(there))
            await see_through(self._functions.give_back(expanded, [name for name in new if name not in there]))
            raise
        machine.keep(made)
        await self._beside.look(expanded.uuid)
        for name, nic in nics.items():
            if name not in new:
                replay([request for _, request in nic.tune])

    async def _open(self, path: str, write: bool) -> int:
        return await open_file(self._systemd, path, write=write)

    async def change_stopped(self, expanded: Instance) -> None:
        if size := self._growth(expanded):
            await growing.grow(unit.disk_path(expanded), size)

    def _growth(self, expanded: Instance) -> int:
        """The size that its disk has to get, 0 for none. The guest's partitions follow at its next boot. Raises
        InvalidError for less than it has: what is at its end would be lost."""
        wanted = root_size(expanded.devices)
        with unit.disk_path(expanded).open("rb") as stream:
            has = qcow2.inspect(stream.fileno()).size
        if 0 < wanted < has:
            what = f"size of {expanded.reference}: its disk has {format_size(has)} already"
            raise InvalidError(what, "a disk can't be made smaller")
        return wanted if wanted > has else 0

    async def freeze(self, instance: Instance) -> None:
        await self.running(instance).execute("stop")

    async def thaw(self, instance: Instance) -> None:
        """Memory that is kept, or being kept, is no longer that of its disk then."""
        machine = self.running(instance)
        await state.cancel(machine)
        state.drop(unit.folder_of(instance))
        await machine.execute("cont")

    async def keep(self, instance: Instance, show: state.Show) -> None:
        """Have one that stands still go on from here at its next start. What that needs is written first."""
        machine, expanded, folder = self.running(instance), self._table.expanded(instance), unit.folder_of(instance)
        kept = await state.save(machine, expanded, folder, show)
        try:
            made = await self._make_spec(expanded, parts.load(kept.parts), kept)
            made.write()
            await asyncio.to_thread(state.commit, folder, kept)
        except BaseException:
            state.drop(folder)
            raise

    async def save(self, instance: Instance, folder: Path, show: state.Show) -> None:
        """Write the memory of one that stands still into another folder."""
        kept = await state.save(self.running(instance), self._table.expanded(instance), folder, show)
        await asyncio.to_thread(state.commit, folder, kept)

    @contextlib.contextmanager
    def arriving(self, instance: Instance, kept: state.Kept) -> Iterator[None]:
        """Started in the block it waits for the machine that is described, which comes from elsewhere."""
        self._arriving[instance.uuid] = kept
        try:
            yield
        finally:
            del self._arriving[instance.uuid]

    async def has_arrived(self, instance: Instance) -> None:
        """It starts by itself from now on, as what it is."""
        machine = self.running(instance)
        machine.keep(await self._make_spec(self._table.expanded(instance), parts.load(machine.spec["parts"])))

    async def end(self, instance: Instance) -> None:
        """Of one that stands still, and whose memory is kept. Its processors run no more."""
        machine = self.running(instance)
        pidfd = os.dup(machine.pidfd)
        try:
            with watching(pidfd) as ended:
                await state.end(machine)
                await asyncio.wait([ended], timeout=ENDING)
                if not ended.done():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    await ended
        finally:
            os.close(pidfd)

    def is_kept(self, instance: Instance) -> bool:
        return state.is_kept(unit.folder_of(instance))

    def drop_kept(self, instance: Instance) -> None:
        state.drop(unit.folder_of(instance))

    async def why(self, instance: Instance) -> str:
        """QEMU's last words, which are on their way to the journal."""
        await asyncio.sleep(LAST_WORDS)
        said = await asyncio.to_thread(last_words, instance.unit, "qemu")
        return clean(said.partition(": ")[2])[:500]

    async def power_off(self, instance: Instance, timeout: float | None) -> None:
        """Of one that has not booted systemd would just end QEMU, and does not run what presses the button."""
        if self._table.status(instance).state is not State.STARTING:
            return
        if timeout is None:
            timeout = get_int(self._table.expanded(instance).config, "boot.host_shutdown_timeout")
        with contextlib.suppress(TimeoutError, SyscontError):
            async with asyncio.timeout(timeout):
                machine = self.running(instance)
                while self._table.live(instance).guest is machine:
                    await machine.execute("system_powerdown")
                    await asyncio.sleep(PRESS_AGAIN)

    def running(self, instance: Instance) -> MachineGuest:
        """Raises BusyError."""
        found = self._table.live(instance).guest
        if not isinstance(found, MachineGuest):
            raise BusyError(f"{instance.name} is not running", "try again")
        return found

    async def forget(self, instance: Instance) -> None:
        for path in spec.sockets_of(instance.uuid):
            path.unlink(missing_ok=True)
        await self._beside.forget(instance)


def _links(nic: Plugged | None) -> plugging.Links:
    return plugging.Links(open_tap, drop_link, partial(_send, nic))


def _send(nic: Plugged | None) -> None:
    """What makes the host's end of an interface what it is to be."""
    if nic:
        replay([request for _, request in (*nic.plug, *nic.tune)])
