# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping: an instance's unit, and following it as it comes and goes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sysd.manager.images import Images
from sysd.manager.table import Live, Table
from sysd.model.errors import FailedError, NotRunningError, SyscontError
from sysd.model.instance import Instance, State
from sysd.model.names import from_unit_name
from sysd.network import links
from sysd.runtime import container, guest
from sysd.runtime.guest import Guest
from sysd.runtime.spec import NETNS_FD, spec_path
from sysd.units.bus import BusError
from sysd.units.machined import Machined
from sysd.units.systemd import SERVICE, UNIT, JobError, Properties, Systemd

log = logging.getLogger(__name__)

STOPPED = (State.STOPPED, State.FAILED)
LOAD_AT_ONCE = 256
LAUNCH_TIMEOUT = 60
"""Seconds that a launcher may take to bring the guest's PID 1 to life; what the guest takes to boot is not in it."""


class Lifecycle:
    def __init__(
        self,
        table: Table,
        images: Images,
        systemd: Systemd,
        machined: Machined,
        network_index: Callable[[], Coroutine[Any, Any, int]],
        hosts_changed: Callable[[], None],
    ) -> None:
        self._table = table
        self._images = images
        self._systemd = systemd
        self._machined = machined
        self._network_index = network_index
        self.hosts_changed = hosts_changed
        self._launching: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        systemd.on_unit_change(self._unit_changed)

    # what users ask for; the caller holds the instance's lock

    async def start(self, instance: Instance, *, wait: bool) -> None:
        """Start a stopped instance; a running one stays as it is. wait: until its guest has booted."""
        if self._table.status(instance).state not in STOPPED:
            return
        live = self._table.live(instance)
        if live.stale:
            await self.forget(instance)
        properties = await self._prepare(instance)
        launched = self._launching[instance.uuid] = asyncio.get_running_loop().create_future()
        # Set before systemd's own word for it can come, which it does while its reply is on the way.
        self._observe_state(instance, "activating")
        try:
            if live.loaded:
                await self._systemd.reset_failed(instance.unit)
                job = await self._systemd.start_unit(instance.unit)
            else:
                job = await self._systemd.start_transient(instance.unit, properties)
                live.loaded = True
            await self._wait_for_launch(instance, job, launched, wait=wait)
        except BusError as error:
            raise FailedError(f"{instance.name} can't be started: {error.message}") from error
        except JobError as error:
            raise FailedError(
                f"{instance.name} did not start ({error.result})", f"syscont logs {instance.name}"
            ) from error
        except TimeoutError:
            await self._give_up(instance)
            raise FailedError(f"{instance.name} was not launched within {LAUNCH_TIMEOUT} seconds") from None
        except asyncio.CancelledError:
            await self._give_up(instance)
            raise
        finally:
            self._launching.pop(instance.uuid, None)
            if not launched.done() or launched.exception():
                await self._refresh(instance)

    async def _prepare(self, instance: Instance) -> Properties:
        """Write what the launcher needs; returns the properties of the instance's unit."""
        image = self._images.find(instance.image)
        host_links, guest_links = await self._link_requests(instance)
        spec = container.make_spec(instance, image, host_links, guest_links)
        spec.write()
        return container.unit_properties(instance, image, spec)

    async def load(self, instances: list[Instance]) -> None:
        """Let systemd know the units of stopped instances, so that systemctl can show and start them too."""
        units = {}
        for instance in instances:
            if not self._table.live(instance).loaded:
                try:
                    units[instance.unit] = await self._prepare(instance)
                except SyscontError as error:
                    log.warning("%s can't be prepared for systemctl: %s", instance.name, error.text)
        try:
            names = list(units)
            for first in range(0, len(names), LOAD_AT_ONCE):
                chunk = {name: units[name] for name in names[first : first + LOAD_AT_ONCE]}
                await self._systemd.load_transient(chunk)
        except BusError as error:
            log.warning("systemd does not take the units of stopped instances: %s", error)
            return
        for instance in instances:
            self._table.live(instance).loaded |= instance.unit in units

    async def reload(self, instance: Instance) -> None:
        """Give systemd the unit of a stopped instance anew, as its configuration now wants it."""
        if self._table.status(instance).state in STOPPED:
            await self.forget(instance)
            await self.load([instance])

    async def _link_requests(self, instance: Instance) -> tuple[list[str], list[str]]:
        """rtnetlink requests for the launcher. A leading "-" lets one fail, as in systemd's ExecStart=."""
        host_links: list[str] = []
        for device in instance.devices.values():
            if device.get("type") == "nic":
                bridge = await self._network_index()
                host_name = links.random_host_name()
                host_links.append("-" + links.delete_request(host_name))
                host_links.append(links.veth_request(host_name, bridge, device["hwaddr"], NETNS_FD))
        return host_links, links.guest_requests(has_nic=bool(host_links))

    async def _wait_for_launch(
        self, instance: Instance, job: str, launched: asyncio.Future[None], *, wait: bool
    ) -> None:
        ended = asyncio.ensure_future(self._systemd.finish(instance.unit, job))
        try:
            await asyncio.wait({launched, ended}, timeout=LAUNCH_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not launched.done() and not ended.done():
                raise TimeoutError
            if ended.done() and not launched.done() and ended.exception():
                # The launcher says why before it fails; its message may still be on the way.
                await asyncio.wait({launched}, timeout=0.5)
            if launched.done():
                launched.result()
            if wait or not launched.done():
                await ended
        finally:
            if not ended.done():
                ended.cancel()
            elif not ended.cancelled():
                ended.exception()

    async def _give_up(self, instance: Instance) -> None:
        self._launching.pop(instance.uuid, None)
        await self.stop(instance, force=True)

    async def stop(self, instance: Instance, *, force: bool = False, timeout: float | None = None) -> None:
        """Stop a running instance: its guest is asked to power off and killed when its time is over."""
        state = self._table.status(instance).state
        if state in STOPPED:
            return
        try:
            if self._table.live(instance).freezer_state.startswith("fr"):
                await self._systemd.thaw(instance.unit)
            if force:
                await self._systemd.kill_unit(instance.unit, signal.SIGKILL)
            job = await self._systemd.stop_unit(instance.unit)
            waiting = asyncio.ensure_future(self._systemd.wait_job(job))
            if timeout is not None:
                await asyncio.wait({waiting}, timeout=timeout)
                if not waiting.done():
                    await self._systemd.kill_unit(instance.unit, signal.SIGKILL)
            await waiting
        except BusError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise FailedError(f"{instance.name} can't be stopped: {error.message}") from error
        # A guest that had to be killed did not fail: it was stopped, as asked.
        await self._systemd.reset_failed(instance.unit)
        await self._refresh(instance)
        if self._table.status(instance).state not in STOPPED:
            raise FailedError(f"{instance.name} did not stop")
        self._drop_guest(instance)

    async def freeze(self, instance: Instance, *, freeze: bool) -> None:
        state = self._table.status(instance).state
        if state is (State.FROZEN if freeze else State.RUNNING):
            return
        if state is not (State.RUNNING if freeze else State.FROZEN):
            raise NotRunningError(f"{instance.name} is {state}", "only a running instance can be paused")
        try:
            await (self._systemd.freeze if freeze else self._systemd.thaw)(instance.unit)
        except BusError as error:
            verb = "paused" if freeze else "resumed"
            raise FailedError(f"{instance.name} can't be {verb}: {error.message}") from error
        await self._refresh(instance)

    async def apply_limits(self, instance: Instance) -> None:
        """Put the limits of a changed configuration in force if the instance runs; the rest waits for a start."""
        self._table.live(instance).stale = True
        if self._table.status(instance).state in STOPPED:
            return
        try:
            await self._systemd.set_properties(instance.unit, container.limits(instance.config))
        except BusError as error:
            raise FailedError(f"{instance.name}: systemd refused the limits: {error.message}") from error

    async def forget(self, instance: Instance) -> None:
        """Free the name of a stopped instance's unit, and remove what its last run left in /run."""
        live = self._table.live(instance)
        if live.loaded:
            await self._systemd.forget(instance.unit)
        live.loaded = live.stale = False
        live.active_state = "inactive"
        spec_path(instance.uuid).unlink(missing_ok=True)

    def guest_of(self, instance: Instance) -> Guest:
        """The running guest; raises NotRunningError."""
        status = self._table.status(instance)
        found = self._table.live(instance).guest
        if not found or status.state not in (State.RUNNING, State.STARTING):
            raise NotRunningError(f"{instance.name} is {status.state}", f"syscont start {instance.name}")
        return found

    def _observe_state(self, instance: Instance, active_state: str) -> None:
        self._table.observe(instance, lambda live: setattr(live, "active_state", active_state))

    # what happens by itself

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        key = from_unit_name(unit)
        if key is None or not self._table.has(*key):
            return
        instance = self._table.get(key[1], key[0])

        if changed.get("ActiveState") == "inactive" and instance.uuid in self._launching:
            return  # a unit is inactive at first, when systemd has made it and not yet begun to start it

        def apply(live: Live) -> None:
            live.active_state = changed.get("ActiveState", live.active_state)
            live.freezer_state = changed.get("FreezerState", live.freezer_state)

        self._table.observe(instance, apply)

    def handed_over(self, data: bytes, fds: list[int]) -> None:
        """A launcher's last words: a guest runs, with these descriptors; or why it does not."""
        message = json.loads(data)
        instance = self._table.find_uuid(message.get("uuid", ""))
        kinds = message.get("fds", [])
        if instance is None or not kinds or len(fds) != len(kinds):
            for fd in fds:
                os.close(fd)
            if instance:
                why = message.get("error", "its console is missing")
                self._launched(instance, FailedError(f"{instance.name} can't be started: {why}"))
            return
        try:
            self._adopt(instance, int(message["leader"]), dict(zip(kinds, fds, strict=True)), store=True)
        except ProcessLookupError:
            guest.bury(instance, dict(zip(kinds, fds, strict=True)))
            log.warning("%s ended as soon as it had started", instance.name)
        self._launched(instance, None)

    def _launched(self, instance: Instance, error: FailedError | None) -> None:
        """Tell whoever waits for the launch; after a reboot by the guest itself nobody does."""
        waiting = self._launching.get(instance.uuid)
        if waiting is None or waiting.done():
            return
        if error:
            waiting.set_exception(error)
        else:
            waiting.set_result(None)

    def _adopt(self, instance: Instance, leader: int, fds: dict[str, int], *, store: bool) -> None:
        self._drop_guest(instance)

        def addresses_changed(addresses: tuple[str, ...]) -> None:
            self._table.observe(instance, lambda live: None if live.guest is None else live.guest.take(addresses))

        found = Guest(instance, leader, addresses_changed)
        if store:
            for kind, fd in fds.items():
                guest.store_descriptor(instance.uuid, kind, fd)
        found.adopt(fds)
        found.when_ended(lambda: self._guest_ended(instance.uuid, found))
        self._table.observe(instance, lambda live: setattr(live, "guest", found))
        self._in_background(self._register(instance, found))

    async def _register(self, instance: Instance, found: Guest) -> None:
        index = 0
        for device in instance.devices.values():
            if device.get("type") == "nic":
                index = links.interface_index(device["network"])
        await self._machined.register(instance.name, instance.uuid, found.leader, index)

    def _guest_ended(self, uuid: str, ended: Guest) -> None:
        instance = self._table.find_uuid(uuid)
        if instance and self._table.live(instance).guest is ended:
            self._drop_guest(instance)

    def _drop_guest(self, instance: Instance) -> None:
        found = self._table.live(instance).guest
        if found is None:
            return
        self._table.observe(instance, lambda live: setattr(live, "guest", None))
        found.close()
        self._in_background(self._machined.unregister(instance.name))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # finding out, at start and when it has to be sure

    async def _refresh(self, instance: Instance) -> None:
        try:
            values = await self._systemd.unit_properties(instance.unit, UNIT)
        except BusError:
            values = {"ActiveState": "inactive", "FreezerState": "running"}
        self._unit_changed(instance.unit, values)

    async def find_running(self, stored: dict[str, dict[str, int]]) -> None:
        """At start: take up the instances that run, with the descriptors that systemd kept for us."""
        units = {info.name: info for info in await self._systemd.list_units("syscont@*.service")}
        for instance in self._table.all():
            info = units.pop(instance.unit, None)
            fds = stored.pop(instance.uuid, {})
            if info:
                with contextlib.suppress(BusError):
                    await self._systemd.keep(instance.unit)
                    self._table.live(instance).loaded = True
                await self._refresh(instance)
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
        if leader and Path(f"/proc/{leader}/ns/user").exists() and _in_own_userns(leader):
            with contextlib.suppress(ProcessLookupError):
                self._adopt(instance, leader, fds, store=False)
                return
        guest.bury(instance, fds)


def _in_own_userns(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return False


class HandoverReader:
    """Reads the launchers' datagrams."""

    def __init__(self, sock: socket.socket, lifecycle: Lifecycle) -> None:
        self._socket = sock
        self._lifecycle = lifecycle
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
            self._lifecycle.handed_over(data, list(fds))
        except (SyscontError, OSError, ValueError, KeyError):
            log.exception("a hand-over could not be taken")
