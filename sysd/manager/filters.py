# SPDX-License-Identifier: Apache-2.0
"""What instances may send: their filters are there before they start, follow their configuration, and go with them."""

from __future__ import annotations

import json
import logging

from sysd.manager.background import Background
from sysd.manager.interfaces import sources
from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance
from sysd.network import filters, firewall

log = logging.getLogger(__name__)


class Filters:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, str] = {}
        """By instance, the rules that were put in place last; of those without any there is nothing."""
        self._background = Background()

    async def put(self, expanded: Instance) -> None:
        """Let the host have an instance's filters, whatever it had. Raises FailedError when it can't."""
        wanted = filters.rules(sources(expanded))
        text, before = json.dumps(wanted) if wanted else "", self._known.get(expanded.uuid, "")
        if text == before and filters.in_place(expanded.uuid, wanted):
            return
        # Before they are in force: word that the old ones are gone must not bring these back.
        self._remember(expanded.uuid, text)
        try:
            await firewall.apply(filters.transaction(expanded.uuid, wanted))
        except BaseException as error:
            self._remember(expanded.uuid, before)
            if isinstance(error, FailedError):
                raise FailedError(f"{expanded.name}: its interfaces can't be filtered: {error.message}") from None
            raise

    def _remember(self, uuid: str, text: str) -> None:
        if text:
            self._known[uuid] = text
        else:
            self._known.pop(uuid, None)

    async def remove(self, uuid: str) -> None:
        """Those of an instance that is gone."""
        if self._known.pop(uuid, ""):
            await firewall.apply(filters.removal(filters.table_name(uuid)))

    async def start(self) -> None:
        """What an earlier daemon has left is put right: of instances that are gone, too."""
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
        """Some table of that name, or if it is empty any, is gone: it comes back unless we took it away."""
        for uuid in self._known:
            if name in ("", filters.table_name(uuid)):
                self._background.run(self._restore(uuid))

    async def _restore(self, uuid: str) -> None:
        """What was put last, which may be more than what is remembered of the instance."""
        text = self._known.get(uuid, "")
        wanted = json.loads(text) if text else {}
        if wanted and not filters.in_place(uuid, wanted):
            await firewall.apply(filters.transaction(uuid, wanted))
