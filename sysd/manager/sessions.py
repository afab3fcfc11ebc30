# SPDX-License-Identifier: Apache-2.0
"""Commands and consoles in running instances."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

from sysd.manager.lifecycle import Lifecycle
from sysd.manager.table import Table
from sysd.model.errors import BusyError, InvalidError, NotFoundError, NotRunningError
from sysd.model.instance import Instance
from sysd.runtime import container, execute, limits
from sysd.runtime.execute import Command
from sysd.runtime.guest import Guest
from sysd.runtime.session import Session
from sysd.units.systemd import SERVICE, Systemd

MAX_SESSIONS = 4096
MAX_SESSION_NAME = 64


class Sessions:
    def __init__(self, table: Table, lifecycle: Lifecycle, systemd: Systemd) -> None:
        self._table = table
        self._lifecycle = lifecycle
        self._systemd = systemd
        self._running: dict[object, Session | None] = {}
        """By owner and name, those without a name by nothing that can be asked for; None is about to start."""

    async def execute(
        self,
        name: str,
        command: Command,
        *,
        session: str = "",
        owner: int = 0,
        on_terminal: Callable[[int], None] | None = None,
    ) -> int:
        """Run command in the instance and return its exit status. on_terminal gets the terminal's controlling
        side and closes it. session names the run, among those of owner, for signal()."""
        instance = self._table.get(name)
        guest = self._lifecycle.guest_of(instance)
        with self._slot(owner, session) as slot:
            config = self._table.expanded(instance).config
            environment = container.environment(config) | dict(command.environment)
            cgroup = await self._cgroup(instance, guest)
            if self._lifecycle.guest_of(instance) is not guest:
                raise NotRunningError(f"{instance.name} was restarted meanwhile")
            wanted = replace(command, environment=environment, limits=limits.rlimit_numbers(config))
            running = await execute.start(guest.leader, guest.pidfd, cgroup, guest.confinement, wanted)
            self._running[slot] = running
            _hand_terminal(running, on_terminal)
            return await running.wait()

    @contextlib.contextmanager
    def _slot(self, owner: int, session: str) -> Iterator[object]:
        """A place among the sessions, taken before the first await: two that come at once can't both have it."""
        if len(session) > MAX_SESSION_NAME:
            raise InvalidError("the session's name is too long", f"at most {MAX_SESSION_NAME} characters")
        slot = (owner, session) if session else object()
        if slot in self._running:
            raise BusyError("a session of this name runs already")
        if len(self._running) >= MAX_SESSIONS:
            raise BusyError("too many sessions at once")
        self._running[slot] = None
        try:
            yield slot
        finally:
            del self._running[slot]

    async def _cgroup(self, instance: Instance, guest: Guest) -> str:
        """Of the instance's unit, kept as long as its leader lives."""
        if not guest.cgroup:
            guest.cgroup = str(await self._systemd.unit_property(instance.unit, SERVICE, "ControlGroup"))
        if not guest.cgroup:
            raise NotRunningError(f"{instance.name} has no processes")
        return guest.cgroup

    def signal(self, session: str, number: int, owner: int) -> None:
        if not 1 <= number <= 64:
            raise InvalidError(f"no signal {number}", "1 to 64")
        running = self._running.get((owner, session))
        if running is None:
            raise NotFoundError("no such session")
        running.signal(number)

    def open_console(self, name: str) -> int:
        """A stream to the instance's console; the receiver closes it."""
        instance = self._table.get(name)
        console = self._lifecycle.guest_of(instance).console
        if console is None:
            raise NotRunningError(f"the console of {name} was lost", f"restart {name} to get a new one")
        return console.attach()

    def resize_console(self, name: str, columns: int, rows: int) -> None:
        if not (1 <= columns <= 10000 and 1 <= rows <= 10000):
            raise InvalidError(f"no terminal has {columns} columns and {rows} rows")
        if console := self._lifecycle.guest_of(self._table.get(name)).console:
            console.resize(columns, rows)


def _hand_terminal(running: Session, on_terminal: Callable[[int], None] | None) -> None:
    if running.terminal < 0:
        return
    if on_terminal is None:
        os.close(running.terminal)
        return
    try:
        on_terminal(running.terminal)
    except BaseException:
        running.abandon(signal.SIGHUP)
        raise
