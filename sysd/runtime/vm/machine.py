# SPDX-License-Identifier: Apache-2.0
"""What the daemon holds of a running virtual machine: QEMU's monitor, and what is known of the guest by its agent.

Both are sockets in /run/syscont/vm, to which a daemon that was restarted connects anew; the guest does not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from systemd import daemon

from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.runtime.execute import Command
from sysd.runtime.guest import Guest
from sysd.runtime.session import Session
from sysd.runtime.vm import spec, trimming
from sysd.runtime.vm.agent import Agent
from sysd.runtime.vm.qmp import Qmp
from sysd.runtime.vm.sessions import Entrance

log = logging.getLogger(__name__)

AT_START = ("memory", "most_memory", "cpus", "most_cpus", "emulated", "boot", "secure_boot", "cid", "fixed")
AGAIN = 0.5
"""Seconds until a monitor that could not be reached, or does not answer, is tried again."""
PULSE = 1.0
"""Seconds after which a monitor is asked whether it is still there; twice as long without an answer, and it is not."""
PATIENCE = 5.0
Fits = Callable[[str, Mapping[str, Any]], bool]
BOOTED = ("systemctl", "is-system-running", "--wait")
BOOT_LIMIT = 3600.0
SILENCE = 300.0
"""Seconds after which a guest in which nobody says so is taken for one that has booted."""
LOOKS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between looks for the guest's addresses; the last for ever."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is to hear what changes. Called with the value as it is then."""

    frozen: Callable[[bool], None]
    addresses: Callable[[tuple[str, ...]], None]
    responsive: Callable[[bool], None]


