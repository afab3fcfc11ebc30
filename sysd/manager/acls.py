# SPDX-License-Identifier: Apache-2.0
"""ACLs: making, changing and deleting them. What networks name is in force with the next packet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sysd.manager import subjects
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.networks import Networks
from sysd.manager.operations import Handle, Operations
from sysd.manager.table import Table
from sysd.manager.uplinks import Uplinks
from sysd.model import acls
from sysd.model.acls import EGRESS, INGRESS, MAX_ACLS, SCHEMA, Acl, check_name, check_rules
from sysd.model.devices.nic import ACLS
from sysd.model.errors import BusyError, ExistsError, SyscontError
from sysd.model.network import Network
from sysd.model.values import check_description

log = logging.getLogger(__name__)

_PROPERTIES = {"description": "Description", "config": "Config", "ingress": "Ingress", "egress": "Egress"}


@dataclass(frozen=True, slots=True)
class AclUpdate:
    """New values for parts of an ACL, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    description: str | None = None
    config: Mapping[str, str] | None = None
    ingress: Sequence[Mapping[str, str]] | None = None
    egress: Sequence[Mapping[str, str]] | None = None


class Acls:
    def __init__(
        self,
        catalog: Catalog,
        events: EventBus,
        operations: Operations,
        table: Table,
        networks: Networks,
        uplinks: Uplinks,
    ) -> None:
        self._catalog = catalog
        self._table = table
        self._events = events
        self._operations = operations
        self._networks = networks
        self._uplinks = uplinks

    def users(self, name: str) -> list[str]:
        """What names an ACL: networks, instances by their references, profiles, and other ACLs."""
        return [who for _, who in self._users(name)]

    def _users(self, name: str) -> list[tuple[str, str]]:
        """The same, with what each of them is."""
        found = [("network", network.name) for network in self._catalog.networks() if name in network.acls]
        found += [("instance", one.reference) for one in self._table.all() if _names(one.devices, name)]
        found += [("profile", one.reference) for one in self._catalog.profiles() if _names(one.devices, name)]
        return [*found, *(("ACL", acl.name) for acl in subjects.naming(self._catalog.acls(), name))]

    def _networks_of(self, name: str) -> list[Network]:
        """Those in which it holds, be it for some interfaces."""
        devices = [device for one in self._table.all() for device in self._table.expanded(one).devices.values()]
        by_interfaces = {each.get("network") for each in devices if name in acls.names(each.get(ACLS, ""))}
        everyone = [one for one in self._catalog.networks() if self._catalog.has_network(one.name)]
        return [network for network in everyone if name in network.acls or network.name in by_interfaces]

    async def create(self, name: str, wanted: AclUpdate) -> Acl:
        acl = _updated(Acl(check_name(name)), wanted)
        async with self._networks.changing:
            self._check_free(name)
            subjects.check_known(self._catalog, acl)
            if len(self._catalog.acls()) >= MAX_ACLS:
                raise BusyError("there are too many ACLs", "delete some")
            self._catalog.remember(acl)
        self._publish(Kind.ACL_ADDED, acl)
        return acl

    def _check_free(self, name: str) -> None:
        if self._catalog.is_acl_taken(name):
            raise ExistsError(f"an ACL named {name!r} exists already")

    async def update(self, name: str, wanted: AclUpdate, owner: int) -> None:
        await self.change(name, lambda acl: _updated(acl, wanted), owner)

    async def change_config(self, name: str, values: Mapping[str, str], unset: Collection[str], owner: int) -> None:
        """Set and remove keys, all or none."""
        removed = set(unset)
        await self.change(name, lambda acl: replace(acl, config=SCHEMA.changed(acl.config, values, removed)), owner)

    async def change_rules(
        self, name: str, direction: str, change: Callable[[Acl], list[dict[str, str]]], owner: int
    ) -> None:
        """change: one of sysd.model.acls', with all but the ACL."""

        def changed(acl: Acl) -> Acl:
            rules = change(acl)  # which looks at the direction, too
            return replace(acl, ingress=rules) if direction == INGRESS else replace(acl, egress=rules)

        await self.change(name, changed, owner)

    async def change(self, name: str, change: Callable[[Acl], Acl], owner: int) -> None:
        """Change an ACL, and the networks in which it holds, or leave all as it was. A change that a crash cuts off is
        finished at the next start, which brings networks up as they are remembered."""

        async def work(handle: Handle) -> None:
            async with self._networks.changing:
                before = self._catalog.acl(name)
                after = change(before)
                parts = [part for part in _PROPERTIES if getattr(before, part) != getattr(after, part)]
                if parts:
                    subjects.check_known(self._catalog, after, before)
                    for network in self._networks_of(name):
                        subjects.check_fits(after, network)
                    await self._put_in_force(before, after)
                    self._publish(Kind.ACL_CHANGED, after, *(_PROPERTIES[part] for part in parts))

        self._catalog.acl(name)
        await self._operations.wait(self._operations.begin("change-acl", name, work, owner).id)

    async def _put_in_force(self, before: Acl, after: Acl) -> None:
        self._catalog.remember(after)
        if (before.ingress, before.egress) == (after.ingress, after.egress):
            return
        there = self._networks_of(after.name)
        try:
            for network in there:
                await self._uplinks.apply_rules(network)
        except BaseException:
            self._catalog.remember(before)
            await asyncio.shield(self._go_back(there))
            raise

    async def _go_back(self, there: Sequence[Network]) -> None:
        for network in there:
            try:
                await self._uplinks.apply_rules(network)
            except (SyscontError, OSError) as error:
                log.error("the rules of network %s can't be put back: %s", network.name, error)

    async def rename(self, name: str, new_name: str) -> None:
        """Give an ACL that nothing names another name; its own rules may."""
        check_name(new_name)
        async with self._networks.changing:
            before = self._unused(name, "renamed")
            self._check_free(new_name)
            after = acls.renamed(before, new_name)
            with self._catalog.transaction():
                self._catalog.erase(before)
                self._catalog.write(after)
            self._catalog.drop(before)
            self._catalog.take(after)
        self._publish(Kind.ACL_REMOVED, before)
        self._publish(Kind.ACL_ADDED, after)

    async def delete(self, name: str) -> None:
        async with self._networks.changing:
            acl = self._unused(name, "deleted")
            self._catalog.erase(acl)
            self._catalog.drop(acl)
        self._publish(Kind.ACL_REMOVED, acl)

    def _unused(self, name: str, what: str) -> Acl:
        acl = self._catalog.acl(name)
        if users := self._users(name):
            where = ", ".join(f"{what} {who}" for what, who in users[:3])
            raise BusyError(f"ACL {name} is in use by {where}", f"it can be {what} when it is not")
        return acl

    def _publish(self, kind: Kind, acl: Acl, *changed: str) -> None:
        self._events.publish(Event(kind, acl.name, "", changed))


def _names(devices: Mapping[str, Mapping[str, str]], acl: str) -> bool:
    return any(acl in acls.names(options.get(ACLS, "")) for options in devices.values())


def _updated(acl: Acl, wanted: AclUpdate) -> Acl:
    if wanted.description is not None:
        acl = replace(acl, description=check_description(wanted.description))
    if wanted.config is not None:
        acl = replace(acl, config=SCHEMA.check(wanted.config))
    if wanted.ingress is not None:
        acl = replace(acl, ingress=check_rules(INGRESS, wanted.ingress))
    if wanted.egress is not None:
        acl = replace(acl, egress=check_rules(EGRESS, wanted.egress))
    return acl
