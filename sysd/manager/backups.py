# SPDX-License-Identifier: Apache-2.0
"""Backups, and images made of instances: whole root file systems as one archive through a descriptor, and back.

What is packed is a copy that was taken while the guest stood still, so it goes on meanwhile. What is unpacked becomes
images of the instance's own: the instance and its snapshots are layers above them, as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sysd.manager import layers, packing
from sysd.manager.arrivals import Arrival, Arrivals
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus
from sysd.manager.events import Kind as Happening
from sysd.manager.images import Builder, Images
from sysd.manager.layers import Layers
from sysd.manager.operations import Handle, Operations
from sysd.manager.packing import Volume
from sysd.manager.snapshots import Snapshots
from sysd.manager.stillness import Stillness
from sysd.manager.table import Table
from sysd.model import backup as form
from sysd.model import names
from sysd.model.compression import DEFAULT_COMPRESSION, PROGRAMS, check_compression
from sysd.model.errors import BusyError, FailedError, InvalidError
from sysd.model.image import Image
from sysd.model.instance import Instance, Kind, new_uuid
from sysd.model.operation import Operation
from sysd.model.restrictions import check_allowed
from sysd.model.snapshot import Snapshot
from sysd.storage.packer import DiskPlan, Plan, open_plan, packer
from sysd.units import helper
from sysd.units.bus import BusError
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)

UNIT = "syscont-pack@{}.service"


@dataclass(frozen=True, slots=True)
class Export:
    """target: the descriptor that the backup is written to. instance_only: without snapshots."""

    reference: str
    target: int
    compression: str = DEFAULT_COMPRESSION
    instance_only: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """What is written: an instance and a copy of its layer, or that of a snapshot (itself), as which the instance is
    described then; and snapshots of it."""

    instance: Instance
    upper: Path
    snapshots: Sequence[Snapshot] = ()
    itself: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Of an instance that was in use when what is packed was copied: what has changed since (nanoseconds of the epoch),
    to be packed as well when still has returned, and nobody uses its layer any more."""

    since: int
    still: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Layer:
    """What is published: a layer above an image, of an instance or of a snapshot."""

    source: str
    instance: Instance
    image: str
    path: Path
    snapshots: Sequence[Snapshot] = ()


