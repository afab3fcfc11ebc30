# SPDX-License-Identifier: Apache-2.0
"""What instances may send: their filters are there before they start, follow their configuration, and go with them."""

from __future__ import annotations

import json
import logging
from typing import Any

from sysd.manager.background import Background
from sysd.manager.interfaces import sources
from sysd.manager.table import Table
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance
from sysd.network import filters, firewall
from sysd.units.systemd import Systemd

log = logging.getLogger(__name__)


class Filters:
    def __init__(self, table: Table, systemd: Systemd) -> None:
        self._table = table
        self._known: dict[str, str] = {}
        """By instance, the rules that were put in place last; of those without any there is nothing."""
        self._background = Background()
        systemd.on_unit_change(self._unit_changed)

    async def put(self, expanded: Instance) -> None:
        """Let the host have an instance's filters, whatever it had. Raises FailedError when it can't."""
        wanted = filters.rules(sources(expanded))
        text = json.dumps(wanted) if wanted else ""
        if text == self._known.get(expanded.uuid, "") and filters.in_place(expanded.uuid, wanted):
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
        if self._known.pop(uuid, ""):
            await firewall.apply(filters.removal(filters.table_name(uuid)))

    async def start(self) -> None:
        """What an earlier daemon has left is put right: of instances that are gone, too."""
        everyone = [self._table.expanded(each) for each in self._table.all()]
        filtered = {each.uuid: each for each in everyone if filters.rules(sources(each))}
        for name in await firewall.tables(filters.PREFIX):
            if name not in map(filters.table_name, filtered):
                await firewall.apply(filters.removal(name))
        await self._put_all(list(filtered.values()))

    async def _put_all(self, instances: list[Instance]) -> None:
        for instance in instances:
            try:
                await self.put(instance)
            except SyscontError as error:
                log.error("%s", error.message)

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        if unit in firewall.LOADERS and changed.get("ActiveState") in ("active", "inactive", "failed"):
            known = [self._table.find_uuid(uuid) for uuid in self._known]
            self._background.run(self._put_all([self._table.expanded(each) for each in known if each]))
