# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that go to another host while they run.

    source                                     target
    a backup of what the disk is above   ->    an instance with an empty disk, and a machine that waits
                                         <-    ready: a key that is good once, and ways (see sysd.manager.ways)
    QEMU to QEMU: the disk               ->
    memory: it comes now                 ->
                                         <-    receiving: QEMU waits for it
    QEMU to QEMU: memory                 ->
    the guest stands still: the rest     ->
                                         <-    kept (see sysd.manager.transfers)

Until the source decides, the guest runs there or stands still there, and goes on there when anything fails. From then
on it runs on the target, or nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sysd.manager import layers, tickets, ways
from sysd.manager.instances import make_folder
from sysd.manager.layers import Layers
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.machines import Machines
from sysd.manager.operations import Handle
from sysd.manager.states import ALLOWED_BY
from sysd.manager.table import Table
from sysd.manager.talks import Talk
from sysd.model.config import SCHEMA, get_bool, get_int
from sysd.model.errors import BusyError, DeniedError, FailedError, SyscontError, UnsupportedError
from sysd.model.instance import RUNS, Instance, new_uuid
from sysd.model.sizes import parse_size
from sysd.runtime.vm import firmware, joining, moving, parts, state, told, unit
from sysd.runtime.vm.flushing import kept_flushed
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.joining import Join, Open, Place
from sysd.runtime.vm.moving import Arriving, Leaving, Limits, Streams
from sysd.storage import qcow2

log = logging.getLogger(__name__)

KEEP = 10.0
"""Seconds in which the target says that it has all of it: the guest stands still meanwhile."""


class Living:
    def __init__(
        self,
        table: Table,
        machines: Machines,
        lifecycle: Lifecycle,
        work: Layers,
        listens_at: Callable[[], str],
    ) -> None:
        """listens_at: the address where other hosts come, "" for all."""
        self._table = table
        self._machines = machines
        self._lifecycle = lifecycle
        self._layers = work
        self._listens_at = listens_at
        self._still_since: dict[str, float] = {}

    def check(self, instance: Instance) -> None:
        """Raise unless a machine may go to another host as it is, naming what is in the way."""
        if not get_bool(self._table.expanded(instance).config, ALLOWED_BY):
            why = f"{instance.name} is running, and may not go to another host as it is"
            raise DeniedError(why, f"stop it first, or syscont config set {instance.name} {ALLOWED_BY}=true")
        if (now := self._table.status(instance).state) not in RUNS:
            raise BusyError(f"{instance.name} is {now}", "only a running machine goes to another host as it is")
        found = parts.load(self._machines.running(instance).spec["parts"])
        others = [f"device {name} ({why})" for name, part in sorted(found.items()) if (why := _tied(part))]
        if others:
            hint = "remove them, or stop it: it goes to another host when it is stopped"
            raise UnsupportedError(f"{instance.name} can't leave this host while it runs: {', '.join(others)}", hint)

    # the source's side

    async def describe(self, instance: Instance) -> dict[str, Any]:
        """What its machine is made of. Raises for one that QEMU can't send."""
        machine = self._machines.running(instance)
        memory = await machine.execute("query-memory-size-summary")
        if machine.spec["emulated"] and memory.get("plugged-memory"):
            # It aborts, at least up to 10.0 (tlb_reset_dirty_range_all), and the guest with it.
            why = f"{instance.name} is emulated, and was given more memory while it ran: QEMU can't send that"
            raise UnsupportedError(why, "stop it first")
        expanded = self._table.expanded(instance)
        return told.say(await state.describe(machine, expanded)) | told.say_streams(_streams(expanded))

    @contextlib.asynccontextmanager
    async def base(self, instance: Instance) -> AsyncIterator[Path]:
        """For the block, a layer in which nothing of the disk was written: what is below it goes before the rest."""
        place = layers.snapshots_folder(instance) / new_uuid()
        async with self._layers.draft(place):
            await asyncio.to_thread(_fill_base, unit.folder_of(instance), place / layers.UPPER)
        try:
            yield place / layers.UPPER
        finally:
            await self._layers.remove(place)

    async def send(self, handle: Handle, talk: Talk, instance: Instance, said: Mapping[str, Any]) -> None:
        """Until the other host says that it has all of it, and the guest stands still here. When it fails: stay().
        said: what describe() gave."""
        ready, streams = await talk.hear("ready"), told.read_streams(said)
        leaving = Leaving(self._machines.running(instance), lambda stage, found: _show(handle, stage, found))
        with _key_folder(tickets.secret(ready, "key"), instance.id_base) as place:
            await leaving.get_ready(place.folder)
            async with ways.leading_out(talk, ready, self._listens_at(), streams.connections) as out:
                handle.progress("disk")
                with await out.disk() as disk:
                    await leaving.copy_disk(disk.fileno())
                handle.progress("memory")
                talk.say("memory")
                async with _way_out(place, out.memory, streams):
                    async with kept_flushed(unit.disk_path(instance)):
                        await self._send_memory(talk, instance, leaving, out.memory, streams)
                    handle.progress("switch")
                    await leaving.switch()
        try:
            async with asyncio.timeout(KEEP):
                await talk.hear("kept")
        except TimeoutError:
            raise FailedError("the other host does not say that it has all of it") from None
        self._still_since[instance.uuid] = leaving.still_since

    async def _send_memory(
        self, talk: Talk, instance: Instance, leaving: Leaving, memory: Open, streams: Streams
    ) -> None:
        limits = self._limits(instance)
        if not streams.plain:
            await talk.hear("receiving")
            await leaving.spread(streams, limits)
            return
        with await memory() as connection:
            await talk.hear("receiving")
            connection.setblocking(True)  # as QEMU expects it
            await leaving.send(connection.fileno(), limits)

    def _limits(self, instance: Instance) -> Limits:
        config = self._table.expanded(instance).config
        return Limits(parse_size(SCHEMA.text(config, "migration.bandwidth")), get_int(config, "migration.downtime"))

    def tell_pause(self, handle: Handle, uuid: str) -> None:
        """The other one runs, since not later than now."""
        handle.set_result("pause", f"{(time.monotonic() - self._still_since.pop(uuid)) * 1000:.0f} ms")

    async def stay(self, instance: Instance) -> None:
        """It is not given away, and goes on here, as far as it still is."""
        with contextlib.suppress(SyscontError):
            await Leaving(self._machines.running(instance), lambda *_: None).stay(runs=True)

    async def end(self, instance: Instance) -> None:
        """It is the other host's now: what stands still here ends."""
        await self._lifecycle.stop(instance, force=True)

    # the target's side

    async def receive(self, handle: Handle, talk: Talk, uuid: str, said: Mapping[str, Any]) -> None:
        """Until all of it is here, and stands still."""
        streams = told.read_streams(said)
        await self._start(handle, uuid, said)
        instance, key = self._table.by_uuid(uuid), os.urandom(tickets.SECRET)
        arriving = Arriving(self._machines.running(instance))
        with _key_folder(key, instance.id_base) as place:
            get_ready = functools.partial(arriving.get_ready, place.folder)
            where, most = self._listens_at(), streams.connections
            async with ways.leading_in(talk, key, where, most, place, get_ready) as memory:
                handle.progress("receive")
                await talk.hear("memory")
                async with kept_flushed(unit.disk_path(instance)), joining.joining() as join:
                    await _receive_memory(talk, arriving, memory, streams, place, join)
                    await arriving.arrived()

    async def _start(self, handle: Handle, uuid: str, said: Mapping[str, Any]) -> None:
        handle.progress("start")
        async with self._table.lock(uuid):
            instance = self._table.by_uuid(uuid)
            expanded = self._table.expanded(instance)
            kept = told.read(said, instance.image)
            told.check(kept, said, instance.name, expanded.config, unit.host_memory())
            with self._machines.arriving(instance, kept):
                await self._lifecycle.start(instance)

    async def run(self, instance: Instance) -> None:
        """One that has arrived, and is ours to run. One that has ended meanwhile has its disk, and is stopped."""
        try:
            await Arriving(self._machines.running(instance)).run()
        except SyscontError as error:
            log.warning("%s has been moved here and does not go on: %s", instance.reference, error.message)

    async def settle_in(self, instance: Instance) -> None:
        """After that: it is like any other."""
        try:
            machine = self._machines.running(instance)
            machine.notify("STATUS=\nREADY=1")
            await self._machines.has_arrived(instance)
            await Arriving(machine).tidy()
        except (SyscontError, OSError) as error:
            # The guest runs; only that systemd by itself would end it without asking it, until it is started anew.
            log.warning("%s has been moved here, and its unit can't be made anew: %s", instance.reference, error)


