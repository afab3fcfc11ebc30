# SPDX-License-Identifier: Apache-2.0
"""systemd's manager over D-Bus (org.freedesktop.systemd1(5)): transient units, jobs, unit states."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dbus_next import Message, Variant

from sysd.model.errors import BusyError
from sysd.model.names import path_decode, path_encode
from sysd.units.bus import Bus, BusError, Owner

SYSTEMD = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
TIMER = "org.freedesktop.systemd1.Timer"
UNIT_PREFIX = PATH + "/unit/"

UnitListener = Callable[[str, dict[str, Any]], None]
"""Called with a unit's name and those of its properties that changed."""

Properties = dict[str, Variant]

FORGET_TIMEOUT = 5.0
FREEZE_ATTEMPTS = 10


class JobError(Exception):
    """A job did not end with "done"; result is systemd's word for it (failed, timeout, canceled, dependency)."""

    def __init__(self, unit: str, result: str) -> None:
        super().__init__(f"{unit}: job {result}")
        self.unit = unit
        self.result = result


@dataclass(frozen=True, slots=True)
class UnitInfo:
    name: str
    active_state: str
    sub_state: str
    description: str


def _pairs(properties: Properties) -> list[list[object]]:
    return [[name, value] for name, value in properties.items()]


def unit_path(unit: str) -> str:
    return UNIT_PREFIX + path_encode(unit)


