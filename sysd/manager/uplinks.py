# SPDX-License-Identifier: Apache-2.0
"""What networks are on the host: links, addresses, firewall, dnsmasq, names for the host; made, kept and taken away."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from sysd.manager import functions, outside
from sysd.manager.acceleration import Acceleration
from sysd.manager.background import Background
from sysd.manager.bridged import behind_of, bridge_of, check_external, external, own_routes, put_back
from sysd.manager.catalog import Catalog
from sysd.manager.hosts import Port, hosts
from sysd.manager.interfaces import Uplink
from sysd.manager.overlays import Overlays
from sysd.model import bridge
from sysd.model.errors import FailedError, SyscontError
from sysd.model.instance import Instance
from sysd.model.network import MADE_LINK, PHYSICAL, SRIOV, Network
from sysd.model.tunnels import tunnels as tunnels_of
from sysd.network import bridges, dnsmasq, firewall, leases, links, tunnels
from sysd.network.bridges import Route
from sysd.network.links import LinkState
from sysd.units.bus import BusError
from sysd.units.resolved import Resolved
from sysd.units.systemd import SERVICE, JobError, Systemd

log = logging.getLogger(__name__)

SECOND_LOOK = 3.0
"""Seconds after instances came or went that leases are looked at again: dnsmasq may have given one to an instance that
was just being killed, or not have heard that it is to have it back."""

PortsOf = Callable[[str], list[Port]]
"""The interfaces in a network, of instances that run or not."""


class Uplinks:
    def __init__(
        self, catalog: Catalog, systemd: Systemd, resolved: Resolved, ports_of: PortsOf, overlays: Overlays
    ) -> None:
        self._catalog = catalog
        self._overlays = overlays
        self._systemd = systemd
        self._resolved = resolved
        self._ports_of = ports_of
        self._up: dict[str, int] = {}
        """Indexes of the bridges that were brought up."""
        self._rules: dict[str, dict[str, int]] = {}
        """How many rules the chains of each have."""
        self._behind: dict[str, tuple[Route, ...]] = {}
        """The routes of each to what is behind instances."""
        self._serving: set[str] = set()
        self._lock = asyncio.Lock()
        self._refresh: asyncio.TimerHandle | None = None
        self._second_look: asyncio.TimerHandle | None = None
        self._background = Background()
        systemd.on_unit_change(self._unit_changed)

    async def uplink(self, name: str, accelerated: bool) -> Uplink:
        """What interfaces in a network are made of, which is up then. Raises FailedError when it can't be."""
        network = self._catalog.network(name)
        if network.is_ovn:
            await self._overlays.ready(network)
            if accelerated:
                return Uplink(SRIOV, ",".join(await self._overlays.carriers()), 0, network.mtu)
            return Uplink("ovn", "", 0, network.mtu)
        if not network.is_bridge:
            await self.bring_up(network)
            return Uplink(network.type, network.link, links.interface_index(network.link), network.mtu, network.vlan)
        index = self._up[name] if self._is_well(network) else await self.bring_up(network)
        return Uplink("bridged", name, index, network.mtu)

    async def state(self, network: Network) -> LinkState:
        """Of one of OVN. Raises FailedError."""
        return await self._overlays.state(network)

    async def acceleration(self) -> Acceleration:
        return await self._overlays.acceleration()

    def _is_well(self, network: Network) -> bool:
        """Whether nobody took anything away since the network was brought up; takes a fraction of a millisecond."""
        index = self._up.get(network.name)
        return (
            bool(index)
            and (network.name in self._serving or not dnsmasq.is_wanted(network))
            and links.interface_index(network.name) == index
            and self._rules_in_place(network)
        )

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        state = changed.get("ActiveState")
        if state is not None and self._catalog.has_network(name := dnsmasq.network_of(unit)):
            # dnsmasq that was stopped by hand stays so until an instance needs it.
            (self._serving.add if state == "active" else self._serving.discard)(name)

    def table_gone(self, name: str) -> None:
        """See Filters.table_gone."""
        named = [each for each in self._up if name in ("", firewall.table_name(each))]
        if named:
            self._background.run(self._restore_rules(named))

    async def _restore_rules(self, names: list[str]) -> None:
        async with self._lock:
            # Those that are being deleted are not found any more.
            for network in filter(None, map(self._catalog.find_network, names)):
                try:
                    if not self._rules_in_place(network):
                        await self._apply_rules(network)
                except (SyscontError, OSError) as error:
                    log.error("the rules of network %s were lost: %s", network.name, error)

    def _rules_in_place(self, network: Network) -> bool:
        return network.name in self._rules and firewall.in_place(network.name, self._rules[network.name])

    async def apply_rules(self, network: Network) -> None:
        """Let the firewall be what a network and its ACLs say, at once and as a whole; for one of OVN, that."""
        if network.is_ovn:
            await self._overlays.bring_up(network)
            return
        async with self._lock:
            await self._apply_rules(network)

    async def _apply_rules(self, network: Network) -> None:
        """With the lock held: what is asked for last is what is there."""
        chains = firewall.chains(network, self._catalog.acls_of(network))
        await firewall.apply(firewall.transaction(network.name, chains))
        self._rules[network.name] = {chain.name: len(chain.rules) for chain in chains}

    # making and taking away

    async def bring_up(self, network: Network) -> int:
        """Let the host be what a network says, whatever it was; the index of its link. Raises FailedError."""
        if network.is_ovn:
            await self._overlays.bring_up(network)
            return 0
        async with self._lock:
            try:
                return await (self._bring_up_bridge(network) if network.is_bridge else self._bring_up_link(network))
            except (OSError, NetlinkError) as error:
                raise FailedError(f"network {network.name} can't be brought up: {error}") from error

    async def _bring_up_bridge(self, network: Network) -> int:
        await asyncio.to_thread(check_external, network)
        # First: they go by the bridge's name, and nobody is on it before they hold.
        await self._apply_rules(network)
        there = self._ports_of(network.name)
        index = await asyncio.to_thread(bridges.ensure, bridge_of(network, there))
        self._behind[network.name] = behind_of(there)
        joined = tunnels_of(network.config)
        await asyncio.to_thread(tunnels.ensure, network.name, index, joined, bridge.mtu(network.config))
        # A bridge that somebody deleted has lost the guests that were on it.
        await asyncio.to_thread(put_back, index, there)
        for version in (4, 6):
            if network.address(version) and network.flag(f"ipv{version}.routing"):
                await asyncio.to_thread(links.enable_forwarding, version)
        dnsmasq.write_hosts(network, hosts(there))
        await self._serve(network, index)
        servers = [own.ip for own in (network.address(4), network.address(6)) if own]
        # Not waited for: a resolved that hangs, or comes up later than we do, must not hold instances up.
        self._background.run(self._resolved.set_link(index, servers, network.domain))
        self._up[network.name] = index
        return index

    async def _bring_up_link(self, network: Network) -> int:
        """That of another type than bridge: the host's link, or the one of a VLAN on it."""
        if network.type == SRIOV:
            return functions.check_parent(network)
        if "vlan" not in network.config:
            return links.interface_index(network.link)
        parent, number = links.interface_index(network.config["parent"]), int(network.config["vlan"])
        if index := links.interface_index(network.link):
            if not await asyncio.to_thread(links.is_vlan, network.link, parent, number):
                raise FailedError(f"the host has a link {network.link} that is not VLAN {number} of its parent")
            return index
        if not parent and network.type == PHYSICAL:
            return 0  # a guest may have it
        if not parent:
            raise FailedError(f"network {network.name}: the host has no link {network.config['parent']}")
        self._catalog.remember(replace(network, config=network.config | {MADE_LINK: "true"}))
        await asyncio.to_thread(links.make_vlan, network.link, parent, number, gvrp=network.flag("gvrp"))
        return links.interface_index(network.link)

    async def change(self, before: Network, after: Network) -> None:
        """From one to the other. Guests run on; those whose network has other addresses now are made to ask for one."""
        if after.is_ovn:
            await self._overlays.change(before, after)
            return
        if before.is_bridge:
            index = links.interface_index(before.name)
            for port in set(external(before)) - set(external(after)):
                await asyncio.to_thread(bridges.take_out, port, index)
        elif before.link != after.link:
            await self.take_down(before)
        index = await self.bring_up(after)
        for linked in outside.linked_to(after.name, self._catalog.networks()):
            await self._overlays.bring_up(linked)
        if after.is_bridge and any(before.subnet(version) != after.subnet(version) for version in (4, 6)):
            await asyncio.to_thread(bridges.bounce, index, external(after))

    async def take_down(self, network: Network) -> None:
        """Leave nothing of a network on the host; what is gone already is no error."""
        if network.is_ovn:
            await self._overlays.take_down(network)
            return
        async with self._lock:
            self._up.pop(network.name, None)
            self._rules.pop(network.name, None)
            self._behind.pop(network.name, None)
            if not network.is_bridge:
                await self._take_link_down(network)
                return
            await self._end_unit(dnsmasq.unit_name(network.name))
            await firewall.apply(firewall.removal(network.name))
            index = links.interface_index(network.name)
            for port in external(network):
                await asyncio.to_thread(bridges.take_out, port, index)
            await asyncio.to_thread(tunnels.ensure, network.name, index, (), 0)
            await asyncio.to_thread(links.delete_link, network.name)
            await asyncio.to_thread(dnsmasq.forget, network.name)

    async def _take_link_down(self, network: Network) -> None:
        """The VLAN's link if it is ours, and no other network is on it."""
        if network.config.get(MADE_LINK) != "true" or "vlan" not in network.config:
            return
        everyone = self._catalog.networks()
        others = [other for other in everyone if other.name != network.name and not other.has_subnets]
        heir = next((other for other in others if other.link == network.link), None)
        if heir:
            self._catalog.remember(replace(heir, config=heir.config | {MADE_LINK: "true"}))
        else:
            await asyncio.to_thread(links.delete_link, network.link)

    # dnsmasq

    async def _serve(self, network: Network, index: int) -> None:
        """Let dnsmasq run as it should, bound to the bridge that there is now."""
        unit = dnsmasq.unit_name(network.name)
        properties = dnsmasq.unit_properties(network, socket.gethostname(), index)
        try:
            if not dnsmasq.is_wanted(network):
                await self._end_unit(unit)
                return
            if not await self._serves(unit, properties["Environment"].value):
                subnets = [subnet for subnet in (network.subnet(4), network.subnet(6)) if subnet]
                leases.prune(dnsmasq.lease_file(network.name), subnets)
                await self._systemd.finish(unit, await self._systemd.start_transient(unit, properties))
        except (BusError, JobError) as error:
            message = f"network {network.name}: dnsmasq does not start: {error}"
            raise FailedError(message, f"journalctl -u {unit}") from None
        self._serving.add(network.name)

    async def _serves(self, unit: str, told: object) -> bool:
        """Whether dnsmasq runs as it should. If not, nothing is left of it that would be in the way of a new one."""
        states = {one.active_state for one in await self._systemd.list_units(unit)}
        if "active" in states and await self._systemd.unit_property(unit, SERVICE, "Environment") == told:
            return True
        await self._end_unit(unit)
        return False

    async def _end_unit(self, unit: str) -> None:
        states = {one.active_state for one in await self._systemd.list_units(unit)}
        if states - {"inactive", "failed"}:
            await self._systemd.wait_job(await self._systemd.stop_unit(unit))
        await self._systemd.forget(unit)

    async def _set_routes(self, network: Network, there: list[Port]) -> None:
        """To what is behind the instances that are in a network now."""
        behind, index = behind_of(there), self._up.get(network.name, 0)
        if not network.is_bridge or behind == self._behind.get(network.name, ()):
            return
        async with self._lock:
            try:
                await asyncio.to_thread(bridges.set_routes, index, (*own_routes(network), *behind))
                self._behind[network.name] = behind
            except (OSError, NetlinkError) as error:
                log.error("routes of network %s can't be set: %s", network.name, error)

    # names

    def hosts_changed(self) -> None:
        """Instances came, went or changed names: let dnsmasq know, and OVN, once for many changes."""
        self._overlays.hosts_changed()
        if self._refresh is None:
            self._refresh = asyncio.get_running_loop().call_later(0.01, self._start_refresh)

    async def tell(self, expanded: Instance) -> None:
        """Have OVN know at once what interfaces of an instance are by now: rules, routes, addresses. Raises
        FailedError, and it is told later."""
        for name in dict.fromkeys(options.get("network", "") for options in expanded.devices.values()):
            network = self._catalog.find_network(name) if name else None
            if network and network.is_ovn:
                try:
                    await self._overlays.ready(network)
                except FailedError as error:
                    why = f"{expanded.reference} is changed, and network {name} is told later: {error.message}"
                    raise FailedError(why, error.hint) from None

    def _start_refresh(self) -> None:
        self._refresh = None
        self._background.run(self._write_hosts())
        if self._second_look:
            self._second_look.cancel()
        self._second_look = asyncio.get_running_loop().call_later(SECOND_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._second_look = None
        for network in filter(None, map(self._catalog.find_network, list(self._up))):
            try:
                if dnsmasq.is_wanted(network):
                    known = hosts(self._ports_of(network.name))
                    leases.release_lost(network, dnsmasq.lease_file(network.name), known)
            except OSError as error:
                log.warning("leases of %s can't be given back: %s", network.name, error)

    async def _write_hosts(self) -> None:
        for network in filter(None, map(self._catalog.find_network, list(self._up))):
            name, there = network.name, self._ports_of(network.name)
            await self._set_routes(network, there)
            known = hosts(there)
            if not dnsmasq.is_wanted(network) or not dnsmasq.write_hosts(network, known):
                continue
            try:
                leases.release_lost(network, dnsmasq.lease_file(name), known)
                await self._systemd.kill_unit(dnsmasq.unit_name(name), signal.SIGHUP)
            except (BusError, OSError) as error:
                log.warning("dnsmasq of %s was not told of new names: %s", name, error)
