# SPDX-License-Identifier: Apache-2.0
"""Networks: making, changing and deleting them. What instances and profiles name stays as they need it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sysd.manager import leases, outside, subjects, subnets
from sysd.manager.acceleration import Acceleration
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.hosts import check_kept, check_networks_apart, ports, without_chosen
from sysd.manager.kept import Kept
from sysd.manager.leases import Lease
from sysd.manager.operations import Handle, Operations
from sysd.manager.published import check_published
from sysd.manager.table import Table
from sysd.manager.uplinks import Uplinks
from sysd.model import forwards, names, peers
from sysd.model.errors import BusyError, ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.instance import Instance, Phase
from sysd.model.network import BRIDGE, DEFAULT_NETWORK, SCHEMAS, ZONE_KEYS, Network, check_network, check_type
from sysd.model.values import check_description
from sysd.network import dnsmasq, links
from sysd.network.links import LinkState
from sysd.store.database import Store

log = logging.getLogger(__name__)

MAX_NETWORKS = 1000
MADE_DEFAULT = "default_network"
"""Of the store's meta values: that there was a default network, which its owner may have deleted."""
_PROPERTIES = {
    "config": ("Config", "IPv4", "IPv6", "Domain"),
    "description": ("Description",),
    "forwards": ("Forwards",),
    "peers": ("Peers",),
}

AfterChange = Callable[[list[Instance]], Awaitable[None]]
"""Called with the instances in a network that has changed, as they are themselves."""