class Systemd:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._owner = Owner(bus, SYSTEMD)
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._listeners: list[UnitListener] = []
        self._gone: dict[str, asyncio.Event] = {}
        self._counter = itertools.count(time.monotonic_ns() // 1000)

    async def start(self) -> None:
        """Subscribe to systemd's signals. Must run before any job is waited for."""
        await self._owner.start()
        self._bus.on_signal(self._on_signal)
        common = f"type='signal',sender='{SYSTEMD}'"
        await self._bus.add_match(f"{common},interface='{MANAGER}',member='JobRemoved'")
        await self._bus.add_match(f"{common},interface='{MANAGER}',member='UnitRemoved'")
        # Of Unit only: each change of a service comes a second time, with the properties of Service.
        await self._bus.add_match(
            f"{common},interface='org.freedesktop.DBus.Properties',"
            f"member='PropertiesChanged',path_namespace='{PATH}/unit',arg0='{UNIT}'"
        )
        await self._call("Subscribe")

    def on_unit_change(self, listener: UnitListener) -> None:
        self._listeners.append(listener)

    # jobs

    async def start_transient(
        self,
        unit: str,
        properties: Properties,
        fds: list[int] | None = None,
        auxiliary: dict[str, Properties] | None = None,
    ) -> str:
        """Create and start a unit; returns the job. A value of type h is an index into fds. auxiliary: units to make
        with it, such as what a timer starts."""
        others = [[name, _pairs(values)] for name, values in (auxiliary or {}).items()]
        body = [unit, "fail", _pairs(properties), others]
        reply = await self._bus.call_with_fds(
            SYSTEMD, PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body, fds or []
        )
        return str(reply[0])

    async def load_transient(self, units: dict[str, Properties]) -> None:
        """Make units known without starting them: StartTransientUnit's auxiliary units, beside one that does nothing.

        They stay as long as they are kept (AddRef) by us, or run.
        """
        nothing: Properties = {
            "Type": Variant("s", "oneshot"),
            "CollectMode": Variant("s", "inactive-or-failed"),
            "ExecStart": Variant("a(sasb)", [["/bin/true", ["/bin/true"], False]]),
        }
        loader = f"syscont-load-{next(self._counter)}.service"
        auxiliary = [[unit, _pairs(properties)] for unit, properties in units.items()]
        await self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", loader, "fail", _pairs(nothing), auxiliary)

    async def start_unit(self, unit: str) -> str:
        return str((await self._call("StartUnit", "ss", unit, "fail"))[0])

    async def stop_unit(self, unit: str) -> str:
        return str((await self._call("StopUnit", "ss", unit, "replace"))[0])

    async def kill_unit(self, unit: str, signal: int, whom: str = "all") -> None:
        await self._call("KillUnit", "ssi", unit, whom, signal)

    async def freeze(self, unit: str) -> None:
        """A process that leaves the unit at the same time makes systemd take it for thawed, and give up: then again."""
        for _ in range(FREEZE_ATTEMPTS - 1):
            try:
                return await self._freeze(unit)
            except BusError as error:
                if not error.name.endswith(".FreezeCancelled"):
                    raise
        return await self._freeze(unit)

    async def _freeze(self, unit: str) -> None:
        await self._call("FreezeUnit", "s", unit)

    async def thaw(self, unit: str) -> None:
        await self._call("ThawUnit", "s", unit)

    async def wait_job(self, job: str) -> str:
        """systemd's result for a job, "done" when it succeeded."""
        if job in self._ended:
            return self._ended[job]
        future = self._waiting.get(job)
        if future is None:
            future = self._waiting[job] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    async def finish(self, unit: str, job: str) -> None:
        """Wait for a job and raise JobError unless it was done."""
        result = await self.wait_job(job)
        if result != "done":
            raise JobError(unit, result)

    # units

    async def forget(self, unit: str) -> None:
        """Let go of an inactive transient unit that is still loaded, and wait until its name is free.

        Raises BusyError when it stays loaded: it runs, or something else holds it.
        """
        gone = self._gone.setdefault(unit, asyncio.Event())
        try:
            for method in ("ResetFailedUnit", "UnrefUnit"):
                with contextlib.suppress(BusError):
                    await self._call(method, "s", unit)
            if not await self._is_loaded(unit):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FORGET_TIMEOUT):
                    await gone.wait()
            if await self._is_loaded(unit):
                raise BusyError(f"{unit} is in use", f"systemctl status {unit}")
        finally:
            self._gone.pop(unit, None)

    async def _is_loaded(self, unit: str) -> bool:
        try:
            await self._call("GetUnit", "s", unit)
        except BusError:
            return False
        return True

    async def keep(self, unit: str) -> None:
        """Keep a unit loaded when it becomes inactive, as long as we are on the bus."""
        await self._call("RefUnit", "s", unit)

    async def reset_failed(self, unit: str) -> None:
        with contextlib.suppress(BusError):  # a unit that is gone has not failed
            await self._call("ResetFailedUnit", "s", unit)

    async def list_units(self, pattern: str) -> list[UnitInfo]:
        (rows,) = await self._call("ListUnitsByPatterns", "asas", [], [pattern])
        return [UnitInfo(row[0], row[3], row[4], row[1]) for row in rows]

    async def unit_property(self, unit: str, interface: str, name: str) -> Any:
        (variant,) = await self._bus.call(
            SYSTEMD, unit_path(unit), "org.freedesktop.DBus.Properties", "Get", "ss", interface, name
        )
        return variant.value

    async def set_properties(self, unit: str, properties: Properties) -> None:
        """Until the unit is unloaded. Lists are replaced: systemd itself adds to them, unless they come empty first."""
        pairs: list[list[object]] = []
        for name, value in properties.items():
            if value.signature.startswith("a("):
                pairs.append([name, Variant(value.signature, [])])
            if value.value != []:
                pairs.append([name, value])
        await self._call("SetUnitProperties", "sba(sv)", unit, True, pairs)

    async def version(self) -> str:
        (variant,) = await self._bus.call(
            SYSTEMD, PATH, "org.freedesktop.DBus.Properties", "Get", "ss", MANAGER, "Version"
        )
        return str(variant.value)

    async def _call(self, member: str, signature: str = "", *body: object) -> list[Any]:
        return await self._bus.call(SYSTEMD, PATH, MANAGER, member, signature, *body)

    # signals

    def _on_signal(self, message: Message) -> bool:
        if not self._owner.sent(message):
            return False
        if message.member == "PropertiesChanged" and message.path.startswith(UNIT_PREFIX):
            unit = path_decode(message.path[len(UNIT_PREFIX) :])
            changed = {name: variant.value for name, variant in message.body[1].items()}
            for listener in self._listeners:
                listener(unit or "", changed)
            return True
        if message.path != PATH:
            return False
        if message.member == "JobRemoved":
            self._job_ended(message.body[1], message.body[3])
        elif message.member == "UnitRemoved" and (event := self._gone.get(message.body[0])):
            event.set()
        return True

    def _job_ended(self, job: str, result: str) -> None:
        # A job can end before the reply that names it was acted on: keep the last results for late askers.
        if future := self._waiting.pop(job, None):
            future.set_result(result)
        self._ended[job] = result
        while len(self._ended) > 4096:
            self._ended.popitem(last=False)
