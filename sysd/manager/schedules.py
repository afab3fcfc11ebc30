# SPDX-License-Identifier: Apache-2.0
"""snapshots.schedule and the ends of snapshots: a timer of systemd's for each instance with a schedule, which says
`syscont snapshot create --scheduled`; so `systemctl list-timers` shows when, and the journal what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from dbus_next import Variant

from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.operations import Operations
from sysd.manager.snapshots import NewSnapshot, Snapshots
from sysd.manager.table import Table
from sysd.model.config import SCHEMA
from sysd.model.errors import SyscontError
from sysd.model.instance import RUNS, Instance
from sysd.model.schedule import Schedule, parse
from sysd.units import helper
from sysd.units.bus import BusError
from sysd.units.systemd import TIMER, Properties, Systemd

log = logging.getLogger(__name__)

UNIT = "syscont-snapshot@{}"
COMMAND = ("/usr/bin/syscont", "snapshot", "create", "--scheduled")
SECOND = 1_000_000
SPREAD = 59 * 60 * SECOND
"""Over what time snapshots are spread whose minute does not matter, as LXD does; for each it is always the same."""
PATIENCE = 60.0
"""Seconds after which what failed is tried again, and the clock is looked at: it may have been set."""

_CHANGES = {"Config", "ExpandedConfig", "Profiles"}


class Schedules:
    def __init__(
        self, events: EventBus, operations: Operations, table: Table, snapshots: Snapshots, systemd: Systemd
    ) -> None:
        self._events = events
        self._operations = operations
        self._table = table
        self._snapshots = snapshots
        self._systemd = systemd
        self._timers: dict[str, Schedule] = {}
        self._dirty: asyncio.Queue[str] = asyncio.Queue()
        self._expiries_changed = asyncio.Event()
        self._started: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Once everything was found again. Timers that the last run of the daemon made go on as they are."""
        self._started = {each.uuid: self._table.status(each).leader for each in self._table.all()}
        for instance in self._table.all():
            self._mark(instance.reference)
        self._events.subscribe(self._look)
        self._tasks = [asyncio.create_task(self._keep_timers()), asyncio.create_task(self._delete_expired())]

    def _look(self, event: Event) -> None:
        if event.kind in (Kind.INSTANCE_ADDED, Kind.INSTANCE_REMOVED) or _CHANGES & set(event.changed):
            self._mark(event.reference)
        if "Snapshots" in event.changed:
            self._expiries_changed.set()
        if "State" in event.changed and event.kind is Kind.INSTANCE_CHANGED:
            self._look_for_start(event.reference)

    # timers

    def _wanted(self, reference: str) -> Schedule:
        if not self._table.knows(reference):
            return Schedule()
        config = self._table.expanded(self._table.get(reference)).config
        return parse(SCHEMA.text(config, "snapshots.schedule"))

    def _mark(self, reference: str) -> None:
        if self._wanted(reference) != self._timers.get(reference, Schedule()):
            self._dirty.put_nowait(reference)

    async def _keep_timers(self) -> None:
        """Make timers what they are to be, one after the other."""
        await self._stop_strays()
        while True:
            reference = await self._dirty.get()
            try:
                await self._set_timer(reference, self._wanted(reference))
            except (BusError, SyscontError) as error:
                log.error("the timer for snapshots of %s can't be set: %s", reference, error)
                asyncio.get_running_loop().call_later(PATIENCE, self._dirty.put_nowait, reference)

    async def _stop_strays(self) -> None:
        """Timers of instances that are no more, or have no schedule any more."""
        with contextlib.suppress(BusError):
            prefix, suffix = UNIT.format(""), ".timer"
            for info in await self._systemd.list_units(UNIT.format("*") + suffix):
                reference = info.name[len(prefix) : -len(suffix)]
                if not self._wanted(reference).calendar:
                    await self._drop(reference)

    async def _set_timer(self, reference: str, wanted: Schedule) -> None:
        unit = UNIT.format(reference)
        if wanted.calendar and await self._calendar(unit) == wanted.calendar:
            self._timers[reference] = wanted
            return
        if reference in self._timers or wanted.calendar:
            await self._drop(reference)
        self._timers.pop(reference, None)
        if wanted.calendar:
            service = {f"{unit}.service": _service(reference)}
            await self._systemd.start_transient(f"{unit}.timer", _timer(reference, wanted), auxiliary=service)
        if wanted != Schedule():
            self._timers[reference] = wanted

    async def _drop(self, reference: str) -> None:
        """A snapshot that it is taking just now is waited for."""
        unit = UNIT.format(reference)
        with contextlib.suppress(BusError):
            await self._systemd.wait_job(await self._systemd.stop_unit(f"{unit}.timer"))
        for name in (f"{unit}.timer", f"{unit}.service"):
            await self._systemd.forget(name)

    async def _calendar(self, unit: str) -> tuple[str, ...]:
        try:
            found = await self._systemd.unit_property(f"{unit}.timer", TIMER, "TimersCalendar")
        except BusError:
            return ()
        return tuple(specification for _, specification, _ in found)

    # @startup

    def _look_for_start(self, reference: str) -> None:
        if not self._table.knows(reference):
            return
        instance = self._table.get(reference)
        status = self._table.status(instance)
        if status.state not in RUNS or self._started.get(instance.uuid) == status.leader:
            return
        self._started[instance.uuid] = status.leader
        if self._wanted(reference).at_startup:
            self._take(instance)

    def _take(self, instance: Instance) -> None:
        try:
            self._snapshots.create(instance.reference, NewSnapshot(scheduled=True), 0)
        except SyscontError as error:
            log.error("no snapshot of %s at its start: %s", instance.name, error)

    # expiry

    async def _delete_expired(self) -> None:
        while True:
            self._expiries_changed.clear()
            for operation in self._snapshots.delete_expired(time.time_ns() // 1000):
                with contextlib.suppress(SyscontError):
                    await self._operations.wait(operation.id)
            ends = [each.expires for each in self._snapshots.all() if each.expires]
            pause = min(PATIENCE, max(1.0, min(ends) / SECOND - time.time())) if ends else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._expiries_changed.wait()


def _timer(reference: str, wanted: Schedule) -> Properties:
    spread = {"RandomizedDelayUSec": Variant("t", SPREAD), "FixedRandomDelay": Variant("b", True)}
    return {
        "Description": Variant("s", f"Snapshots of {reference}"),
        "TimersCalendar": Variant("a(ss)", [["OnCalendar", each] for each in wanted.calendar]),
        "AccuracyUSec": Variant("t", SECOND),
        **(spread if wanted.spread else {}),
    }


def _service(reference: str) -> Properties:
    argv = [*COMMAND, reference]
    return {
        **helper.hardened(),
        "Description": Variant("s", f"Snapshot of {reference}"),
        "Slice": Variant("s", "syscont.slice"),
        "Type": Variant("s", "oneshot"),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
    }
