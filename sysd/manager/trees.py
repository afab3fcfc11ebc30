# SPDX-License-Identifier: Apache-2.0
"""Ways into the trees of instances, running or stopped, with what keeps them from being mounted twice.

Whoever needs an instance's files goes through here: file push and pull, and as well snapshots, exports, templates.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from weakref import WeakValueDictionary

from sysd.manager.guests import STOPPED
from sysd.manager.images import Images
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.table import Table
from sysd.model.errors import BusyError
from sysd.model.files import FileRequest
from sysd.model.instance import Instance, Kind, State
from sysd.runtime import container, inside, layers
from sysd.runtime.files import run
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.vm import files
from sysd.runtime.vm.machine import MachineGuest

PATIENCE = 10.0
"""Seconds that someone else, such as a launcher, may have the layers."""
_PAUSE = 0.02
_ALIVE = (State.STARTING, State.RUNNING, State.FROZEN)


@dataclass(frozen=True, slots=True)
class Entry:
    """A way in, as long as it is held. kept are the descriptors that a worker has to inherit; pidfd is that of the
    guest, -1 when the instance is stopped."""

    way: inside.Way
    kept: tuple[int, ...]
    pidfd: int = -1


@contextlib.asynccontextmanager
async def open_layers(instance: Instance) -> AsyncIterator[int]:
    fd = layers.open_layers(str(container.state_dir(instance)))
    try:
        yield fd
    finally:
        os.close(fd)


async def wait_for_lock(instance: Instance, fd: int, how: int) -> None:
    """Take the lock of an instance's layers; raises BusyError when someone else has it for too long."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not layers.try_lock(fd, how):
        if asyncio.get_running_loop().time() > deadline:
            raise BusyError(f"the files of {instance.name} are in use", "'syscont operation list' shows by what")
        await asyncio.sleep(_PAUSE)


@contextlib.asynccontextmanager
async def exclusive_layers(instance: Instance) -> AsyncIterator[None]:
    """While it lasts nobody works in the layers of an instance, and it can't be started: for who copies, replaces or
    removes them. There may be none."""
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            fd = await stack.enter_async_context(open_layers(instance))
            await wait_for_lock(instance, fd, fcntl.LOCK_EX)
        yield


class Trees:
    def __init__(self, table: Table, lifecycle: Lifecycle, images: Images) -> None:
        self._table = table
        self._lifecycle = lifecycle
        self._images = images
        self._mounting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By UUID: one mount of a stopped instance's layers at a time, in order of asking."""

    async def work(self, instance: Instance, request: FileRequest, data: int, report: run.Report) -> dict[str, str]:
        """Have a worker do request in the instance's tree; of a virtual machine, a program in its guest."""
        if instance.kind is Kind.VM:
            return await files.work(self._machine(instance).start, request, data, report)
        async with self.entered(instance) as entry:
            with run.watching(entry.pidfd) as ended:
                return await run.work(entry.way, request, data, entry.kept, ended, report)

    def _machine(self, instance: Instance) -> MachineGuest:
        guest = self._lifecycle.guest_of(instance)
        assert isinstance(guest, MachineGuest)
        return guest

    @contextlib.asynccontextmanager
    async def entered(self, instance: Instance) -> AsyncIterator[Entry]:
        """A way into the tree. A stopped instance can't be started meanwhile; a running one can stop, and the way
        then leads nowhere."""
        async with contextlib.AsyncExitStack() as stack:
            if self._table.status(instance).state in STOPPED:
                await stack.enter_async_context(self._one_by_one(instance.uuid))
            fd = await stack.enter_async_context(open_layers(instance))
            if await self._lock(instance, fd):
                yield Entry(self._stopped(instance), (fd,))
            else:
                guest = self._guest(instance)
                pidfd = os.dup(guest.pidfd)
                stack.callback(os.close, pidfd)
                held = guest.confinement
                yield Entry(inside.Running(pidfd, held.privileged, held.profile), (fd, pidfd), pidfd)

    @contextlib.asynccontextmanager
    async def _one_by_one(self, uuid: str) -> AsyncIterator[None]:
        lock = self._mounting.setdefault(uuid, asyncio.Lock())
        async with lock:
            yield

    async def _lock(self, instance: Instance, fd: int) -> bool:
        """Whether the instance is stopped, and the layers so locked for a mount; else the lock is shared with others
        in the running guest, so that its next start waits for all of them to be gone."""
        # Not between the two halves of a restart, which would then fail.
        async with self._table.lock(instance.uuid):
            stopped = self._table.status(instance).state in STOPPED
            while True:
                await wait_for_lock(instance, fd, fcntl.LOCK_EX if stopped else fcntl.LOCK_SH)
                # Only systemd knows whether others started or stopped it before we had the lock.
                was, stopped = stopped, await self._lifecycle.refresh(instance) in STOPPED
                if was is stopped:
                    return stopped

    def _guest(self, instance: Instance) -> ContainerGuest:
        guest, state = self._table.live(instance).guest, self._table.status(instance).state
        if not isinstance(guest, ContainerGuest) or state not in _ALIVE:
            raise BusyError(f"{instance.name} is {state}", "try again when it is running or stopped")
        return guest

    def _stopped(self, instance: Instance) -> inside.Stopped:
        rootfs = container.IMAGE_DIR / self._images.find(instance.image).fingerprint / "rootfs"
        expanded = self._table.expanded(instance)
        held = container.held(expanded)
        return inside.Stopped(instance.name, str(rootfs), str(container.state_dir(instance)), **held)
