# SPDX-License-Identifier: Apache-2.0
"""Managed networks: the bridge, its addresses, its NAT, its dnsmasq, its names on the host."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sysd.manager.background import Background
from sysd.manager.events import Event, EventBus, Kind
from sysd.model.errors import FailedError, NotFoundError
from sysd.model.network import DEFAULT_NETWORK, Network
from sysd.network import dnsmasq, firewall, links
from sysd.store.database import Store
from sysd.units.bus import BusError
from sysd.units.resolved import Resolved
from sysd.units.systemd import SERVICE, JobError, Systemd

log = logging.getLogger(__name__)

RULE_LOADERS = ("nftables.service", "firewalld.service")

HostTable = Callable[[str], Mapping[str, str]]
"""MAC address to name of all instances on a network."""
HostEnds = Callable[[str], Iterable[str]]
"""Names of the host's ends of the interfaces that instances have on a network, should they run."""


class Networks:
    def __init__(
        self,
        store: Store,
        events: EventBus,
        systemd: Systemd,
        resolved: Resolved,
        host_table: HostTable,
        host_ends: HostEnds,
    ) -> None:
        self._store = store
        self._events = events
        self._systemd = systemd
        self._resolved = resolved
        self._host_table = host_table
        self._host_ends = host_ends
        self._networks = {network.name: network for network in store.networks()}
        self._up: dict[str, int] = {}
        self._serving: set[str] = set()
        self._lock = asyncio.Lock()
        self._refresh: asyncio.TimerHandle | None = None
        self._background = Background()
        systemd.on_unit_change(self._unit_changed)

    def all(self) -> list[Network]:
        return list(self._networks.values())

    def has(self, name: str) -> bool:
        return name in self._networks

    def get(self, name: str) -> Network:
        try:
            return self._networks[name]
        except KeyError:
            raise NotFoundError(f"no network {name!r}") from None

    async def index(self, name: str) -> int:
        """Interface index of a network's bridge, which is up then; the default network is made when it is not there."""
        if self._is_well(name):
            return self._up[name]
        async with self._lock:
            if name == DEFAULT_NETWORK and name not in self._networks:
                await self._create(DEFAULT_NETWORK)
            return await self._bring_up(self.get(name))

    def _is_well(self, name: str) -> bool:
        """Whether nobody took anything away since the network was brought up; takes a fraction of a millisecond."""
        index = self._up.get(name)
        return (
            bool(index)
            and name in self._serving
            and links.interface_index(name) == index
            and firewall.in_place(self._networks[name])
        )

    def _unit_changed(self, unit: str, changed: dict[str, Any]) -> None:
        state = changed.get("ActiveState")
        if unit in RULE_LOADERS and state == "active":
            # It may have flushed all tables, ours too.
            self._background.run(self._restore_rules())
        elif state is not None and (name := dnsmasq.network_of(unit)) in self._networks:
            # dnsmasq that was stopped by hand stays so until an instance needs it.
            (self._serving.add if state == "active" else self._serving.discard)(name)

    async def _restore_rules(self) -> None:
        async with self._lock:
            for network in [self._networks[name] for name in self._up]:
                try:
                    if not firewall.in_place(network):
                        await firewall.apply(firewall.nat_transaction(network))
                except (FailedError, OSError) as error:
                    log.error("NAT of network %s was lost: %s", network.name, error)

    async def bring_up_all(self) -> None:
        """At start. A network that fails does not hold the rest up; its instances say why when they start."""
        for network in self._networks.values():
            try:
                async with self._lock:
                    await self._bring_up(network)
            except Exception as error:
                log.error("network %s can't be brought up: %s", network.name, error)

    async def _create(self, name: str) -> None:
        used = await asyncio.to_thread(lambda: list(links.used_networks()))
        ipv6 = choose_ipv6() if links.has_ipv6() else ""
        network = Network(name, choose_ipv4(used), ipv6)
        self._store.put_network(network)
        self._networks[name] = network
        self._events.publish(Event(Kind.NETWORK_ADDED, name))

    async def _bring_up(self, network: Network) -> int:
        addresses = [network.ipv4, *([network.ipv6] if network.ipv6 else [])]
        index = await asyncio.to_thread(links.ensure_bridge, network.name, addresses)
        # A bridge that somebody deleted has lost the guests that were on it.
        await asyncio.to_thread(links.put_into_bridge, index, list(self._host_ends(network.name)))
        await asyncio.to_thread(links.enable_forwarding)
        await firewall.apply(firewall.nat_transaction(network))
        dnsmasq.write_hosts(network.name, self._host_table(network.name))
        await self._start_dnsmasq(network, index)
        # Not waited for: a resolved that hangs, or comes up later than we do, must not hold instances up.
        self._background.run(self._resolved.set_link(index, [network.ipv4_interface.ip], network.domain))
        self._up[network.name] = index
        return index

    async def _start_dnsmasq(self, network: Network, index: int) -> None:
        """Unless it runs already, bound to the bridge that there is now."""
        unit = dnsmasq.unit_name(network.name)
        try:
            if not await self._serves(unit, index):
                job = await self._systemd.start_transient(
                    unit, dnsmasq.unit_properties(network, socket.gethostname(), index)
                )
                await self._systemd.finish(unit, job)
        except (BusError, JobError) as error:
            message = f"network {network.name}: dnsmasq does not start: {error}"
            raise FailedError(message, f"journalctl -u {unit}") from None
        self._serving.add(network.name)

    async def _serves(self, unit: str, index: int) -> bool:
        """Whether dnsmasq runs as it should. If not, nothing is left of it that would be in the way of a new one."""
        states = {one.active_state for one in await self._systemd.list_units(unit)}
        if "active" in states and await self._environment(unit) == dnsmasq.bound_to(index):
            return True
        if states - {"inactive", "failed"}:
            await self._systemd.wait_job(await self._systemd.stop_unit(unit))
        await self._systemd.forget(unit)
        return False

    async def _environment(self, unit: str) -> object:
        return await self._systemd.unit_property(unit, SERVICE, "Environment")

    # names

    def hosts_changed(self) -> None:
        """Instances came, went or changed names: let dnsmasq know, once for many changes."""
        if self._refresh is None:
            self._refresh = asyncio.get_running_loop().call_later(0.01, self._start_refresh)

    def _start_refresh(self) -> None:
        self._refresh = None
        self._background.run(self._write_hosts())

    async def _write_hosts(self) -> None:
        for name in self._up:
            hosts = self._host_table(name)
            if not dnsmasq.write_hosts(name, hosts):
                continue
            try:
                dnsmasq.release_lost(self._networks[name], hosts)
                await self._systemd.kill_unit(dnsmasq.unit_name(name), signal.SIGHUP)
            except (BusError, OSError) as error:
                log.warning("dnsmasq of %s was not told of new names: %s", name, error)


def choose_ipv4(used: list[ipaddress.IPv4Network]) -> str:
    """A /24 in 10.0.0.0/8 that overlaps nothing; the gateway's address with prefix length."""
    taken = [*(other for other in used if other.prefixlen), ipaddress.IPv4Network("10.0.0.0/16")]
    start = secrets.randbelow(1 << 16)
    for step in range(1 << 16):
        # An odd factor visits each of the subnets once, in no obvious order.
        number = (start + step * 40503) % (1 << 16)
        subnet = ipaddress.IPv4Network((0x0A000000 | number << 8, 24))
        if not any(subnet.overlaps(other) for other in taken):
            return f"{subnet[1]}/24"
    raise FailedError("no free IPv4 subnet for the network", "10.0.0.0/8 is all in use on this host")


def choose_ipv6() -> str:
    """A random /64 of unique local addresses (RFC 4193)."""
    network = (0xFD42 << 112) | (secrets.randbits(48) << 64)
    return f"{ipaddress.IPv6Address(network + 1)}/64"
