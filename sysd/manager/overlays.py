# SPDX-License-Identifier: Apache-2.0
"""Networks of OVN: what its databases and the local Open vSwitch are to have, made, kept and taken away.

Ports are those of all instances that are in a network, running or not: so one that systemctl starts finds its own.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from sysd.manager import acceleration, outside, subjects
from sysd.manager.acceleration import Acceleration
from sysd.manager.background import Background
from sysd.manager.catalog import Catalog
from sysd.manager.outside import Outside
from sysd.manager.overlay_ports import Known, OverlayPorts, PortsOf, behind, defaults, id_of
from sysd.model import ovn, peers, server
from sysd.model.acls import Acl, names, peer_of, peer_word
from sysd.model.addresses import Subnet
from sysd.model.devices import nic
from sysd.model.devices.nic import ACLS
from sysd.model.errors import FailedError, InvalidError, SyscontError
from sysd.model.instance import Phase
from sysd.model.network import Network
from sysd.network import links, pairs
from sysd.network.links import LinkState
from sysd.network.ovn import acls, chassis, peering, ports, topology
from sysd.network.ovn.chassis import Chassis
from sysd.network.ovn.database import Identity
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.peering import Peer
from sysd.network.ovn.values import OvnNetwork, OvnUplink
from sysd.store.database import Store

log = logging.getLogger(__name__)

ETHERNET = 1500
PRIORITY = 1
NEWS, RETRY, AGAIN = 0.5, 5.0, 60.0
"""Seconds after which it is looked whether all is as it should be: after news, of which more may come; after a failure,
and twice as long after each further one; and in any case."""
PROVIDER, BRIDGE, PLUG, FAR_END = "sc-", "scovs", "vethscu", "vethscx"
"""What OVN calls an uplink, and the host the bridge that leads to it and the cable there; the rest is of its name."""
GONE = "ovn_gone"
"""Of the store's meta values."""