class Backups:
    def __init__(
        self,
        events: EventBus,
        operations: Operations,
        systemd: Systemd,
        catalog: Catalog,
        table: Table,
        images: Images,
        snapshots: Snapshots,
        stillness: Stillness,
        work: Layers,
        arrivals: Arrivals,
    ) -> None:
        self._arrivals = arrivals
        self._operations = operations
        self._systemd = systemd
        self._catalog = catalog
        self._table = table
        self._images = images
        self._snapshots = snapshots
        self._stillness = stillness
        self._layers = work
        self._held: list[str] = []
        events.subscribe(self._look)

    # exporting

    def export(self, wanted: Export, owner: int) -> Operation:
        """Write a backup to a descriptor, which is closed, also when this raises."""
        try:
            return self._export(wanted, owner)
        except BaseException:
            os.close(wanted.target)
            raise

    def _export(self, wanted: Export, owner: int) -> Operation:
        check_compression(wanted.compression)
        check_stream(wanted.target)
        instance = self._table.get(wanted.reference)
        check_allowed(self._catalog.project(instance.project), "backups", "a backup")

        async def work(handle: Handle) -> None:
            try:
                handle.progress("copy")
                async with self.copied(instance.uuid) as (current, upper):
                    taken = [] if wanted.instance_only else self._snapshots.of(current)
                    await self.write(handle, Packed(current, upper, taken), wanted.target, PROGRAMS[wanted.compression])
            finally:
                os.close(wanted.target)

        return self._operations.begin("export-instance", wanted.reference, work, owner)

    async def write(
        self, handle: Handle, what: Packed, target: int, compress: str, rest: Rest | None = None
    ) -> None:
        """Write a backup to a descriptor, through a program. Raises BusyError when what it was made of has gone. rest:
        of a container, in a form that only unpack_backup reads."""
        images = [what.instance.image, *(each.image for each in what.snapshots)]
        with self.holding(images):
            plan = self._plan(what.instance, what.upper, what.snapshots, compress)
            if rest and isinstance(plan, Plan):
                volume = self._volume(what.instance, what.instance.image, what.upper)
                plan = packing.with_rest(plan, volume, layers.upper(what.instance), rest.since)
            await self._pack(handle, plan, target, rest)
        self._check_there(what.instance, [*what.snapshots, *([what.itself] if what.itself else [])])

    @contextlib.asynccontextmanager
    async def copied(self, uuid: str) -> AsyncIterator[tuple[Instance, Path]]:
        """The instance, and a copy of its layer, for the block; as it has no row it is swept after a crash."""
        async with self._table.lock(uuid):
            current = self._table.ready(uuid)
            place = await self._clone(current)
        try:
            yield current, place / layers.UPPER
        finally:
            await self._layers.remove(place)

    @contextlib.asynccontextmanager
    async def copy_of(self, current: Instance) -> AsyncIterator[Path]:
        """The same for who holds the instance's lock."""
        place = await self._clone(current)
        try:
            yield place / layers.UPPER
        finally:
            await self._layers.remove(place)

    async def _clone(self, current: Instance) -> Path:
        place = layers.snapshots_folder(current) / new_uuid()
        async with self._layers.draft(place), self._stillness.still(current):
            await self._layers.clone(layers.upper(current), place / layers.UPPER)
        return place

    def _plan(self, instance: Instance, upper: Path, taken: Sequence[Snapshot], compress: str) -> Plan | DiskPlan:
        own = self._volume(instance, instance.image, upper)
        others = [
            replace(
                self._volume(each.applied(instance), each.image, self._snapshots.layer(instance, each)), snapshot=each
            )
            for each in taken
        ]
        return packing.backup(own, others, instance, compress)

    def _volume(self, instance: Instance, image: str, layer: Path) -> Volume:
        return Volume(self._table.expand(instance), self._images.find(image), layer)

    async def _pack(self, handle: Handle, plan: Plan | DiskPlan, target: int, rest: Rest | None) -> None:
        stdin, unit = open_plan(plan), UNIT.format(handle.id)
        try:
            wanted = packer(unit, "Pack a backup", plan, stdin)
            running = await helper.start(self._systemd, wanted, stdout=target)
        finally:
            os.close(stdin)
        said = asyncio.create_task(_show_bytes(handle, running))
        ended = asyncio.ensure_future(running.wait())
        try:
            if rest and await _before(ended, rest.still()):
                await self._systemd.kill_unit(unit, signal.SIGUSR1, "main")
            if not await ended:
                await asyncio.wait([said], timeout=1)
                raise FailedError(f"the backup could not be written: {_complaint(running)}")
        except BaseException:
            ended.cancel()
            await running.stop()
            raise
        finally:
            said.cancel()

    def _check_there(self, instance: Instance, taken: Sequence[Snapshot]) -> None:
        """What was deleted while it was read has been read in part only."""
        now = self._table.find_uuid(instance.uuid)
        if now is None or {each.uuid for each in taken} - {each.uuid for each in self._snapshots.of(now)}:
            raise BusyError(f"{instance.reference}, or a snapshot of it, was deleted meanwhile", "nothing was made")

    # publishing

    def publish(self, source: str, aliases: list[str], properties: Mapping[str, str], owner: int) -> Operation:
        """Make an image of an instance or a snapshot. Properties come over those of the image that it was made of."""
        instance, snapshot = self._snapshots.find(source)
        for alias in aliases:
            names.check_alias(alias)
        self._images.check_free(aliases)

        async def work(handle: Handle) -> None:
            if snapshot:
                found = self._snapshots.get(self._table.by_uuid(instance.uuid), snapshot.name)
                layer = self._snapshots.layer(instance, found)

                await self._publish(handle, _Layer(source, instance, found.image, layer, [found]), aliases, properties)
                return
            handle.progress("copy")
            async with self.copied(instance.uuid) as (current, upper):
                await self._publish(handle, _Layer(source, current, current.image, upper), aliases, properties)

        return self._operations.begin("publish-instance", source, work, owner)

    async def _publish(
        self, handle: Handle, made_of: _Layer, aliases: list[str], properties: Mapping[str, str]
    ) -> None:
        source, image = made_of.source, self._images.find(made_of.image)
        plan = packing.image(self._volume(made_of.instance, made_of.image, made_of.path))
        facts = {
            "architecture": image.architecture,
            "properties": {**image.properties, "description": f"Made of {source}", **properties},
        }
        flags = []
        if image.kind is Kind.VM:
            facts |= {"init": image.init, "kernel_command": image.kernel_command}
            flags = ["--disk"]

        def check() -> None:
            self._check_there(made_of.instance, made_of.snapshots)
            self._images.check_free(aliases)  # another one may have been faster

        with self.holding([made_of.image]):
            stdin = open_plan(plan)
            try:
                unit = packer(UNIT.format(handle.id), f"Publish {source}", plan, stdin)
                builder = Builder(source, facts, unit, image.templates, check, flags)
                await self._images.build_with(handle, builder, aliases)
            finally:
                os.close(stdin)

    # importing

    def import_backup(self, source: int, reference: str, owner: int) -> Operation:
        """Make an instance of the backup that is read from source, which is closed, also when this raises. reference:
        its name, that in the backup when empty; ``PROJECT:`` alone is that one in another project. The operation's
        result has the name, and what was left out."""
        try:
            check_stream(source)
            project, name = names.split(reference) if reference else (names.DEFAULT_PROJECT, "")
            names.check_project_name(project)
            self._catalog.project(project)
            if name:
                names.check_instance_name(name)
        except BaseException:
            os.close(source)
            raise

        async def work(handle: Handle) -> None:
            found: list[Image] = []
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, source)

                def hold(images: list[Image]) -> None:
                    found.extend(images)
                    stack.enter_context(self.holding([image.fingerprint for image in images]))

                made = form.read(await self._images.unpack_backup(handle, source, hold))
                wanted = Arrival(names.qualified(project, name or made.instance.name))
                await self._arrivals.make(handle, wanted, made, found, owner)

        return self._operations.begin("import-instance", reference or "backup", work, owner)

    # images of instances' own

    @contextlib.contextmanager
    def holding(self, fingerprints: Iterable[str]) -> Iterator[None]:
        """In the block the images stay, though it may be that nothing is made of them any more, or yet."""
        held = list(fingerprints)
        self._held += held
        try:
            yield
        finally:
            for fingerprint in held:
                self._held.remove(fingerprint)
            self._drop_unused()

    def use_image(self, fingerprint: str) -> list[str]:
        """A backup or an image that is being made, or an import, needs the image."""
        return ["an operation under way"] if fingerprint in self._held else []

    def _look(self, event: Event) -> None:
        if event.kind is Happening.INSTANCE_REMOVED or "Snapshots" in event.changed:
            self._drop_unused()

    def _drop_unused(self) -> None:
        for image in self._images.all():
            if image.own and not self._images.users(image.fingerprint):
                self._images.delete(image.fingerprint, 0)

    async def sweep(self) -> None:
        """At start: end packers that outlived the daemon, and remove images that an interrupted import left."""
        try:
            await helper.stop_all(self._systemd, UNIT.format("*"))
        except BusError as error:
            log.error("units %s can't be stopped: %s", UNIT.format("*"), error)
        self._drop_unused()


def check_stream(fd: int) -> None:
    mode = os.fstat(fd).st_mode if fd >= 0 else 0
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise InvalidError("a backup goes to, or comes from, a regular file or a pipe")


async def _before(ended: asyncio.Future[bool], work: Coroutine[Any, Any, None]) -> bool:
    """Do work; False when ended comes first, and work is given up."""
    doing = asyncio.ensure_future(work)
    try:
        either: set[asyncio.Future[Any]] = {ended, doing}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done()
    finally:
        doing.cancel()
        await asyncio.wait({doing})


async def _show_bytes(handle: Handle, running: helper.RunningHelper) -> None:
    async for line in running.errors():
        if line.isascii() and line.isdigit():
            handle.progress("pack", int(line))
        else:
            log.info("pack: %s", line)


def _complaint(running: helper.RunningHelper) -> str:
    return next((line[:300] for line in reversed(running.tail) if not line.isdigit()), "no reason given")
