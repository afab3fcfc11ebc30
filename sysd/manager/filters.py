# SPDX-License-Identifier: Apache-2.0
"""What instances may send: their filters are there before they start, follow their configuration, and go with them."""

from __future__ import annotations

import asyncio
import json
import logging

from sysd.manager.background import Background
from sysd.manager.interfaces import sources
from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance
from sysd.network import filters, firewall

log = logging.getLogger(__name__)

SETTLE, AGAIN = 0.05, 5.0
"""Seconds: for more of the same word to come, and before what failed is tried again."""


class Filters:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, str] = {}
        """By instance, the rules that were put in place last; of those without any there is nothing."""
        self._background = Background()
        self._lock = asyncio.Lock()
        self._restoring = False

    async def put(self, expanded: Instance) -> None:
        """Let the host have an instance's filters, whatever it had. Raises FailedError when it can't."""
        async with self._lock:
            await self._put(expanded)

    async def _put(self, expanded: Instance) -> None:
        wanted = filters.rules(sources(expanded))
        text, before = json.dumps(wanted) if wanted else "", self._known.get(expanded.uuid, "")
        if text == before and filters.in_place(expanded.uuid, wanted):
            return
        try:
            await firewall.apply(filters.transaction(expanded.uuid, wanted))
        except FailedError as error:
            raise FailedError(f"{expanded.name}: its interfaces can't be filtered: {error.message}") from None
        self._remember(expanded.uuid, text)

    def _remember(self, uuid: str, text: str) -> None:
        if text:
            self._known[uuid] = text
        else:
            self._known.pop(uuid, None)

    async def remove(self, uuid: str) -> None:
        """Those of an instance that is gone."""
        async with self._lock:
            if self._known.pop(uuid, ""):
                await firewall.apply(filters.removal(filters.table_name(uuid)))

    async def start(self) -> None:
        """What an earlier daemon has left is put right: of instances that are gone, too."""
        await firewall.apply(filters.guard())
        everyone = [self._table.expanded(each) for each in self._table.all()]
        filtered = {each.uuid: each for each in everyone if filters.rules(sources(each))}
        for name in await firewall.tables(filters.PREFIX):
            if name not in map(filters.table_name, filtered):
                await firewall.apply(filters.removal(name))
        for instance in filtered.values():
            try:
                await self.put(instance)
            except SyscontError as error:
                log.error("%s", error.message)

    def table_gone(self, name: str) -> None:
        """Something of a table of that name, or if it is empty of any, is gone: it comes back unless we took it."""
        if name and name != filters.GUARD and name not in map(filters.table_name, self._known):
            return
        if not self._restoring:
            self._restoring = True
            self._background.run(self._restore())

    async def _restore(self) -> None:
        """What was put last, which may be more than what is remembered of the instances; until that succeeds."""
        while self._restoring:
            await asyncio.sleep(SETTLE)
            async with self._lock:
                try:
                    await self._put_lost()
                    self._restoring = False
                except FailedError as error:
                    log.error("filters that were lost are not back yet: %s", error.message)
            await asyncio.sleep(AGAIN if self._restoring else 0)

    async def _put_lost(self) -> None:
        found = {uuid: json.loads(text) for uuid, text in self._known.items()}
        lost = [filters.transaction(uuid, rules) for uuid, rules in found.items() if not filters.in_place(uuid, rules)]
        if not filters.guarded():
            lost.append(filters.guard())
        if lost:
            await firewall.apply({"nftables": [command for one in lost for command in one["nftables"]]})