@dataclass(frozen=True, slots=True)
class NetworkUpdate:
    """New values for parts of a network, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    config: Mapping[str, str] | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Users:
    """Who has an interface in a network: instances, also by their profiles, and profiles; qualified names."""

    instances: list[str]
    profiles: list[str]


class Networks:
    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        events: EventBus,
        operations: Operations,
        table: Table,
        uplinks: Uplinks,
        after_change: AfterChange,
        kept: Kept,
    ) -> None:
        self._kept = kept
        self._store = store
        self._catalog = catalog
        self._events = events
        self._operations = operations
        self._table = table
        self._uplinks = uplinks
        self._after_change = after_change
        self.changing = asyncio.Lock()
        """Held while a network changes, or what holds in networks."""

    def all(self) -> list[Network]:
        return [network for network in self._catalog.networks() if network.phase is Phase.READY]

    def users(self, name: str) -> Users:
        return Users(
            [instance.reference for instance in self._members(name)],
            [
                profile.reference
                for profile in self._catalog.profiles()
                if any(device.get("network") == name for device in profile.devices.values())
            ],
        )

    def leases(self, name: str) -> list[Lease]:
        """Who has which address in a network."""
        return leases.known(self._catalog.network(name), self._table)

    async def acceleration(self) -> Acceleration:
        """What network cards can do for OVN networks, and what they lack."""
        return await self._uplinks.acceleration()

    async def state(self, name: str) -> LinkState:
        """Of its link, now, or of what OVN has of it. Raises FailedError when it has none at the moment."""
        network = self._catalog.network(name)
        if network.is_ovn:
            return await self._uplinks.state(network)
        found = await asyncio.to_thread(links.describe, network.link)
        if found is None:
            raise FailedError(f"network {name}: the host has no link {network.link}")
        return found

    def _members(self, name: str) -> list[Instance]:
        """The instances that have an interface in a network, expanded."""
        everyone = [self._table.expanded(instance) for instance in self._table.all()]
        return [instance for instance in everyone if any(ports([instance], name))]

    # at start

    async def start(self) -> None:
        """Finish or undo what a crash cut off, make the default network if there never was one, and bring all up. A
        network that fails does not hold the rest up; its instances say why when they start."""
        for network in self._catalog.networks():
            if network.phase is not Phase.READY:
                log.warning("removing network %s, left %s", network.name, network.phase)
                await self._at_start(network, self._remove(network))
        # Uplinks before what is linked to them.
        for network in sorted(self.all(), key=lambda one: one.is_ovn):
            await self._at_start(network, self._uplinks.bring_up(network))
        if not self._store.get_meta(MADE_DEFAULT):
            await self._make_default()

    async def _at_start(self, network: Network, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            log.error("network %s can't be put right: %s", network.name, error)

    async def _make_default(self) -> None:
        if not self._catalog.is_taken(DEFAULT_NETWORK):
            try:
                network = await self._planned(DEFAULT_NETWORK, BRIDGE, NetworkUpdate())
                self._catalog.remember(network)
                await self._make(network)
            except (SyscontError, OSError) as error:
                log.error("there is no default network: %s", error)
                return
        self._store.set_meta(MADE_DEFAULT, "true")

    # making

    async def create(self, name: str, kind: str, wanted: NetworkUpdate, owner: int) -> Network:
        """Make a network of a type: bridge, macvlan, ovn, physical or sriov."""

        async def work(handle: Handle) -> None:
            async with self.changing:
                network = await self._planned(name, check_type(kind), wanted)
                # On disk before anything is made: half a network is taken away at the next start.
                self._catalog.remember(network)
                await self._make(network)

        names.check_network_name(name)
        check_type(kind)
        await self._operations.wait(self._operations.begin("create-network", name, work, owner).id)
        return self._catalog.network(name)

    async def _planned(self, name: str, kind: str, wanted: NetworkUpdate) -> Network:
        """The network that is to be made, checked."""
        if self._catalog.is_taken(name):
            raise ExistsError(f"a network named {name!r} exists already")
        if len(self._catalog.networks()) >= MAX_NETWORKS:
            raise BusyError("there are too many networks", "delete some")
        if kind == BRIDGE and links.interface_index(name):
            raise ExistsError(f"the host has a link named {name!r} already", "a bridge of a network has its name")
        network = Network(name, kind, phase=Phase.CREATING)
        network = await self._updated(network, wanted, new=True)
        await self._check(network)
        self._check_published(network)
        return network

    async def _make(self, network: Network) -> None:
        try:
            await self._uplinks.bring_up(network)
        except BaseException:
            await asyncio.shield(self._remove(network))
            raise
        self._catalog.remember(replace(self._as_stored(network), phase=Phase.READY))
        self._publish(Kind.NETWORK_ADDED, network)

    def _as_stored(self, network: Network) -> Network:
        """With what was remembered of it while it was brought up."""
        return next(one for one in self._catalog.networks() if one.name == network.name)

    async def _updated(self, network: Network, wanted: NetworkUpdate, *, new: bool = False) -> Network:
        if wanted.description is not None:
            network = replace(network, description=check_description(wanted.description))
        if wanted.config is not None or new:
            config = SCHEMAS[network.type].check(wanted.config or {})
            network = await self._configured(network, config, new=new)
        return network

    async def _configured(self, network: Network, config: dict[str, str], *, new: bool = False) -> Network:
        """With config in place of what it is configured by."""
        everyone = self._catalog.networks()
        if network.has_subnets:
            others = [other for other in everyone if other.name != network.name]
            config = await asyncio.to_thread(subnets.fill, config, others, new=new)
        if network.is_ovn:
            SCHEMAS[network.type].check(config)
            network = replace(network, config=outside.kept(network, config, everyone))
        return replace(network, config=check_network(network, config))

    async def _check(self, network: Network) -> None:
        """Raise InvalidError unless a network goes together with all that there is."""
        everyone = self._catalog.networks()
        outside.check_uplink(network, everyone)
        if not network.has_subnets:
            return
        for acl in network.acls:
            if not self._catalog.has_acl(acl):
                raise NotFoundError(f"security.acls: no ACL {acl!r}", "make it first: syscont network acl create")
            try:
                subjects.check_fits(self._catalog.acl(acl), network)
            except InvalidError as error:
                raise InvalidError(f"security.acls: {error.message}", error.hint) from None
        for key in ZONE_KEYS:
            for zone in network.zones_of(key):
                if not self._catalog.has_zone(zone):
                    raise NotFoundError(f"{key}: no zone {zone!r}", "make it first: syscont network zone create")
        others = [other for other in everyone if other.name != network.name]
        check_networks_apart([network], map(self._table.expanded, self._table.all()))
        forwards.check(network, others)
        if network.is_ovn:
            outside.check_forwards(network, everyone)
            peers.check(network, everyone)
            subnets.check(network, others, ())
            return
        if network.address(6) and not links.has_ipv6():
            raise InvalidError("ipv6.address: the host has no IPv6", "set ipv6.address=none")
        index = links.interface_index(network.name)
        host = await asyncio.to_thread(links.own_addresses)
        elsewhere = [address for where, address in host if where != index]
        subnets.check(network, others, [one for one in elsewhere if not _is_of(one.ip, others)])
        await dnsmasq.check(network)

    def _check_published(self, network: Network) -> None:
        """The same for what interfaces have on uplinks."""
        others = [other for other in self._catalog.networks() if other.name != network.name]
        check_published(map(self._table.expanded, self._table.all()), [network, *others])

    # changing

    async def update(self, name: str, wanted: NetworkUpdate, owner: int) -> None:
        async def change(network: Network) -> Network:
            return await self._updated(network, wanted)

        await self._change(name, change, owner)

    async def change(self, name: str, values: Mapping[str, str], unset: Collection[str], owner: int) -> None:
        """Set and remove keys, all or none."""
        removed = set(unset)

        async def change(network: Network) -> Network:
            schema = SCHEMAS[network.type]
            changed = schema.changed(network.config, values, removed)
            own = {key: value for key, value in changed.items() if not schema.find(key).internal}
            return await self._configured(network, own)

        await self._change(name, change, owner)

    async def change_forwards(self, name: str, change: Callable[[Network], list[dict[str, Any]]], owner: int) -> None:
        """change: one of sysd.model.forwards', with all but the network."""

        async def work(network: Network) -> Network:
            if not network.has_subnets:
                raise InvalidError(f"network {name}: networks of type {network.type} have no forwards")
            return replace(network, forwards=change(network))

        await self._change(name, work, owner)

    async def change_peers(self, name: str, change: Callable[[Network], list[dict[str, Any]]], owner: int) -> None:
        """change: one of sysd.model.peers', with all but the network."""

        async def work(network: Network) -> Network:
            if not network.is_ovn:
                raise InvalidError(f"network {name}: networks of type {network.type} have no peers")
            after = replace(network, peers=change(network))
            subjects.check_unnamed(self._catalog.acls(), network, [each.name for each in after.peered])
            return after

        targets = {each.target for each in self._catalog.network(name).peered}
        await self._change(name, work, owner)
        targets |= {each.target for each in self._catalog.network(name).peered}
        for other in filter(None, map(self._catalog.find_network, targets)):
            self._publish(Kind.NETWORK_CHANGED, other, "Peers")

    async def _change(self, name: str, change: Callable[[Network], Awaitable[Network]], owner: int) -> None:
        """Change a network, and the host with it, or leave both as they were. A change that a crash cuts off is
        finished at the next start, which brings up what the network says."""

        async def work(handle: Handle) -> None:
            async with self.changing:
                before = self._catalog.network(name)
                after = await change(before)
                parts = [part for part in _PROPERTIES if getattr(before, part) != getattr(after, part)]
                if set(parts) - {"description"}:
                    await self._check_change(before, after)
                    await self._put_in_force(before, after)
                elif parts:
                    self._catalog.remember(after)
                if parts:
                    self._publish(Kind.NETWORK_CHANGED, after, *(each for part in parts for each in _PROPERTIES[part]))
            if "config" in parts:
                members = [self._table.by_uuid(one.uuid) for one in self._members(name)]
                await self._after_change([one for one in members if one.phase is Phase.READY])

        self._catalog.network(name)
        await self._operations.wait(self._operations.begin("change-network", name, work, owner).id)

    async def _check_change(self, before: Network, after: Network) -> None:
        await self._check(after)
        self._check_published(after)
        members = self._members(after.name)
        check_kept(after, map(without_chosen, members))
        if not after.has_subnets and before.link != after.link and members:
            raise BusyError(f"network {after.name} is in use by {_some([one.reference for one in members])}",
                            "its link can be changed when it is not")  # fmt: skip

    async def _put_in_force(self, before: Network, after: Network) -> None:
        try:
            self._remember(after)
            await self._uplinks.change(before, after)
        except BaseException as error:
            self._remember(before)
            await asyncio.shield(self._go_back(after, before))
            if isinstance(error, FailedError):
                raise FailedError(f"network {after.name} stays as it was: {error.message}", error.hint) from None
            raise

    def _remember(self, network: Network) -> None:
        """It, and the addresses of its instances that were chosen for them."""
        self._catalog.remember(network)
        self._table.forget_expanded()
        members = [self._table.by_uuid(one.uuid) for one in self._members(network.name)]
        self._kept.renew([one for one in members if one.phase is not Phase.DELETING])

    async def _go_back(self, tried: Network, before: Network) -> None:
        try:
            await self._uplinks.change(tried, before)
        except (SyscontError, OSError) as error:
            log.error("network %s can't be put back: %s", before.name, error)

    # names

    async def rename(self, name: str, new_name: str, owner: int) -> None:
        """Give a network that nobody uses another name."""
        names.check_network_name(new_name)

        async def work(handle: Handle) -> None:
            async with self.changing:
                before = self._catalog.network(name)
                self._check_unused(before, "renamed")
                if self._catalog.is_taken(new_name):
                    raise ExistsError(f"a network named {new_name!r} exists already")
                if before.is_bridge and links.interface_index(new_name):
                    raise ExistsError(f"the host has a link named {new_name!r} already")
                after, gone = replace(before, name=new_name), replace(before, phase=Phase.DELETING)
                with self._store.transaction():
                    self._catalog.write(gone)
                    self._catalog.write(after)
                self._catalog.take(gone)
                self._catalog.take(after)
                self._publish(Kind.NETWORK_REMOVED, before)
                self._publish(Kind.NETWORK_ADDED, after)
                await asyncio.shield(self._remove(gone))
                await self._uplinks.bring_up(after)

        self._catalog.network(name)
        await self._operations.wait(self._operations.begin("rename-network", name, work, owner).id)

    async def delete(self, name: str, owner: int) -> None:
        """Delete a network that nobody uses."""

        async def work(handle: Handle) -> None:
            async with self.changing:
                network = self._catalog.network(name)
                self._check_unused(network, "deleted")
                gone = replace(network, phase=Phase.DELETING)
                self._catalog.remember(gone)
                self._publish(Kind.NETWORK_REMOVED, gone)
                # Half a network is of no use to anyone: what has begun is not cancelled any more.
                await asyncio.shield(self._remove(gone))

        self._check_unused(self._catalog.network(name), "deleted")
        await self._operations.wait(self._operations.begin("delete-network", name, work, owner).id)

    async def _remove(self, network: Network) -> None:
        await self._uplinks.take_down(network)
        self._catalog.erase(network)
        self._catalog.drop(network)

    def _check_unused(self, network: Network, what: str) -> None:
        subjects.check_unnamed(self._catalog.acls(), network, ())
        users = self.users(network.name)
        everyone = self._catalog.networks()
        tied = [*outside.linked_to(network.name, everyone), *peers.mutual(network, everyone)]
        linked = [f"network {one.name}" for one in tied]
        if found := [*users.instances, *(f"profile {name}" for name in users.profiles), *linked]:
            raise BusyError(f"network {network.name} is in use by {_some(found)}", f"it can be {what} when it is not")

    def _publish(self, kind: Kind, network: Network, *changed: str) -> None:
        self._events.publish(Event(kind, network.name, "", changed))


def _is_of(address: object, networks: list[Network]) -> bool:
    """Whether a network has an address, for which it speaks itself."""
    return any(own and own.ip == address for one in networks for own in (one.address(4), one.address(6)))


def _some(found: list[str]) -> str:
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