def _tied(part: Part) -> str:
    """What ties a machine to its host, if anything does."""
    if part.passed:
        return "hardware of this host"
    if str(part.device["driver"]).startswith("usb"):
        return "a USB device of this host"
    if part.served and not part.tpm:
        return "a folder of this host"
    if part.files and part.device.get("drive") != moving.DISK:
        return "a disk of this host"
    return ""


def _fill_base(folder: Path, upper: Path) -> None:
    make_folder(upper)
    with (folder / unit.DISK).open("rb") as stream:
        size = qcow2.inspect(stream.fileno()).size
    (upper / unit.DISK).write_bytes(qcow2.empty(size))
    for secure in (True, False):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(firmware.variables(folder, secure=secure), firmware.variables(upper, secure=secure))


def _show(handle: Handle, stage: str, found: Mapping[str, int]) -> None:
    handle.progress(stage, found["bytes"], found["of"])
    if stage == "memory":
        handle.set_result("rate", f"{found['rate']} bytes/s")
        handle.set_result("dirty-rate", f"{found['dirtied']} bytes/s")
        handle.set_result("expected-pause", f"{found['pause']} ms")


@contextlib.contextmanager
def _key_folder(key: bytes, owner: int) -> Iterator[Place]:
    folder = moving.key_folder(key, owner)
    try:
        yield Place(folder, owner)
    finally:
        os.close(folder)


def _streams(expanded: Instance) -> Streams:
    config = expanded.config
    return Streams(get_int(config, "migration.channels"), SCHEMA.text(config, "migration.compression"))


def _way_out(place: Place, memory: Open, streams: Streams) -> contextlib.AbstractAsyncContextManager[None]:
    return contextlib.nullcontext() if streams.plain else joining.outward(place, memory, streams.connections)


async def _receive_memory(
    talk: Talk, arriving: Arriving, memory: Open, streams: Streams, place: Place, join: Join
) -> None:
    """Until QEMU has all connections."""
    if streams.plain:
        with await memory() as connection:
            connection.setblocking(True)  # as QEMU expects it
            await arriving.receive(connection.fileno())
        talk.say("receiving")
        return
    await arriving.listen(streams)
    talk.say("receiving")
    for _ in range(streams.connections):
        await join(await memory(), joining.reach(place, joining.MEMORY))
