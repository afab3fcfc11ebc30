# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping, as users ask for it: by the instance's unit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from sysd.manager.filters import Filters
from sysd.manager.guests import STOPPED, Guests
from sysd.manager.ids import Ids
from sysd.manager.quotas import Quotas
from sysd.manager.register import Register
from sysd.manager.runtimes import Runtime
from sysd.manager.table import Live, Table
from sysd.model import sysctls
from sysd.model.errors import FailedError, NotRunningError, SyscontError, UnsupportedError
from sysd.model.instance import RUNS, Instance, Kind, State
from sysd.model.names import from_unit_name, qualified
from sysd.runtime.guest import ContainerGuest, Guest
from sysd.runtime.spec import spec_path
from sysd.units.bus import BusError
from sysd.units.systemd import SERVICE, UNIT, JobError, Properties, Systemd

log = logging.getLogger(__name__)

LOAD_AT_ONCE = 256
FAILURE_TIMEOUT = 5
STARTS = 3
THAW_TIMEOUT = 5
"""Seconds for systemd to thaw a guest that is to stop; it takes milliseconds."""
LAUNCH_TIMEOUT = 60
"""Seconds that a launcher may take to bring the guest's PID 1 to life; what the guest takes to boot is not in it."""


class Lifecycle:
    def __init__(
        self,
        table: Table,
        systemd: Systemd,
        guests: Guests,
        register: Register,
        ids: Ids,
        quotas: Quotas,
        filters: Filters,
        runtimes: Mapping[Kind, Runtime],
        hosts_changed: Callable[[], None],
        tell_networks: Callable[[Instance], Coroutine[Any, Any, None]],
    ) -> None:
        self._table = table
        self._systemd = systemd
        self._guests = guests
        self._register = register
        self._ids = ids
        self._quotas = quotas
        self._filters = filters
        self._runtimes = runtimes
        self.hosts_changed = hosts_changed
        self.tell_networks = tell_networks

    async def begin(self, instance: Instance, upper: Path) -> None:
        """Put into the folder of a new instance what its first start finds there."""
        await self._runtimes[instance.kind].begin(self._table.expand(instance), upper)

    # what users ask for; the caller holds the instance's lock

    async def start(self, instance: Instance, *, stateless: bool = False) -> str:
        """Start a stopped instance; a running one stays as it is. Returns the job to wait_for_boot with, if any. With
        stateless it does not go on with memory that was kept, which is given up."""
        if self._table.status(instance).state not in STOPPED:
            return await self._job_of(instance)
        runtime = self._runtimes[instance.kind]
        if stateless:
            runtime.drop_kept(instance)
        live = self._table.live(instance)
        if live.stale:
            await self.forget(instance)
        units = await self._prepare(instance)
        # How long memory takes to read is for its user to judge.
        limit = None if runtime.is_kept(instance) else LAUNCH_TIMEOUT
        # Before systemd's own word for it can come, which it does while its reply is on the way.
        launched = self._guests.expect(instance)
        try:
            job = await self._ask_systemd(instance, live, units)
            await self._wait_for_launch(instance, job, launched, limit)
            return job
        except BusError as error:
            raise FailedError(f"{instance.name} can't be started: {error.message}") from error
        except FailedError as error:
            more = await self._runtimes[instance.kind].why(instance)
            raise FailedError(f"{error.message}: {more}" if more else error.message, error.hint) from None
        except TimeoutError:
            await self._give_up(instance)
            raise FailedError(f"{instance.name} was not launched within {LAUNCH_TIMEOUT} seconds") from None
        except asyncio.CancelledError:
            await self._give_up(instance)
            raise
        finally:
            self._guests.expect_no_more(instance)
            if not launched.done() or launched.exception():
                await self._guests.refresh(instance)

    async def _ask_systemd(self, instance: Instance, live: Live, units: dict[str, Properties]) -> str:
        """The job that starts the unit. machined stops the unit of a machine whose leader has ended: a start soon
        after a kill may find that job in its way, and waits for it."""
        for attempt in range(1, STARTS + 1):
            try:
                return await self._start_unit(instance, live, units)
            except BusError as error:
                if attempt == STARTS or not error.name.endswith(".TransactionIsDestructive"):
                    raise
                if job := await self._job_of(instance):
                    await self._systemd.wait_job(job)
        raise AssertionError("unreachable")

    async def _start_unit(self, instance: Instance, live: Live, units: dict[str, Properties]) -> str:
        if live.loaded:
            await self._systemd.reset_failed(instance.unit)
            return await self._systemd.start_unit(instance.unit)
        others = {name: properties for name, properties in units.items() if name != instance.unit}
        job = await self._systemd.start_transient(instance.unit, units[instance.unit], auxiliary=others)
        live.loaded = True
        return job

    async def _job_of(self, instance: Instance) -> str:
        """The job under way for an instance that starts, or that it is started by systemctl; empty if there is none."""
        number, path = await self._systemd.unit_property(instance.unit, UNIT, "Job")
        return str(path) if number else ""

    def warning(self, instance: Instance) -> str:
        """What is to be said of how it runs; mostly nothing."""
        guest = self._table.live(instance).guest
        return guest.warning if guest else ""

    async def wait_for_boot(self, instance: Instance, job: str) -> None:
        """Until the guest has booted. Not to be called with the instance's lock held: it may take for ever."""
        if job:
            await self._finish(instance, job)

    async def _finish(self, instance: Instance, job: str) -> None:
        try:
            await self._systemd.finish(instance.unit, job)
        except JobError as error:
            message = f"{instance.name} did not start ({await self._why(instance) or error.result})"
            raise FailedError(message, f"syscont logs {instance.name}") from error

    async def _why(self, instance: Instance) -> str:
        """What the launcher has told systemd last, or else how systemd calls what happened to the unit."""
        for name in ("StatusText", "Result"):
            with contextlib.suppress(BusError):
                said = await self._systemd.unit_property(instance.unit, SERVICE, name)
                if said and said != "success":
                    return str(said)
        return ""

    async def _prepare(self, instance: Instance) -> dict[str, Properties]:
        """Write what the launcher needs; returns the properties of the instance's unit, and of those it pulls in."""
        given = self._ids.give(instance)
        if given is not instance:
            self._register.commit((given,))
        instance = self._table.expanded(given)
        self._ids.check(instance)
        self._quotas.check(instance)
        return await self._runtimes[instance.kind].prepare(instance)

    async def check_startable(self, instance: Instance) -> None:
        """Raise FailedError for what is not here that it needs to start, as far as that is known before."""
        await self._prepare(instance)
        await self.forget(instance)

    async def load(self, instances: list[Instance]) -> None:
        """Let systemd know the units of stopped instances, so that systemctl can show and start them too."""
        units: dict[str, Properties] = {}
        wanted = [instance for instance in instances if not self._table.live(instance).loaded]
        for instance in wanted:
            try:
                units |= await self._prepare(instance)
            except (SyscontError, OSError) as error:
                log.warning("%s can't be prepared for systemctl: %s", instance.name, error)
        names = list(units)
        for first in range(0, len(names), LOAD_AT_ONCE):
            await self._load({name: units[name] for name in names[first : first + LOAD_AT_ONCE]})

    async def _load(self, units: dict[str, Properties]) -> None:
        """Load some units; where systemd refuses them together, one by one."""
        try:
            await self._systemd.load_transient(units)
        except BusError as error:
            if len(units) > 1:
                for name, properties in units.items():
                    await self._load({name: properties})
            else:
                log.warning("systemd does not take %s: %s", next(iter(units)), error)
            return
        for name in units:
            key = from_unit_name(name)
            if key and self._table.has(*key):
                self._table.live(self._table.get(qualified(*key))).loaded = True

    async def reload(self, instance: Instance) -> None:
        """Give systemd the unit of a stopped instance anew, as its configuration now wants it."""
        if self._table.status(instance).state in STOPPED:
            await self.forget(instance)
            await self.load([instance])

    async def reload_all(self, instances: list[Instance]) -> None:
        """reload of several, each with its lock held, and the filters of those that run, too; a unit that can't be made
        now is made at the next start."""
        for instance in instances:
            async with self._table.lock(instance.uuid):
                try:
                    await self.reload(self._table.ready(instance.uuid))
                    await self._filters.put(self._table.expanded(instance))
                except SyscontError as error:
                    log.warning("%s can't be prepared for systemctl: %s", instance.name, error)

    async def _wait_for_launch(
        self, instance: Instance, job: str, launched: asyncio.Future[None], limit: float | None
    ) -> None:
        """Until PID 1 of the guest runs."""
        ended = asyncio.ensure_future(self._systemd.wait_job(job))
        try:
            both: set[asyncio.Future[Any]] = {launched, ended}
            await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not launched.done():
                # The launcher says why before it fails; its message may still be on the way.
                await asyncio.wait({launched}, timeout=0.5)
            if launched.done():
                if launched.exception():
                    # The unit has yet to fail: until then a further start would find it on its way.
                    await asyncio.wait({ended}, timeout=FAILURE_TIMEOUT)
                launched.result()
            elif ended.done():
                await self._finish(instance, job)
            else:
                raise TimeoutError
        finally:
            ended.cancel()

    async def _give_up(self, instance: Instance) -> None:
        self._guests.expect_no_more(instance)
        await self.stop(instance, force=True)

    async def kill(self, instance: Instance) -> None:
        """End a running instance at once, also while another operation waits for it."""
        if self._table.status(instance).state not in STOPPED:
            await self._kill(instance)

    async def _kill(self, instance: Instance) -> None:
        """Its main process, with which its PID namespace ends; what tidies up after it is to run to its end."""
        await self._thaw_to_kill(instance)
        await self._guests.leave_machined(instance)
        with contextlib.suppress(BusError):
            await self._systemd.kill_unit(instance.unit, signal.SIGKILL, "main")

    async def refresh(self, instance: Instance) -> State:
        """Its state as systemd says it now, for decisions that can't be taken back."""
        await self._guests.refresh(instance)
        return self._table.status(instance).state

    async def stop(self, instance: Instance, *, force: bool = False, timeout: float | None = None) -> None:
        """Stop a running instance: its guest is asked to power off and killed when its time is over."""
        state = self._table.status(instance).state
        if state in STOPPED:
            if force and state is State.FAILED:
                # It may be by our own kill that it failed; in any case somebody wants it to be just stopped.
                await self._systemd.reset_failed(instance.unit)
                await self._guests.refresh(instance)
            return
        try:
            if force:
                await self._kill(instance)
            else:
                await self._thaw_to_stop(instance)
                await self._runtimes[instance.kind].power_off(instance, timeout)
            job = await self._systemd.stop_unit(instance.unit)
            waiting = asyncio.ensure_future(self._systemd.wait_job(job))
            if timeout is not None:
                await asyncio.wait({waiting}, timeout=timeout)
                if not waiting.done():
                    await self._kill(instance)
            await waiting
        except BusError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise FailedError(f"{instance.name} can't be stopped: {error.message}") from error
        await self._see_stopped(instance)

    async def let_end(self, instance: Instance, ending: Awaitable[None]) -> None:
        """Wait for ending, by which a guest's main process ends by itself, and for its unit."""
        try:
            await self._guests.leave_machined(instance)
            await ending
            await self._systemd.wait_job(await self._systemd.stop_unit(instance.unit))
        except BusError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise FailedError(f"{instance.name} can't be stopped: {error.message}") from error
        await self._see_stopped(instance)

    async def _see_stopped(self, instance: Instance) -> None:
        # A guest that had to be killed did not fail: it was stopped, as asked.
        await self._systemd.reset_failed(instance.unit)
        await self._guests.refresh(instance)
        if self._table.status(instance).state not in STOPPED:
            raise FailedError(f"{instance.name} did not stop")
        self._guests.drop(instance)

    async def _thaw_to_kill(self, instance: Instance) -> None:
        """systemd would wait for ever for the thaw of a container that died meanwhile. A virtual machine that stands
        still may be one that runs on another host by now, and is killed as it is."""
        if instance.kind is Kind.CONTAINER:
            await self._thaw_to_stop(instance)

    async def _thaw_to_stop(self, instance: Instance) -> None:
        """Let a frozen guest run, so that it can be asked to stop. When it ends meanwhile, systemd breaks the thaw off,
        or never answers; then there is nothing left to stop."""
        live = self._table.live(instance)
        if not live.freezer_state.startswith("fr"):
            return
        try:
            async with asyncio.timeout(THAW_TIMEOUT):
                await self._runtimes[instance.kind].thaw(instance)
        except (BusError, FailedError, TimeoutError) as error:
            log.info("%s was not thawed: %s", instance.name, error or "no answer")
        self._table.observe(instance, lambda live: setattr(live, "freezer_state", "running"))

    async def let_go_on(self, instance: Instance) -> None:
        """Thaw one that was frozen by us, whatever is known of it. Raises BusError or FailedError."""
        await self._runtimes[instance.kind].thaw(instance)

    async def freeze(self, instance: Instance, *, freeze: bool) -> None:
        state = self._table.status(instance).state
        frozen = (State.FROZEN,)
        if state in (frozen if freeze else RUNS):
            return
        if state not in (RUNS if freeze else frozen):
            raise NotRunningError(f"{instance.name} is {state}", "only a running instance can be paused")
        try:
            runtime = self._runtimes[instance.kind]
            await (runtime.freeze if freeze else runtime.thaw)(instance)
        except BusError as error:
            verb = "paused" if freeze else "resumed"
            raise FailedError(f"{instance.name} can't be {verb}: {error.message}") from error
        await self._guests.refresh(instance)

    async def put_in_force(self, instance: Instance) -> None:
        """Let an instance be what it is configured to be now, but for what waits for its next start."""
        await self._quotas.apply(self._table.expand(instance))
        await self.apply_limits(instance)
        await self.apply_devices(instance)
        await self.reload(instance)

    async def apply_limits(self, instance: Instance) -> None:
        """Put the limits of a changed configuration in force if the instance runs; the rest waits for a start."""
        expanded = self._table.expand(instance)
        sysctls.settings(expanded.config)  # what can't be together is to be known now, and not at the next start
        runtime = self._runtimes[instance.kind]
        properties = runtime.live_properties(expanded)
        self._table.live(instance).stale = True
        if self._table.status(instance).state in STOPPED:
            return
        try:
            await self._systemd.set_properties(instance.unit, properties)
        except BusError as error:
            raise FailedError(f"{instance.name}: systemd refused the limits: {error.message}") from error
        await runtime.change_limits(expanded)

    async def apply_devices(self, instance: Instance) -> None:
        """Give a running instance the devices of its changed configuration, or leave it as it was: FailedError."""
        runtime = self._runtimes[instance.kind]
        if self._table.status(instance).state in STOPPED:
            await runtime.change_stopped(self._table.expand(instance))
        else:
            await runtime.change_devices(instance)

    async def forget(self, instance: Instance) -> None:
        """Free the name of a stopped instance's unit, and remove what its last run left in /run."""
        live = self._table.live(instance)
        if live.loaded:
            await self._systemd.forget(instance.unit)
        live.loaded = live.stale = False
        live.active_state = "inactive"
        spec_path(instance.uuid).unlink(missing_ok=True)
        await self._runtimes[instance.kind].forget(instance)

    async def destroy(self, instance: Instance) -> None:
        """Leave nothing of a stopped instance that is not in its own folder."""
        await self.forget(instance)
        await self._filters.remove(instance.uuid)

    def guest_of(self, instance: Instance) -> Guest:
        """The running guest; raises NotRunningError."""
        status = self._table.status(instance)
        found = self._table.live(instance).guest
        if not found or status.state not in (*RUNS, State.STARTING):
            raise NotRunningError(f"{instance.name} is {status.state}", f"syscont start {instance.name}")
        return found

    def container_of(self, instance: Instance, what: str) -> ContainerGuest:
        """The same of a container; raises UnsupportedError for what only they can, which what says."""
        found = self.guest_of(instance)
        if not isinstance(found, ContainerGuest):
            raise UnsupportedError(f"{instance.name} is a virtual machine: {what} is for containers")
        return found
