# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that go to another host while they run.

    source                                     target
    a backup of what the disk is above   ->    an instance with an empty disk, and a machine that waits
                                         <-    ready: ports, and a key and a ticket that are good once
    QEMU to QEMU: the disk               ->
    ticket, then QEMU to QEMU: memory    ->
                                         <-    receiving: QEMU has the connection
    the guest stands still: the rest     ->
                                         <-    kept (see sysd.manager.transfers)

Until the source decides, the guest runs there or stands still there, and goes on there when anything fails. From then
on it runs on the target, or nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sysd.manager import layers
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
from sysd.runtime.vm import firmware, moving, parts, state, told, unit
from sysd.runtime.vm.flushing import kept_flushed
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.moving import Arriving, Leaving, Limits
from sysd.storage import qcow2

log = logging.getLogger(__name__)

KEY = TICKET = 32
CONNECT = 10.0
"""Seconds for a connection, and for a ticket on it."""
UNANSWERED = 15_000
"""Milliseconds until a connection on which nothing is acknowledged is given up: a guest that writes waits as long."""
KEEP = 10.0
"""Seconds in which the target says that it has all of it: the guest stands still meanwhile."""
BACKLOG = 8


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
        return told.say(await state.describe(machine, self._table.expanded(instance)))

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

    async def send(self, handle: Handle, talk: Talk, instance: Instance) -> None:
        """Until the other host says that it has all of it, and the guest stands still here. When it fails: stay()."""
        ready = await talk.hear("ready")
        leaving = Leaving(self._machines.running(instance), lambda stage, found: _show(handle, stage, found))
        with _key_folder(_bytes(ready, "key"), instance.id_base) as folder:
            await leaving.get_ready(folder)
            handle.progress("disk")
            with await _connect(talk.line.host, _port(ready, "disk")) as disk:
                await leaving.copy_disk(disk.fileno())
            handle.progress("memory")
            with await _connect(talk.line.host, _port(ready, "memory")) as memory:
                await asyncio.get_running_loop().sock_sendall(memory, _bytes(ready, "ticket"))
                await talk.hear("receiving")
                memory.setblocking(True)  # as QEMU expects it
                async with kept_flushed(unit.disk_path(instance)):
                    await leaving.send(memory.fileno(), self._limits(instance))
            handle.progress("switch")
            await leaving.switch()
        try:
            async with asyncio.timeout(KEEP):
                await talk.hear("kept")
        except TimeoutError:
            raise FailedError("the other host does not say that it has all of it") from None
        self._still_since[instance.uuid] = leaving.still_since

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
        await self._start(handle, uuid, said)
        instance = self._table.by_uuid(uuid)
        arriving, key, ticket = Arriving(self._machines.running(instance)), os.urandom(KEY), os.urandom(TICKET)
        with ExitStack() as stack:
            disks, memory = (stack.enter_context(self._listening()) for _ in range(2))
            folder = stack.enter_context(_key_folder(key, instance.id_base))
            await arriving.get_ready(folder, disks.fileno())
            talk.say("ready", disk=_port_of(disks), memory=_port_of(memory), key=key.hex(), ticket=ticket.hex())
            handle.progress("receive")
            with await _admit(memory, ticket) as connection:
                connection.setblocking(True)  # as QEMU expects it
                async with kept_flushed(unit.disk_path(instance)):
                    await arriving.receive(connection.fileno())
                    talk.say("receiving")
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

    def _listening(self) -> socket.socket:
        where = self._listens_at()
        if where:
            family = socket.AF_INET6 if ":" in where else socket.AF_INET
            return _plain(socket.create_server((where, 0), family=family, backlog=BACKLOG))
        if socket.has_dualstack_ipv6():
            return _plain(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG))
        return _plain(socket.create_server(("", 0), backlog=BACKLOG))


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


# what the other host says, and connections to it


def _bytes(said: Mapping[str, Any], name: str) -> bytes:
    try:
        value = bytes.fromhex(said[name])
    except (KeyError, TypeError, ValueError):
        value = b""
    if len(value) != KEY:
        raise FailedError("the other host says what is not understood here", f"its {name}")
    return value


def _port(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 < value < 1 << 16:
        raise FailedError("the other host says what is not understood here", f"its port for {name}")
    return value


def _port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@contextlib.contextmanager
def _key_folder(key: bytes, owner: int) -> Iterator[int]:
    folder = moving.key_folder(key, owner)
    try:
        yield folder
    finally:
        os.close(folder)


def _plain(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def _tune(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)
    return sock


async def _connect(host: str, port: int) -> socket.socket:
    if not host:
        why = "a machine that runs goes to a host that this one can reach"
        raise UnsupportedError(why, "set core.https_address there, or stop the machine first")
    sock = _plain(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM))
    try:
        async with asyncio.timeout(CONNECT):
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except (OSError, TimeoutError) as error:
        sock.close()
        why = f"port {port} of the other host is not reached: {error or 'no answer'}"
        raise FailedError(why, "a firewall may be in between") from None
    except BaseException:
        sock.close()
        raise
    return _tune(sock)


async def _admit(listening: socket.socket, ticket: bytes) -> socket.socket:
    """The first to show the ticket. Whoever else comes is sent away, and keeps nobody waiting."""
    loop = asyncio.get_running_loop()
    admitted: asyncio.Future[socket.socket] = loop.create_future()
    visitors: set[asyncio.Task[None]] = set()

    async def look_at(sock: socket.socket) -> None:
        shown = b""
        try:
            async with asyncio.timeout(CONNECT):
                while len(shown) < len(ticket) and (data := await loop.sock_recv(sock, len(ticket) - len(shown))):
                    shown += data
        except (OSError, TimeoutError):
            shown = b""
        except asyncio.CancelledError:
            sock.close()
            raise
        if hmac.compare_digest(shown, ticket) and not admitted.done():
            admitted.set_result(_tune(sock))
        else:
            sock.close()

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listening)
            if len(visitors) >= BACKLOG:
                sock.close()
                continue
            task = asyncio.create_task(look_at(_plain(sock)))
            visitors.add(task)
            task.add_done_callback(visitors.discard)

    accepting = asyncio.create_task(accept())
    try:
        return await admitted
    finally:
        for task in (accepting, *visitors):
            task.cancel()
