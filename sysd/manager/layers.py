# SPDX-License-Identifier: Apache-2.0
"""The writable layers of instances and snapshots: where they are, and work on them that takes a while.

    instances/UUID/upper            what the instance has written; work belongs to overlayfs
    instances/UUID/snapshots/UUID/upper
    instances/UUID/restoring/upper  the layer to be, and upper.old the one that was, while a snapshot is restored

The work is done in threads: system calls on descriptors, nothing that parses. What a crash leaves half done has no row
in the store yet, or none any more, and is swept at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sysd.model.instance import Instance, Kind
from sysd.runtime import container
from sysd.runtime.trees import remove_tree, sync_directory
from sysd.runtime.vm import state
from sysd.storage.driver import Driver
from sysd.units.helper import see_through

log = logging.getLogger(__name__)

UPPER = "upper"
OLD = "upper.old"
RESTORING = "restoring"
SNAPSHOTS = "snapshots"
THREADS = 4


def upper(instance: Instance) -> Path:
    return container.state_dir(instance) / UPPER


def snapshots_folder(instance: Instance) -> Path:
    return container.state_dir(instance) / SNAPSHOTS


class Layers:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # Of their own: a long copy must not keep others' short work waiting.
        self._pool = ThreadPoolExecutor(THREADS, "layers")

    async def clone(self, source: Path, target: Path, project: int = 0) -> None:
        """Make target a copy of source, which must be still; see Driver.clone. Cancelling ends it soon."""
        cancelled = threading.Event()
        work = self._start(self._driver.clone, source, target, cancelled.is_set, project)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            with contextlib.suppress(Exception):
                await work
            raise

    async def settle(self, target: Path) -> None:
        """Wait until target, a layer that was made just now, is on disk."""
        await self._start(self._driver.settle, target)

    async def remove(self, path: Path) -> None:
        """Goes on when the caller is cancelled."""
        await see_through(self._start(remove_tree, path))

    @contextlib.asynccontextmanager
    async def draft(self, path: Path) -> AsyncIterator[Path]:
        """A new folder, removed again when the block fails."""
        path.mkdir(mode=0o700, parents=True)
        try:
            yield path
        except BaseException:
            await self.remove(path)
            raise

    def _start(self, work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def put_restored(self, instance: Instance) -> None:
        """Put the layer that waits in restoring in place of the instance's own. May be done again after a crash."""
        folder = container.state_dir(instance)
        new = folder / RESTORING / UPPER
        if new.exists():
            if (folder / UPPER).exists():
                await self.remove(folder / OLD)
                os.rename(folder / UPPER, folder / OLD)
            os.rename(new, folder / UPPER)
            sync_directory(folder)

    async def sweep(self, instance: Instance, known: set[str]) -> None:
        """Remove what interrupted operations left of an instance's layers. known: UUIDs of its snapshots."""
        folder = container.state_dir(instance)
        try:
            snapshots = os.listdir(folder / SNAPSHOTS)
        except FileNotFoundError:
            snapshots = []
        left = [folder / SNAPSHOTS / name for name in snapshots if name not in known]
        left += [folder / name for name in (OLD, RESTORING) if (folder / name).exists()]
        if instance.kind is Kind.VM:
            state.sweep(folder / UPPER)
        for path in left:
            log.info("removing %s, left by an interrupted operation", path)
            try:
                await self.remove(path)
            except OSError as error:
                log.error("%s can't be removed: %s", path, error)
