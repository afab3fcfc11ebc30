# SPDX-License-Identifier: Apache-2.0
"""Networks of OVN: what its databases and the local Open vSwitch are to have, made, kept and taken away.

Ports are those of all instances that are in a network, running or not: so one that systemctl starts finds its own.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable

from pyroute2.netlink.exceptions import NetlinkError

from sysd.manager import outside
from sysd.manager.background import Background
from sysd.manager.catalog import Catalog
from sysd.manager.hosts import Port, named_once
from sysd.manager.outside import Outside
from sysd.model import ovn, peers, server
from sysd.model.acls import Acl
from sysd.model.addresses import Address
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Phase
from sysd.model.network import Network
from sysd.network import links, pairs
from sysd.network.ovn import acls, chassis, peering, ports, topology
from sysd.network.ovn.chassis import Chassis
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.peering import Peer
from sysd.network.ovn.values import Defaults, OvnNetwork, OvnPort, OvnUplink

log = logging.getLogger(__name__)

ETHERNET = 1500
PRIORITY = 1
NEWS, RETRY, AGAIN = 0.5, 5.0, 60.0
"""Seconds after which it is looked whether all is as it should be: after news, of which more may come; after a failure;
and in any case."""
PortsOf = Callable[[str], list[Port]]


class Overlays:
    def __init__(self, catalog: Catalog, ports_of: PortsOf) -> None:
        self._catalog = catalog
        self._ports_of = ports_of
        self._lock = asyncio.Lock()
        self._north: Northbound | None = None
        self._switch = Chassis(news=self.hosts_changed)
        self._has: dict[str, dict[str, OvnPort]] = {}
        """By UUID of the network, the ports that the database has as far as we know."""
        self._acls: dict[str, list[Acl]] = {}
        """The same of ACLs."""
        self._failed: set[str] = set()
        """Names of networks that could not be put right, which was logged."""
        self._background = Background()
        self._look: asyncio.TimerHandle | None = None

    # what is asked for

    async def bring_up(self, network: Network) -> None:
        """Let OVN have a network, and all its ports. Raises FailedError."""
        async with self._lock:
            self._has.pop(network.config[ovn.UUID], None)
            found = outside.outside(network, self._catalog.networks())
            if found:
                await self._join(found)
            described, north = await self._described(network, found), await self._database()
            await topology.ensure(north, described)
            rules, before = self._catalog.acls_of(network), self._acls.get(described.uuid, [])
            known = {acl.name for acl in rules}
            defaults = _defaults(network)
            # Guests are never in a group that is not there yet, or not any more.
            await acls.ensure_acls(north, described, [*rules, *(a for a in before if a.name not in known)], defaults)
            await self._set_ports(network, described)
            await acls.ensure_acls(north, described, rules, defaults)
            self._acls[described.uuid] = rules
            await self._set_peers(network, described)

    async def change(self, before: Network, after: Network) -> None:
        """From one to the other."""
        await self.bring_up(after)
        async with self._lock:
            await self._part(before, self._catalog.networks())

    async def ready(self, network: Network) -> None:
        """Let it have the ports that there are now. Raises FailedError."""
        async with self._lock:
            if network.config[ovn.UUID] in self._has:
                found = outside.outside(network, self._catalog.networks())
                await self._set_ports(network, await self._described(network, found))
                return
        await self.bring_up(network)

    async def take_down(self, network: Network) -> None:
        """Leave nothing of it anywhere. Raises FailedError when OVN is not there to be told."""
        async with self._lock:
            uuid = network.config[ovn.UUID]
            self._has.pop(uuid, None)
            await topology.remove(await self._database(), uuid)
            for port in await chassis.attached(self._switch):
                if port.network == uuid:
                    await chassis.detach(self._switch, port.link)
            await self._part(network, [each for each in self._catalog.networks() if each.name != network.name])

    def hosts_changed(self) -> None:
        """Instances came, went or changed, or something in OVN did: see to it, once for many changes."""
        self._look_in(NEWS)

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._look and self._look.when() <= loop.time() + seconds:
            return
        if self._look:
            self._look.cancel()
        self._look = loop.call_later(seconds, self._start_look)

    def _start_look(self) -> None:
        self._look = None
        self._background.run(self._look_at_all())

    async def _look_at_all(self) -> None:
        """And again after a while, as a database that is away tells nothing."""
        there = [each for each in self._catalog.networks() if each.is_ovn and each.phase is Phase.READY]
        for network in there:
            try:
                await self.bring_up(network)
                self._failed.discard(network.name)
            except (SyscontError, OSError) as error:
                if network.name not in self._failed:
                    log.warning("network %s can't be put right: %s", network.name, error)
                self._failed.add(network.name)
        if there:
            self._look_in(RETRY if self._failed else AGAIN)

    # ports

    async def _set_ports(self, network: Network, described: OvnNetwork) -> None:
        north, uuid = await self._database(), described.uuid
        there = {each.id: each for each in await ports.ports_of(north, uuid)}
        wanted = {each.id: each for each in self._ports(network, {name: one.addresses for name, one in there.items()})}
        has = self._has.get(uuid, {})
        for gone in there.keys() - wanted.keys():
            await ports.remove_port(north, uuid, gone)
        changed = [each for name, each in wanted.items() if name not in there or has.get(name) != each]
        if changed:
            await ports.add_ports(north, described, changed)
        self._has[uuid] = wanted
        await self._plug(network, uuid)

    def _ports(self, network: Network, known: dict[str, tuple[Address, ...]]) -> list[OvnPort]:
        there = self._ports_of(network.name)
        names = named_once({port.hwaddr: port.instance for port in there})
        return [
            OvnPort(
                _id(port),
                port.hwaddr,
                port.kept,
                known.get(_id(port), ()),
                hostname=names[port.hwaddr] if network.domain else "",
                acls=tuple(network.acls),
                privacy=True,
            )
            for port in there
        ]

    async def _plug(self, network: Network, uuid: str) -> None:
        """Have Open vSwitch take the hosts' ends of guests' interfaces, when they are there."""
        where = server.SCHEMA.text(self._catalog.server_config, server.OVN_BRIDGE)
        wanted = {port.host_name: ports.iface_id(uuid, _id(port)) for port in self._ports_of(network.name)}
        there = {each.link: each for each in await chassis.attached(self._switch)}
        for link in (name for name, each in there.items() if each.network == uuid and name not in wanted):
            await chassis.detach(self._switch, link)
        for link, iface_id in wanted.items():
            if link not in there or (there[link].iface_id, there[link].bridge) != (iface_id, where):
                await chassis.attach(self._switch, link, network=uuid, iface_id=iface_id, bridge=where)

    async def _set_peers(self, network: Network, described: OvnNetwork) -> None:
        """With those that are there: who comes later sees to both sides."""
        north, everyone = await self._database(), self._catalog.networks()
        known = set(await topology.networks(north))
        wanted = {each.config[ovn.UUID]: each for each in peers.mutual(network, everyone)}
        for gone in set(await peering.peers_of(north, described.uuid)) - wanted.keys():
            await peering.remove_peering(north, described.uuid, gone)
        for uuid in wanted.keys() & known:
            other = await self._described(wanted[uuid], outside.outside(wanted[uuid], everyone))
            await peering.ensure_peering(north, Peer(described), Peer(other))

    # uplinks

    async def _join(self, found: Outside) -> None:
        """Let the uplink be at a switch of Open vSwitch's, which is what OVN reaches it by."""
        uplink = found.uplink
        index = links.interface_index(uplink.link)
        if not index:
            raise FailedError(f"network {uplink.name} has no link {uplink.link}", "it is the uplink")
        port = uplink.link
        try:
            if uplink.is_bridge:
                port = _far_end(uplink)
                await asyncio.to_thread(pairs.ensure, _plug(uplink), index, port, uplink.mtu or ETHERNET)
        except (OSError, NetlinkError) as error:
            raise FailedError(f"network {uplink.name} can't be the uplink: {error}") from error
        provider, bridge = _provider(uplink), _bridge(uplink)
        await chassis.ensure_bridge(self._switch, bridge, network=provider)
        await chassis.attach(self._switch, port, network=provider, bridge=bridge)
        await chassis.map_uplink(self._switch, provider, bridge)

    async def _part(self, network: Network, others: list[Network]) -> None:
        """Take the switch of its uplink away, unless others are linked to that."""
        name = network.config["network"]
        uplink = next((each for each in self._catalog.networks() if each.name == name), None)
        if uplink is None or outside.linked_to(name, others):
            return
        await chassis.unmap_uplink(self._switch, _provider(uplink))
        await chassis.remove_bridge(self._switch, _bridge(uplink))
        if uplink.is_bridge:
            await asyncio.to_thread(links.delete_link, _plug(uplink))

    async def _described(self, network: Network, found: Outside | None) -> OvnNetwork:
        uplink = None
        if found:
            here = await chassis.facts(self._switch)
            if not here.system_id:
                raise FailedError("the local Open vSwitch has no system-id", "'ovs-vsctl get open . external_ids'")
            uplink = OvnUplink(_provider(found.uplink), found.addresses, found.gateways, ((here.system_id, PRIORITY),))
        own = tuple(each for each in (network.address(4), network.address(6)) if each)
        return OvnNetwork(
            network.config[ovn.UUID],
            network.name,
            network.text("bridge.hwaddr") or network.config[ovn.HWADDR],
            network.mtu,
            own,
            dhcp4=network.flag("ipv4.dhcp"),
            dhcp6=network.flag("ipv6.dhcp"),
            stateful6=network.flag("ipv6.dhcp.stateful"),
            nat=tuple(each.ip for each in found.addresses if network.flag(f"ipv{each.version}.nat")) if found else (),
            domain=network.domain,
            search=tuple(network.searched),
            nameservers=found.nameservers if found else (),
            uplink=uplink,
            forwards=tuple(network.forwarded),
        )

    # the databases

    async def _database(self) -> Northbound:
        """Of where it is now."""
        where = server.SCHEMA.text(self._catalog.server_config, server.OVN_NORTHBOUND)
        if self._north and ",".join(self._north.remotes) != where:
            await self._north.close()
            self._north = None
        if self._north is None:
            self._north = Northbound(where, news=self.hosts_changed)
        return self._north


def _defaults(network: Network) -> Defaults:
    key = "security.acls.default"
    return Defaults(
        network.text(f"{key}.ingress.action"), network.text(f"{key}.egress.action"),
        network.flag(f"{key}.ingress.logged"), network.flag(f"{key}.egress.logged"),
    )  # fmt: skip


def _id(port: Port) -> str:
    return f"{port.instance.uuid}.{zlib.crc32(port.device.encode()):08x}"


def _short(uplink: Network) -> str:
    return f"{zlib.crc32(uplink.name.encode()):08x}"


def _provider(uplink: Network) -> str:
    """What OVN calls the uplink."""
    return f"sc-{_short(uplink)}"


def _bridge(uplink: Network) -> str:
    return f"scovs{_short(uplink)}"


def _plug(uplink: Network) -> str:
    return f"vethscu{_short(uplink)}"


def _far_end(uplink: Network) -> str:
    return f"vethscx{_short(uplink)}"