class Overlays:
    def __init__(self, store: Store, catalog: Catalog, ports_of: PortsOf) -> None:
        self._store = store
        self._catalog = catalog
        self._ports_of = ports_of
        self._lock = asyncio.Lock()
        self._north: Northbound | None = None
        self._switch = Chassis(news=self._news)
        self._ports = OverlayPorts(ports_of, self._switch)
        self._acls: dict[str, list[Acl]] = {}
        """By UUID of the network, those that the database has as far as we know."""
        self._gone = set((store.get_meta(GONE) or "").split())
        """UUIDs of networks that are no more, and of which OVN may still have something."""
        self._unreached: set[str] = set()
        """Of networks in the making, of which it has nothing: it was not reached for them."""
        self._failed: set[str] = set()
        """What could not be put right, which was logged: names of networks, and nothing for those that are no more."""
        self._pause = RETRY
        self._background = Background()
        self._look: asyncio.TimerHandle | None = None
        self._whole = True
        """Whether the next look is at all that there is, and not only at what has changed here."""
        self._looked = 0.0
        """When that was last done."""

    def check_server_config(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Raise InvalidError for TLS without all that it takes. What changed is looked at soon."""
        keys = (server.OVN_NORTHBOUND, server.OVN_BRIDGE, *server.OVN_FILES)
        if [before.get(key) for key in keys] == [after.get(key) for key in keys]:
            return
        missing = next((key for key in server.OVN_FILES if key not in after), "")
        if missing and "ssl:" in after.get(server.OVN_NORTHBOUND, ""):
            raise InvalidError(f"{server.OVN_NORTHBOUND}: ssl: needs {missing}, too", "set all of them at once")
        self._news(whole=True)

    # what is asked for

    async def bring_up(self, network: Network) -> None:
        """Let OVN have a network, and all its ports. Raises FailedError."""
        async with self._lock:
            await self._bring_up(network)

    async def _bring_up(self, network: Network) -> None:
        north, uuid = await self._database(), network.config[ovn.UUID]
        if network.phase is Phase.CREATING:
            self._unreached.add(uuid)
        await topology.networks(north)
        self._unreached.discard(uuid)
        found = outside.outside(network, self._catalog.networks())
        if found:
            await self._join(found)
        described = await self._described(network, found)
        await topology.ensure(north, described)
        rules = self._rules(network)
        await self._set_rules(network, described, self._with_former(uuid, rules))
        await self._ports.set_all(north, network, described, self._integration())
        await self._set_rules(network, described, rules)
        self._acls[uuid] = rules
        await self._set_peers(network, described)

    async def change(self, before: Network, after: Network) -> None:
        """From one to the other."""
        async with self._lock:
            await self._bring_up(after)
            if before.config["network"] != after.config["network"]:
                await self._part()

    async def ready(self, network: Network) -> None:
        """Let it have the ports that there are now, of which it is not asked when it is known to have them: so guests
        can be started also when it is away. Raises FailedError."""
        async with self._lock:
            await self._ready(network, self._ports.known(network.config[ovn.UUID]))

    async def _ready(self, network: Network, known: Known) -> None:
        uuid = network.config[ovn.UUID]
        has = self._ports.has(uuid)
        if has is None or self._rules(network) != self._acls.get(uuid):
            await self._bring_up(network)
            return
        wanted = self._ports.wanted(network, uuid, known)
        if behind(has) != behind(wanted):
            await self._bring_up(network)  # its peers are to know
        elif has != wanted:
            described = await self._described(network, outside.outside(network, self._catalog.networks()))
            await self._ports.set_changed(await self._database(), network, described, self._integration(), known)

    async def take_down(self, network: Network) -> None:
        """Leave nothing of it anywhere: at once, or when OVN is there again to be told."""
        async with self._lock:
            uuid = network.config[ovn.UUID]
            self._ports.forget(uuid)
            self._acls.pop(uuid, None)
            if uuid in self._unreached:
                self._unreached.discard(uuid)
                return
            self._remember_gone({*self._gone, uuid})
            if not await self._clear(but=network.name):
                self._look_in(RETRY)

    def _remember_gone(self, uuids: set[str]) -> None:
        self._store.set_meta(GONE, " ".join(sorted(uuids)))
        self._gone = uuids

    async def _clear(self, *, but: str = "") -> bool:
        """Take away what is left of networks that are no more, one of that name among them; False when it must be tried
        again."""
        kept = {each.config[ovn.UUID] for each in self._networks() if each.name != but}
        try:
            for uuid in sorted(self._gone):
                if uuid not in kept:
                    await topology.remove(await self._database(), uuid)
                    for port in await chassis.attached(self._switch):
                        if port.network == uuid:
                            await chassis.detach(self._switch, port.link, network=uuid)
                self._remember_gone(self._gone - {uuid})
            await self._part(but=but)
        except (SyscontError, OSError, NetlinkError) as error:
            self._tell("", f"of networks that are no more something is left in OVN for now: {error}")
            return False
        self._failed.discard("")
        return True

    def _tell(self, name: str, what: str) -> None:
        """In the log, once until it is well again."""
        if name not in self._failed:
            log.warning("%s", what)
        self._failed.add(name)

    def _networks(self) -> list[Network]:
        return [each for each in self._catalog.networks() if each.is_ovn]

    async def state(self, network: Network) -> LinkState:
        """What OVN has of it. addresses: its router's, inside and in the uplink; ports: the hosts' ends of interfaces
        that are in use. Nobody counts what goes through it as a whole. Raises FailedError."""
        north, uuid = await self._database(), network.config[ovn.UUID]
        there = {each.id for each in await ports.ports_of(north, uuid) if each.up}
        found = outside.outside(network, self._catalog.networks())
        own = [each for each in (network.address(4), network.address(6)) if each]
        return LinkState(
            "up" if uuid in await topology.networks(north) else "down",
            network.text("bridge.hwaddr") or network.config[ovn.HWADDR],
            network.mtu,
            tuple(str(each) for each in (*own, *(found.addresses if found else ()))),
            tuple(sorted(port.host_name for port in self._ports_of(network.name) if id_of(port) in there)),
            {},
        )

    async def acceleration(self) -> Acceleration:
        return await acceleration.look(self._switch, self._integration())

    async def carriers(self) -> list[str]:
        """Links of cards that can carry interfaces. Raises FailedError."""
        return await acceleration.carriers(self._switch, self._integration())

    def _integration(self) -> str:
        return server.SCHEMA.text(self._catalog.server_config, server.OVN_BRIDGE)

    def hosts_changed(self) -> None:
        """Instances came, went or changed: see to it, once for many changes."""
        if self._gone or self._networks():
            self._look_in(NEWS)

    def _news(self, whole: bool) -> None:
        """Of OVN's: of something that is as we say, or else of what it has given."""
        self._whole |= whole
        self.hosts_changed()

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
        now = asyncio.get_running_loop().time()
        whole = self._whole or now - self._looked >= AGAIN
        self._whole, self._looked = False, now if whole else self._looked
        well = False
        try:
            async with self._lock:
                well = not self._gone or await self._clear()
            for name in [each.name for each in self._networks()]:
                well = await self._put_right(name, whole=whole) and well
        finally:
            self._whole |= not well
            self._pause = RETRY if well else min(AGAIN, 2 * self._pause)
            if not well or self._networks():
                self._look_in(AGAIN if well else self._pause)

    async def _put_right(self, name: str, *, whole: bool) -> bool:
        async with self._lock:
            # As it is now: somebody may just have changed or deleted it.
            network = self._catalog.find_network(name)
            try:
                if network and whole:
                    await self._bring_up(network)
                elif network:
                    learned = await self._ports.learned(await self._database(), network.config[ovn.UUID])
                    await self._ready(network, learned)
            except (SyscontError, OSError, NetlinkError) as error:
                self._tell(name, f"network {name} can't be put right: {error}")
                return False
        self._failed.discard(name)
        return True

    # rules

    def _rules(self, network: Network) -> list[Acl]:
        """All ACLs that hold for some guest, and those that these name. Raises NotFoundError: without one, it would be
        open where it is not to be."""
        own = [name for port in self._ports_of(network.name) for name in names(port.options.get(ACLS, ""))]
        found = [self._catalog.acl(name) for name in dict.fromkeys((*network.acls, *own))]
        return [*found, *subjects.groups(found, self._catalog.acl)]

    def _with_former(self, uuid: str, rules: list[Acl]) -> list[Acl]:
        """With those of before: guests are never in a group that is not there yet, or not any more."""
        known = {acl.name for acl in rules}
        return [*rules, *(acl for acl in self._acls.get(uuid, []) if acl.name not in known)]

    async def _set_rules(self, network: Network, described: OvnNetwork, rules: list[Acl]) -> None:
        # A peer that does not name it in turn, and one of another network's, is nobody here.
        named: dict[str, list[Subnet]] = {word: [] for acl in rules for word in acl.named if peer_of(word)}
        there = {each.name: each for each in peers.mutual(network, self._catalog.networks())}
        for peer in network.peered:
            if other := there.get(peer.target):
                own = [subnet for subnet in (other.subnet(4), other.subnet(6)) if subnet]
                named[peer_word(network.name, peer.name)] = [*own, *self._routes(other)]
        await acls.ensure_acls(await self._database(), described, rules, defaults(network, {}), named)

    def _routes(self, network: Network) -> tuple[Subnet, ...]:
        """To what is behind its guests."""
        there = self._ports_of(network.name)
        return tuple(to for port in there for to in (*nic.routes(port.options), *nic.published(port.options)))

    async def _set_peers(self, network: Network, described: OvnNetwork) -> None:
        """With those that are there: who comes later sees to both sides."""
        north, everyone = await self._database(), self._catalog.networks()
        known = set(await topology.networks(north))
        wanted = {each.config[ovn.UUID] for each in peers.mutual(network, everyone)}
        gone = set(await peering.peers_of(north, described.uuid)) - wanted
        for uuid in gone:
            await peering.remove_peering(north, described.uuid, uuid)
        for other in self._networks():
            uuid = other.config[ovn.UUID]
            if uuid not in known or uuid not in wanted | gone:
                continue
            theirs = await self._described(other, outside.outside(other, everyone))
            # Theirs may name this one as their peer.
            await self._set_rules(other, theirs, self._with_former(uuid, self._rules(other)))
            if uuid in wanted:
                mine = Peer(described, self._routes(network))
                await peering.ensure_peering(north, mine, Peer(theirs, self._routes(other)))

    # uplinks

    async def _join(self, found: Outside) -> None:
        """Let the uplink be at a switch of Open vSwitch's, which is what OVN reaches it by."""
        uplink = found.uplink
        index = links.interface_index(uplink.link)
        if not index:
            raise FailedError(f"network {uplink.name} has no link {uplink.link}", "it is the uplink")
        port, short = uplink.link, _short(uplink.name)
        try:
            if uplink.is_bridge:
                port = FAR_END + short
                await asyncio.to_thread(pairs.ensure, PLUG + short, index, port, uplink.mtu or ETHERNET)
        except (OSError, NetlinkError) as error:
            raise FailedError(f"network {uplink.name} can't be the uplink: {error}") from error
        provider, bridge = PROVIDER + short, BRIDGE + short
        await chassis.ensure_bridge(self._switch, bridge, network=provider)
        await chassis.attach(self._switch, port, network=provider, bridge=bridge)
        await chassis.map_uplink(self._switch, provider, bridge)

    async def _part(self, *, but: str = "") -> None:
        """Take the switches of uplinks away that no network is linked to; one of that name does not count."""
        used = {_short(each.config["network"]) for each in self._networks() if each.name != but}
        for provider, bridge in (await chassis.facts(self._switch)).mappings.items():
            short = provider.removeprefix(PROVIDER)
            if bridge == BRIDGE + short and short not in used:
                await chassis.unmap_uplink(self._switch, provider)
                await chassis.remove_bridge(self._switch, bridge)
                await asyncio.to_thread(links.delete_link, PLUG + short)

    async def _described(self, network: Network, found: Outside | None) -> OvnNetwork:
        uplink = None
        if found:
            here = await chassis.facts(self._switch)
            if not here.system_id:
                raise FailedError("the local Open vSwitch has no system-id", "'ovs-vsctl get open . external_ids'")
            provider = PROVIDER + _short(found.uplink.name)
            uplink = OvnUplink(provider, found.addresses, found.gateways, ((here.system_id, PRIORITY),))
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
        if self._north and (",".join(self._north.remotes), self._north.identity) != (where, self._identity()):
            await self._north.close()
            self._north = None
        if self._north is None:
            self._north = Northbound(where, self._identity(), news=self._news)
        return self._north


    def _identity(self) -> Identity | None:
        """For TLS, if all of it is said."""
        files = [self._catalog.server_config.get(key) for key in server.OVN_FILES]
        key, certificate, authority = (Path(each) if each else None for each in files)
        return Identity(key, certificate, authority) if key and certificate and authority else None


def _short(uplink: str) -> str:
    return f"{zlib.crc32(uplink.encode()):08x}"
