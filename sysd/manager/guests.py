# SPDX-License-Identifier: Apache-2.0
"""Following instances as they come and go by themselves: units, hand-overs of launchers, ends of guests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from sysd.manager.background import Background
from sysd.manager.table import Live, Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance, Kind, State
from sysd.model.names import from_unit_name, qualified
from sysd.runtime import draining, guest
from sysd.runtime.draining import Left
from sysd.runtime.guest import ContainerGuest, Guest
from sysd.runtime.limits import cpus_of_mask
from sysd.runtime.vm.machine import MachineGuest, Watcher, is_machine
from sysd.runtime.vm.unit import LAUNCHER
from sysd.units.bus import BusError
from sysd.units.journal import PRIORITY_WARNING, UnitJournal
from sysd.units.machined import Machined
from sysd.units.processes import unit_of
from sysd.units.systemd import SERVICE, UNIT, Systemd

log = logging.getLogger(__name__)

STOPPED = (State.STOPPED, State.FAILED)
_CLASSES = {Kind.CONTAINER: "container", Kind.VM: "vm"}
"""As machined calls them."""


class Guests:
    def __init__(self, table: Table, systemd: Systemd, machined: Machined) -> None:
        self._table = table
        self._systemd = systemd
        self._machined = machined
        self._launching: dict[str, asyncio.Future[None]] = {}
        self._background = Background()
        self._started: list[Callable[[str], Coroutine[Any, Any, None]]] = []
        systemd.on_unit_change(self._unit_changed)

    def on_start(self, listener: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine run, with the instance's UUID, for each guest that starts or is found to run."""
        self._started.append(listener)

    def expect(self, instance: Instance) -> asyncio.Future[None]:
        """A launch is about to be asked for: the future ends with it, well or with the launcher's own error."""
        self._launching[instance.uuid] = asyncio.get_running_loop().create_future()
        self.observe_state(instance, "activating")
        return self._launching[instance.uuid]

    def expect_no_more(self, instance: Instance) -> None:
        self._launching.pop(instance.uuid, None)

    def observe_state(self, instance: Instance, active_state: str) -> None:
        self._table.observe(instance, lambda live: setattr(live, "active_state", active_state))

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        key = from_unit_name(unit)
        if key is None or not self._table.has(*key):
            return
        instance = self._table.get(qualified(*key))

        if changed.get("ActiveState") == "inactive" and instance.uuid in self._launching:
            return  # a unit is inactive at first, when systemd has made it and not yet begun to start it

        def apply(live: Live) -> None:
            live.active_state = changed.get("ActiveState", live.active_state)
            if instance.kind is Kind.CONTAINER:
                live.freezer_state = changed.get("FreezerState", live.freezer_state)

        self._table.observe(instance, apply)

    def handed_over(self, data: bytes, fds: list[int]) -> None:
        """A launcher's last words: a guest runs, with these descriptors; or why it does not."""
        message = json.loads(data.decode(errors="replace"))
        instance = self._table.find_uuid(message.get("uuid", ""))
        kinds = message.get("fds", [])
        if instance is None or not kinds or len(fds) != len(kinds):
            for fd in fds:
                os.close(fd)
            if instance:
                why = message.get("error", "its console is missing")
                self._launched(instance, FailedError(f"{instance.name} can't be started: {why}"))
            return
        named, leader = dict(zip(kinds, fds, strict=True)), int(message["leader"])
        error = None
        try:
            # A hand-over that waited for us may name a process that is another's by now.
            if unit_of(leader) != instance.unit:
                raise ProcessLookupError
            self._warn(self._adopt(instance, leader, named, store=True))
        except ProcessLookupError:
            guest.bury(instance, named)
            error = FailedError(f"{instance.name} ended as soon as it had started", f"syscont logs {instance.name}")
        self._launched(instance, error)

    def _warn(self, found: Guest) -> None:
        """Once a start, also of one by systemctl or by the guest itself."""
        if found.warning:
            journal = UnitJournal(found.unit, found.name, found.leader)
            journal.send(found.warning, PRIORITY_WARNING)
            journal.close()

    def _launched(self, instance: Instance, error: FailedError | None) -> None:
        """Tell whoever waits for the launch; after a reboot by the guest itself nobody does."""
        waiting = self._launching.get(instance.uuid)
        if waiting is None or waiting.done():
            return
        if error:
            waiting.set_exception(error)
        else:
            waiting.set_result(None)

    def _adopt(self, instance: Instance, leader: int, fds: dict[str, int], *, store: bool) -> Guest:
        self.drop(instance)

        def addresses_changed(addresses: tuple[str, ...]) -> None:
            self._table.observe(instance, lambda live: None if live.guest is None else live.guest.take(addresses))

        found = self._make(instance, leader, addresses_changed)
        if store:
            for kind, fd in fds.items():
                guest.store_descriptor(instance.uuid, kind, fd)
        found.adopt(fds)
        found.when_ended(lambda: self._guest_ended(instance.uuid, found))
        self._table.observe(instance, lambda live: setattr(live, "guest", found))
        self._background.run(self._machined.register(instance.machine, instance.uuid, leader, _CLASSES[instance.kind]))
        for listener in self._started:
            self._background.run(listener(instance.uuid))
        return found

    def _make(self, instance: Instance, leader: int, addresses_changed: Callable[[tuple[str, ...]], None]) -> Guest:
        if instance.kind is Kind.CONTAINER:
            return ContainerGuest(instance, leader, addresses_changed)

        def freeze(frozen: bool) -> None:
            state = "frozen" if frozen else "running"
            self._table.observe(instance, lambda live: setattr(live, "freezer_state", state))

        def responsive(answers: bool) -> None:
            self._table.observe(instance, lambda live: setattr(live, "responsive", answers))

        return MachineGuest(instance, leader, Watcher(freeze, addresses_changed, responsive))

    def _guest_ended(self, uuid: str, ended: Guest) -> None:
        instance = self._table.find_uuid(uuid)
        if instance and self._table.live(instance).guest is ended:
            self.drop(instance)

    def drop(self, instance: Instance) -> None:
        found = self._table.live(instance).guest
        if found is None:
            return

        def forget(live: Live) -> None:
            live.guest = None
            live.responsive = True
            live.lost = ()
            if instance.kind is Kind.VM:
                live.freezer_state = "running"

        self._table.observe(instance, forget)
        found.close()
        self._background.run(self._machined.unregister(instance.machine))

    def told(self, cid: int, fields: str) -> None:
        """A virtual machine says something of itself, by its context id of vsock."""
        for instance in self._table.all():
            found = self._table.live(instance).guest
            if isinstance(found, MachineGuest) and found.entrance.cid == cid:
                found.notify(fields)
                return

    async def leave_machined(self, instance: Instance) -> None:
        """Before a guest is killed: machined stops the unit of a machine whose leader it finds dead, by which time the
        unit may have been started anew."""
        await self._machined.unregister(instance.machine)

    async def leave_consoles(self) -> None:
        """When the daemon ends: others read them until it is back."""
        running = [
            (instance, guest, guest.console)
            for instance in self._table.all()
            if (guest := self._table.live(instance).guest) and guest.console
        ]
        left = [
            Left(instance.unit, instance.name, guest.leader, console.leave()) for instance, guest, console in running
        ]
        try:
            if left:
                await draining.begin(self._systemd, left)
        except (BusError, OSError) as error:
            log.info("nobody reads the consoles of guests: %s", error)

    # finding out, at start and when it has to be sure

    async def refresh(self, instance: Instance) -> None:
        values = {"ActiveState": "inactive", "FreezerState": "running"}
        # One by one: a unit has a hundred and more, and all of them take longer than these.
        with contextlib.suppress(BusError):
            for name in values:
                values[name] = await self._systemd.unit_property(instance.unit, UNIT, name)
        self._unit_changed(instance.unit, values)

    async def find_running(self, stored: dict[str, dict[str, int]]) -> None:
        """At start: take up the instances that run, with the descriptors that systemd kept for us."""
        await draining.end(self._systemd)
        units = {info.name: info for info in await self._systemd.list_units("syscont@*.service")}
        for instance in self._table.all():
            info = units.pop(instance.unit, None)
            fds = stored.pop(instance.uuid, {})
            if info:
                with contextlib.suppress(BusError):
                    await self._systemd.keep(instance.unit)
                    # Made by an earlier run of ours, perhaps of an earlier version: the next start makes it anew.
                    live = self._table.live(instance)
                    live.loaded = live.stale = True
                    if "limits.cpu" in self._table.expanded(instance).config:
                        mask = await self._systemd.unit_property(instance.unit, SERVICE, "AllowedCPUs")
                        live.cpus = cpus_of_mask(bytes(mask))
                await self.refresh(instance)
                await self._take_up(instance, fds)
            elif fds:
                guest.bury(instance, fds)
        for uuid, fds in stored.items():
            for fd in fds.values():
                os.close(fd)
            guest.forget_descriptors(uuid)
        for name in units:
            log.warning("%s runs but is no instance of ours; 'systemctl stop %s' ends it", name, name)

    async def _take_up(self, instance: Instance, fds: dict[str, int]) -> None:
        if self._table.status(instance).state in STOPPED:
            guest.bury(instance, fds)
            return
        leader = int(await self._systemd.unit_property(instance.unit, SERVICE, "MainPID"))
        # While the launcher is still at work it is the main process; its hand-over is yet to come.
        if leader and (_in_own_pidns(leader) if instance.kind is Kind.CONTAINER else is_machine(leader, LAUNCHER)):
            with contextlib.suppress(ProcessLookupError):
                self._adopt(instance, leader, fds, store=False)
                return
        guest.bury(instance, fds)


def _in_own_pidns(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return False


class HandoverReader:
    """Reads the launchers' datagrams."""

    def __init__(self, sock: socket.socket, guests: Guests) -> None:
        self._socket = sock
        self._guests = guests
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, 8)
        except BlockingIOError:
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            self._guests.handed_over(data, list(fds))
        except (SyscontError, OSError, ValueError, KeyError):
            log.exception("a hand-over could not be taken")