class MachineGuest(Guest):
    """Its leader is QEMU."""

    def __init__(self, instance: Instance, leader: int, watcher: Watcher) -> None:
        super().__init__(instance, leader)
        self.frozen = False
        self.responsive = True
        self._watcher = watcher
        self.spec: dict[str, Any] = dict(spec.read(self.uuid) or {})
        self.entrance = Entrance(self.uuid, int(self.spec.get("cid", 0)))
        self._agent_lock = asyncio.Lock()
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._agent_there = asyncio.Event()
        self._trimmed = False
        self._events: list[tuple[Fits, asyncio.Future[Mapping[str, Any]]]] = []
        work = (self._attend(), self._see_booted(), self._look())
        self._tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in work]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self.entrance.agent:
            self.entrance.agent.close()
        if self.entrance.qmp:
            self.entrance.qmp.close()
        super().close()

    @property
    def warning(self) -> str:
        why = self.spec.get("emulated")
        return f"{self.name} is emulated, which is slow: {why}" if why else ""

    @property
    def has_agent(self) -> bool:
        """Whether one in the guest has opened its channel."""
        return self._agent_there.is_set()

    def keep(self, made: spec.MachineSpec) -> None:
        """What its devices are made of by now, and how it starts next, should that be by systemd alone. What it was
        started with counts until then."""
        self.spec = {**self.spec, "parts": made.parts}
        replace(made, **{name: self.spec[name] for name in AT_START}).write()

    def keep_parts(self, parts: dict[str, dict[str, Any]]) -> None:
        """What its devices are made of by now."""
        self.spec = {**self.spec, "parts": parts}
        spec.rewrite_parts(self.uuid, parts)

    # the monitor

    async def qmp(self) -> Qmp:
        """The monitor, as soon as it is connected. Raises FailedError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._connected.wait()
        if self.entrance.qmp is None:
            raise FailedError(f"QEMU of {self.name} does not answer", f"'syscont stop --force {self.name}' ends it")
        return self.entrance.qmp

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """See Qmp.execute."""
        return await (await self.qmp()).execute(command, arguments, **options)

    async def event(
        self, name: str, fits: Callable[[Mapping[str, Any]], bool] = lambda _: True, timeout: float = PATIENCE
    ) -> Mapping[str, Any]:
        """The next event of a name. Raises FailedError when it does not come in time."""
        try:
            with self.expecting(lambda its, data: its == name and fits(data)) as coming:
                async with asyncio.timeout(timeout):
                    return await coming
        except TimeoutError:
            raise FailedError(f"{self.name}: QEMU does not say {name}") from None

    @contextlib.contextmanager
    def expecting(self, fits: Fits) -> Iterator[asyncio.Future[Mapping[str, Any]]]:
        """The next event with name and data that fit; its data."""
        entry = (fits, asyncio.get_running_loop().create_future())
        self._events.append(entry)
        try:
            yield entry[1]
        finally:
            self._events.remove(entry)
            entry[1].cancel()

    async def _attend(self) -> None:
        """Be connected to the monitor, as long as there is one."""
        while True:
            try:
                await self._connect()
                self._said(responsive=True)
                while not self._lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PULSE):
                            await self._lost.wait()
                    if not self._lost.is_set():
                        await self.execute("query-status", timeout=PULSE)
                        self._said(responsive=True)
            except FailedError as error:
                log.info("%s: %s", self.unit, error.message)
                self._said(responsive=False)
            if self.entrance.qmp and self._lost.is_set():
                self._disconnect()
            await asyncio.sleep(AGAIN)

    async def _connect(self) -> None:
        if self.entrance.qmp:
            await self.execute("query-status", timeout=PULSE)
            return
        self._lost.clear()
        qmp = await Qmp.connect(spec.sockets_of(self.uuid)[0], self._happened, self._lost.set, timeout=PATIENCE)
        self.entrance.qmp = qmp
        status = await qmp.execute("query-status")
        self._freeze(frozen=not status.get("running"))
        for channel in await qmp.execute("query-chardev"):
            if channel.get("label") == "agent" and channel.get("frontend-open"):
                self._agent_there.set()
        await self.entrance.sweep()
        self._connected.set()

    def _disconnect(self) -> None:
        self._connected.clear()
        if self.entrance.qmp:
            self.entrance.qmp.close()
        self.entrance.qmp = None

    def _said(self, *, responsive: bool) -> None:
        if responsive != self.responsive:
            self.responsive = responsive
            self._watcher.responsive(responsive)

    def _freeze(self, *, frozen: bool) -> None:
        if frozen != self.frozen:
            self.frozen = frozen
            self._watcher.frozen(frozen)

    def _happened(self, name: str, data: Mapping[str, Any]) -> None:
        self.entrance.take_event(name, data)
        match name:
            case "STOP":
                self._freeze(frozen=True)
            case "RESUME":
                self._freeze(frozen=False)
            case "VSERPORT_CHANGE" if data.get("id") == "agent0":
                (self._agent_there.set if data.get("open") else self._agent_there.clear)()
            case "BLOCK_IO_ERROR":
                log.error("%s: its disk %s can't be %s: %s", self.unit, data.get("node-name"), data.get("operation"),
                          data.get("reason"))  # fmt: skip
        for fits, coming in self._events:
            if not coming.done() and fits(name, data):
                coming.set_result(data)

    # the guest

    async def agent(self) -> Agent:
        """The agent in the guest. Raises FailedError when there is none."""
        async with self._agent_lock:
            found = self.entrance.agent
            if found is None or found.closed:
                self.entrance.agent = None
                if not self._agent_there.is_set():
                    raise FailedError(f"{self.name} has no agent that answers", "is qemu-guest-agent running there?")
                found = self.entrance.agent = await Agent.connect(spec.sockets_of(self.uuid)[2])
            return found

    async def start(self, command: Command) -> Session:
        """Run a command in the guest, by whatever way there is."""
        with contextlib.suppress(FailedError):
            await self.agent()
        return await self.entrance.start(command)

    async def _see_booted(self) -> None:
        """Tell systemd when the guest has booted, if it does not do so itself (by vsock): by the word of its own
        systemd, by an agent that is there where there is none, or because nobody says so at all."""
        try:
            async with asyncio.timeout(SILENCE):
                await self._agent_there.wait()
        except TimeoutError:
            self.notify("READY=1\nSTATUS=nobody in the guest says whether it has booted")
            return
        while True:
            try:
                await (await self.agent()).execute(BOOTED, timeout=BOOT_LIMIT)
                break
            except FailedError as error:
                log.debug("%s: %s", self.unit, error.message)
                if getattr(error, "kind", ""):
                    break
            await asyncio.sleep(AGAIN)
        self.notify("READY=1")

    def notify(self, fields: str) -> None:
        """Tell systemd in the name of QEMU."""
        daemon.notify(fields, pid=self.leader)
        if "READY=1" in fields.split("\n") and not self._trimmed:
            self._trimmed = True
            self._tasks.append(asyncio.ensure_future(self._trim()))

    async def _trim(self) -> None:
        await asyncio.to_thread(trimming.trim, self.leader, os.dup(self.pidfd))

    async def _look(self) -> None:
        """The guest's addresses, as its agent has them."""
        looks = iter(LOOKS)
        while True:
            await self._agent_there.wait()
            with contextlib.suppress(FailedError):
                found = await (await self.agent()).network()
                if found != self.addresses:
                    self._watcher.addresses(found)
            await asyncio.sleep(next(looks, LOOKS[-1]))


def is_machine(pid: int, launcher: str) -> bool:
    """Whether a process is QEMU, and no launcher any more."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return not stream.read(len(launcher) + 1).startswith(launcher.encode())
    except OSError:
        return False
