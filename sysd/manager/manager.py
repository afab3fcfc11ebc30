# SPDX-License-Identifier: Apache-2.0
"""The manager: all nouns put together, and how they are found again after a restart or a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from pathlib import Path

import sysd
from sysd.manager import profiles, snapshots
from sysd.manager.acls import Acls
from sysd.manager.actions import Caller
from sysd.manager.arrivals import Arrivals
from sysd.manager.backups import Backups
from sysd.manager.catalog import Catalog
from sysd.manager.containers import Containers
from sysd.manager.copies import Copies
from sysd.manager.departures import Departures
from sysd.manager.ephemeral import Ephemeral
from sysd.manager.events import EventBus
from sysd.manager.files import Files
from sysd.manager.filters import Filters
from sysd.manager.functions import Functions
from sysd.manager.guests import Guests
from sysd.manager.hardware import Hardware
from sysd.manager.hosts import ports_of
from sysd.manager.ids import Ids
from sysd.manager.images import Images
from sysd.manager.instances import Instances
from sysd.manager.kept import Kept
from sysd.manager.layers import Layers
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.living import Living
from sysd.manager.logs import Logs
from sysd.manager.machines import Machines
from sysd.manager.meetings import Meetings
from sysd.manager.networks import Networks
from sysd.manager.operations import Handle, Operations
from sysd.manager.overlays import Overlays
from sysd.manager.profiles import Profiles
from sysd.manager.projects import Projects
from sysd.manager.proxies import Proxies
from sysd.manager.quotas import Quotas
from sysd.manager.refreshes import Refreshes
from sysd.manager.register import Register
from sysd.manager.rules import Rules
from sysd.manager.schedules import Schedules
from sysd.manager.server import Server
from sysd.manager.sessions import Sessions
from sysd.manager.settlements import Settlements
from sysd.manager.snapshots import Snapshots
from sysd.manager.states import States
from sysd.manager.stillness import Stillness
from sysd.manager.table import Table
from sysd.manager.transfers import Transfers
from sysd.manager.trees import Trees
from sysd.manager.trust import Trust
from sysd.manager.uplinks import Uplinks
from sysd.manager.usage import Usages
from sysd.manager.zones import Zones
from sysd.model.config import get_bool, get_int
from sysd.model.errors import InvalidError, SyscontError
from sysd.model.instance import Instance, Kind, Phase
from sysd.model.operation import Operation
from sysd.model.server import HTTPS_ADDRESS, https_address, proxies
from sysd.network.ruleset import Watch
from sysd.runtime import container
from sysd.runtime.spec import LAUNCH_DIR, PIN_DIR, SOCKET_DIR, SPEC_DIR
from sysd.runtime.vm import notify
from sysd.runtime.vm.spec import VM_DIR
from sysd.storage.dir import Dir
from sysd.store.database import Store
from sysd.units.bus import Bus
from sysd.units.machined import Machined
from sysd.units.resolved import Resolved
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)

STATE_ROOT = Path("/var/lib/syscont")
STOPS_FOR_A_WHILE = (snapshots.RESTORING, "restart-instance", "send-instance")
"""Kinds of operations."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Manager:
    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self.systemd = Systemd(bus)
        self.events = EventBus()
        self.operations = Operations(store, self.events)
        self.catalog = Catalog(store)
        self.table = Table(self.events, self.catalog.expand)
        self.ids = Ids(self.table)
        driver = Dir()
        self.quotas = Quotas(self.table, driver, container.STATE_DIR)
        self.rules = Rules(self.catalog, self.table, self.ids, self.quotas)
        self.register = Register(store, self.events, self.operations, self.table, self.rules)
        self.kept = Kept(self.table, self.catalog, self.register)
        self.images = Images(
            store,
            self.events,
            self.operations,
            self.systemd,
            container.IMAGE_DIR,
            self._users_of_image,
            lambda: proxies(self.catalog.server_config),
        )
        there = ports_of(self.table)
        overlays = Overlays(store, self.catalog, there)
        self.uplinks = Uplinks(self.catalog, self.systemd, Resolved(bus), there, overlays)
        self.guests = Guests(self.table, self.systemd, Machined(bus))
        self.proxies = Proxies(self.table, self.systemd)
        self.guests.on_start(self.proxies.started)
        self.filters = Filters(self.table)
        self._ruleset = Watch(self._table_gone)
        self.functions = Functions(self.table, self.systemd)
        self.guests.on_start(self.functions.started)
        find_uplink = self.uplinks.uplink
        machines = Machines(self.table, self.images, self.systemd, self.filters, find_uplink, self.functions)
        self.guests.on_start(machines.started)
        self.lifecycle = Lifecycle(
            self.table,
            self.systemd,
            self.guests,
            self.register,
            self.ids,
            self.quotas,
            self.filters,
            {
                Kind.CONTAINER: Containers(
                    self.table, self.images, self.systemd, self.proxies, self.filters, find_uplink, self.functions
                ),
                Kind.VM: machines,
            },
            self.uplinks.hosts_changed,
            self.uplinks.tell,
        )
        self.networks = Networks(
            store,
            self.catalog,
            self.events,
            self.operations,
            self.table,
            self.uplinks,
            self.lifecycle.reload_all,
            self.kept,
        )
        self.lending = machines.lending
        self.guests.on_start(self.lending.started)
        self.acls = Acls(
            self.catalog, self.events, self.operations, self.table, self.networks, self.uplinks
        )
        self.hardware = Hardware(self.table, self.lifecycle, self.systemd)
        self.guests.on_start(self.hardware.started)
        self.instances = Instances(
            self.register,
            self.events,
            self.operations,
            self.images,
            self.lifecycle,
            self.table,
            self.catalog,
            self.ids,
            self.quotas,
            self.kept,
        )
        self.profiles = Profiles(
            self.catalog,
            self.events,
            self.operations,
            self.table,
            self.register,
            self.rules,
            self.lifecycle,
            self.quotas,
            self.kept,
        )
        self.zones = Zones(store, self.catalog, self.events, self.table)
        self.server = Server(
            self.catalog,
            self.events,
            self.operations,
            self.table,
            self.lifecycle,
        )
        self.server.before_change(self.zones.check_server_config)
        self.server.before_change(overlays.check_server_config)
        self.trust = Trust(store, self.catalog, self.events, STATE_ROOT)
        self.projects = Projects(store, self.catalog, self.events, self.table, self.rules)
        self.sessions = Sessions(self.table, self.lifecycle, self.systemd)
        self.logs = Logs(self.table)
        self.usages = Usages(self.table, self.systemd, self.quotas)
        layers = Layers(driver)
        stillness = Stillness(store, self.table, self.lifecycle)
        self.states = States(self.table, self.lifecycle, stillness, machines)
        self.snapshots = Snapshots(
            store,
            self.events,
            self.operations,
            self.catalog,
            self.table,
            self.register,
            self.lifecycle,
            stillness,
            self.states,
            layers,
            self.quotas,
            self.kept,
        )
        self.instances.before_move(self.snapshots.check_room)
        self.copies = Copies(self.table, self.instances, self.snapshots, stillness, layers, self.quotas)
        arrivals = Arrivals(
            self.operations, self.catalog, self.instances, self.snapshots, layers, self.quotas, self.lifecycle
        )
        self.backups = Backups(
            self.events,
            self.operations,
            self.systemd,
            self.catalog,
            self.table,
            self.images,
            self.snapshots,
            stillness,
            layers,
            arrivals,
        )
        self.meetings = Meetings(self.trust)
        living = Living(self.table, machines, self.lifecycle, layers, self._listens_at)
        self.settlements = Settlements(
            store, self.table, self.instances, self.trust, self.meetings, self.lifecycle, living
        )
        departures = Departures(
            self.table,
            self.instances,
            self.snapshots,
            self.lifecycle,
            self.backups,
            self.settlements,
            self.states,
            living,
        )
        self.transfers = Transfers(
            self.operations,
            self.catalog,
            self.table,
            self.images,
            self.instances,
            self.lifecycle,
            self.backups,
            arrivals,
            departures,
            self.meetings,
            self.settlements,
            Refreshes(self.table, self.instances, self.snapshots, self.lifecycle, self.quotas, arrivals),
            living,
        )
        self.ephemeral = Ephemeral(
            self.events, self.operations, self.table, self.register, self.lifecycle, self.instances
        )
        self.schedules = Schedules(self.events, self.operations, self.table, self.snapshots, self.systemd)
        self.files = Files(self.table, Trees(self.table, self.lifecycle, self.images), self.operations)

    async def start(self, stored: dict[str, dict[str, int]]) -> None:
        """Find everything again; stored are the guests' descriptors that systemd kept."""
        make_directories()
        await self.systemd.start()
        interrupted = self.operations.interrupted()
        for operation in interrupted:
            log.warning("%s of %s was interrupted and is being put right", operation.kind, operation.target)
        for instance in self._store.instances():
            self.table.add(instance)
        await self.images.sweep()
        await self.guests.find_running(stored)
        notify.open(self.guests.told)
        await self._finish_interrupted()
        await self.snapshots.finish_interrupted()
        await self.ephemeral.finish({o.target.partition("/")[0] for o in interrupted if o.kind in STOPS_FOR_A_WHILE})
        await self.quotas.apply_all()
        await self.backups.sweep()
        self._ruleset.start()
        await self.networks.start()
        await self.filters.start()
        await self.lending.tidy()
        await self.functions.tidy()
        await self.lifecycle.load([i for i in self.table.all() if i.phase is Phase.READY])
        for operation in interrupted:
            await self._finish_change(operation)
            self.operations.forget(operation)
        self.zones.start()
        self.trust.start()
        await self.settlements.start()
        self.schedules.start()
        self.hardware.start()

    def _table_gone(self, name: str) -> None:
        self.uplinks.table_gone(name)
        self.filters.table_gone(name)

    async def _finish_change(self, operation: Operation) -> None:
        if operation.kind == profiles.CHANGE:
            try:
                await self.profiles.finish(operation.target)
            except SyscontError as error:
                log.error("%s", error)

    def _listens_at(self) -> str:
        """The address where other hosts come; "" for all, and for none."""
        where = self.catalog.server_config.get(HTTPS_ADDRESS)
        return https_address(where)[0] if where else ""

    async def _finish_interrupted(self) -> None:
        """Instances half made or half deleted are removed: the one was never said to be there, the other to be gone."""
        for instance in self.table.all():
            if instance.phase not in (Phase.READY, Phase.ARRIVING):
                log.warning("removing instance %s, left %s", instance.name, instance.phase)
                try:
                    await self.lifecycle.stop(instance, force=True)
                    await self.instances.destroy(instance)
                except (SyscontError, OSError) as error:
                    log.error("instance %s can't be removed: %s", instance.name, error)

    # start at boot

    def autostart(self) -> None:
        """Once per boot of the host: start what is to be started, the highest priority first. What is yet to be
        started is remembered, so that the end of the daemon does not leave it out."""
        boot_id = BOOT_ID.read_text().strip()
        if self._store.get_meta("boot_id") != boot_id:
            everyone = [self.table.expanded(i) for i in self.table.all()]
            wanted = [i for i in everyone if get_bool(i.config, "boot.autostart")]
            wanted.sort(key=lambda i: -get_int(i.config, "boot.autostart.priority"))
            with self._store.transaction():
                self._store.set_meta("boot_id", boot_id)
                self._store.set_meta("autostart", " ".join(i.uuid for i in wanted))
        pending = (self._store.get_meta("autostart") or "").split()
        if pending:

            async def work(handle: Handle) -> None:
                await self._autostart(handle, pending)

            self.operations.begin("autostart", f"{len(pending)} instances", work)

    async def _autostart(self, handle: Handle, pending: list[str]) -> None:
        while pending:
            instance = self.table.find_uuid(pending[0])
            if instance:
                handle.progress(instance.name)
                try:
                    async with self.table.lock(instance.uuid):
                        await self.lifecycle.start(self.table.ready(instance.uuid))
                except Exception as error:  # whatever is wrong with one, the others are to come up
                    log.error("%s was not started at boot: %s", instance.name, error)
            del pending[0]
            self._store.set_meta("autostart", " ".join(pending))
            if instance:
                await asyncio.sleep(get_int(self.table.expanded(instance).config, "boot.autostart.delay"))

    # single steps of a lifecycle, as operations

    def change_state(
        self,
        name: str,
        verb: str,
        owner: int,
        *,
        wait: bool = False,
        force: bool = False,
        timeout: float | None = None,
        stateful: bool = False,
        stateless: bool = False,
    ) -> Operation:
        """verb: start, stop, restart, pause or resume. stateful: stop it with its memory kept; stateless: start it
        without memory that was kept."""
        uuid = self.table.get(name).uuid
        if stateful:
            if force or timeout is not None:
                raise InvalidError("what is stopped with its memory is not asked, nor killed", "leave --stateful out")
            self.states.check(self.table.by_uuid(uuid))

        async def work(handle: Handle) -> None:
            if force:
                await self.lifecycle.kill(self.table.by_uuid(uuid))
            job = ""
            async with self.table.lock(uuid):
                instance = self.table.ready(uuid)
                match verb:
                    case "pause" | "resume":
                        await self.lifecycle.freeze(instance, freeze=verb == "pause")
                    case "stop" if stateful:
                        await self.states.stop(handle, instance)
                    case "stop" | "restart":
                        await self.lifecycle.stop(instance, force=force, timeout=timeout)
                if verb in ("start", "restart"):
                    job = await self.lifecycle.start(instance, stateless=stateless)
                    handle.warn(self.lifecycle.warning(instance))
            if wait:
                await self.lifecycle.wait_for_boot(instance, job)

        # systemd is what remembers these; a crash leaves nothing of ours to put right, but that what stops for a while
        # is not to be deleted for it.
        instance = self.table.by_uuid(uuid)
        record = verb == "restart" and instance.ephemeral
        return self.operations.begin(f"{verb}-instance", instance.reference, work, owner, record=record)

    # facts

    async def info(self) -> dict[str, str | int]:
        return {
            "version": sysd.__version__,
            "systemdVersion": await self.systemd.version(),
            "kernel": platform.release(),
            "instances": len(self.table.all()),
            "images": len(self.images.all()),
            "fingerprint": self.trust.fingerprint,
        }

    def image_alias(self, instance: Instance) -> str:
        """A name for the image an instance was made from, for people; empty when it has none."""
        return next(iter(self.images.aliases(instance.image)), "")

    def is_own_operation(self, operation_id: str, caller: Caller) -> bool:
        return self.operations.get(operation_id).owner == caller.uid

    def _users_of_image(self, fingerprint: str) -> list[str]:
        instances = [i.name for i in self.table.all() if i.image == fingerprint]
        return [
            *instances,
            *self.snapshots.use_image(fingerprint),
            *self.backups.use_image(fingerprint),
            *self._store.unreadable_users(fingerprint),
        ]


def make_directories() -> None:
    """Guests' files are unshifted on disk, setuid bits and all: no host user may reach them (mode 0700)."""
    STATE_ROOT.mkdir(mode=0o711, exist_ok=True)
    ours = (container.STATE_DIR, container.IMAGE_DIR, STATE_ROOT / "networks")
    for path in (*ours, SPEC_DIR, PIN_DIR, SOCKET_DIR):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whoever runs ssh for us knows the names of the sockets that it is to use there.
    VM_DIR.mkdir(exist_ok=True)
    os.chmod(VM_DIR, 0o711)
    for name in ("image", "state", "root", "devices"):
        (LAUNCH_DIR / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chmod(LAUNCH_DIR, 0o755)
