# SPDX-License-Identifier: Apache-2.0
"""Sizes of root disks: what each instance writes is counted by its pool, and held to the size if it has one.

Where the pool counts, every new instance gets a number of its own to be counted by, with a size or without: a size can
then come at any time. The number is in the instance's row before there is a file, and until there is none any more, so
none leaks in a crash. Snapshots are not counted, as in LXD: they can't fill their guest's disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from sysd.manager import layers
from sysd.manager.table import Table
from sysd.model.devices.disk import root_size
from sysd.model.errors import FailedError, InvalidError, UnsupportedError
from sysd.model.instance import Instance, Kind, Phase
from sysd.model.sizes import Usage, format_size
from sysd.storage.driver import Driver
from sysd.units.helper import see_through

log = logging.getLogger(__name__)

FIRST, LAST = 0x40000000, 0x6FFFFFFF
"""Above the numbers that LXD and Incus take (from 10000) and people do (/etc/projid), below those of systemd's."""

HOW = "it takes ext4 with the features quota and project (tune2fs), or xfs, mounted with prjquota; btrfs has none"


class Quotas:
    def __init__(self, table: Table, driver: Driver, pool: Path) -> None:
        self._table = table
        self._driver = driver
        self._pool = pool

    @property
    def are_there(self) -> bool:
        """Whether the pool counts, and holds to sizes."""
        return self._driver.is_limited(self._pool)

    # numbers

    def give(self, instance: Instance) -> Instance:
        """The instance with a number to be counted by that nobody else has, where the pool counts."""
        if instance.quota_id or not self.are_there:
            return instance
        taken = {other.quota_id for other in self._table.all()}
        free = (number for number in range(FIRST, LAST) if number not in taken and not self._used(number))
        return replace(instance, quota_id=next(free, 0))

    def _used(self, number: int) -> bool:
        """By files that are none of ours, or no longer known to us."""
        return self._driver.usage(self._pool, number).used > 0

    def number(self, instance: Instance) -> int:
        """The number for new files of an instance; 0 where nobody counts."""
        return instance.quota_id if instance.quota_id and self.are_there else 0

    def count(self, instance: Instance, folder: Path) -> None:
        """Have what will be in an empty folder counted for the instance."""
        if project := self.number(instance):
            self._driver.assign(folder, project)

    # sizes

    def check(self, expanded: Instance) -> None:
        """Raise UnsupportedError when an expanded instance has a size that it can't be held to."""
        if not _size(expanded):
            return
        if not self.are_there:
            raise UnsupportedError(f"size of {expanded.reference}: the file system of {self._pool} has no quotas", HOW)
        if not self._is_counted(expanded):
            why = f"size of {expanded.reference}: its files were made while nobody counted"
            raise UnsupportedError(why, "those of a copy are counted: syscont copy")

    def check_room(self, expanded: Instance) -> None:
        """Raise InvalidError when an expanded instance is to get a size that is less than it takes."""
        size, found = _size(expanded), self.usage(expanded)
        # A restored snapshot can leave more than there may be: all but the size may be changed then.
        if found and size and found.used > size != found.most:
            why = f"size of {expanded.reference}: {format_size(size)} is less than the {format_size(found.used)} in use"
            raise InvalidError(why, "delete some of its files first")

    def _is_counted(self, instance: Instance) -> bool:
        """Not what was made before the file system had quotas, or was brought from elsewhere."""
        if instance.phase is Phase.CREATING or not instance.quota_id:
            return instance.quota_id > 0
        return self._driver.project_of(layers.upper(instance)) == instance.quota_id

    async def apply(self, expanded: Instance) -> None:
        """Hold an expanded instance to its size, or to none."""
        await self._limit(expanded, _size(expanded))

    async def apply_all(self) -> None:
        """At start: a crash may have come between a change and its application."""
        for instance in self._table.all():
            try:
                await self.apply(self._table.expanded(instance))
            except FailedError as error:
                log.error("%s", error.message)

    @contextlib.asynccontextmanager
    async def lifted(self, instance: Instance) -> AsyncIterator[None]:
        """Without a limit in the block, in which a stopped instance has files twice."""
        await self._limit(instance, 0)
        try:
            yield
        finally:
            await see_through(self.apply(self._table.expanded(self._table.by_uuid(instance.uuid))))

    async def forget(self, instance: Instance) -> None:
        """Leave nothing behind of an instance whose files are gone."""
        with contextlib.suppress(FailedError):
            await self._limit(instance, 0)

    def usage(self, instance: Instance) -> Usage | None:
        """None where nobody counts."""
        if not self.number(instance) or not self._is_counted(instance):
            return None
        return self._driver.usage(self._pool, instance.quota_id)

    async def _limit(self, instance: Instance, size: int) -> None:
        if not self.number(instance):
            if size:
                raise FailedError(f"{instance.reference} is not held to its size: {self._pool} has no quotas", HOW)
            return
        try:
            await asyncio.to_thread(self._driver.limit, self._pool, instance.quota_id, size)
        except OSError as error:
            raise FailedError(f"size of {instance.reference}: {error.strerror}") from error


def _size(expanded: Instance) -> int:
    """Bytes that an instance may write at most, 0 for any number. A virtual machine's disk is as large as it is."""
    return root_size(expanded.devices) if expanded.kind is Kind.CONTAINER else 0
