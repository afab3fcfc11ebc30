# SPDX-License-Identifier: Apache-2.0
"""What networks and the instances in them give to zones: addresses by name, and names by address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sysd.dns.content import Key, Sets, render
from sysd.manager.catalog import Catalog
from sysd.manager.hosts import Port, ports
from sysd.manager.table import Table
from sysd.model.addresses import Address
from sysd.model.instance import Instance, State
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.network import Network
from sysd.model.zones import DEFAULT_TTL, Zone, is_within

A, PTR, AAAA = 1, 12, 28
FORWARD, REVERSE = "dns.zone.forward", {4: "dns.zone.reverse.ipv4", 6: "dns.zone.reverse.ipv6"}
GATEWAY = "gw"
"""``NETWORK.gw`` is a network's own address, as in LXD."""
_NO_NAMES = (State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Host:
    """A name with an address in a network. certain: nobody else can have it."""

    name: str
    address: Address
    certain: bool
    instance: Instance | None = None

    @property
    def rank(self) -> tuple[bool, bool, int, str]:
        """Who goes before whom where a name or an address can be one's only: networks themselves, then who was there
        first, in the default project before others."""
        one = self.instance
        if one is None:
            return (False, False, 0, "")
        return (not self.certain, one.project != DEFAULT_PROJECT, one.created, one.uuid)


def wire_name(name: str) -> bytes:
    """Labels in wire form, without the root's."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.lower().split(".") if label)


class HostRecords:
    """Gathers them for all zones at once."""

    def __init__(self, catalog: Catalog, table: Table) -> None:
        self._catalog = catalog
        self._table = table

    def of_zones(self) -> dict[str, Sets]:
        """By zone, of those that a network names."""
        names: dict[str, list[tuple[Host, str]]] = {}
        pointers: dict[str, list[tuple[Host, str]]] = {}
        for network in self._catalog.networks():
            if not network.zones or not self._catalog.has_network(network.name):
                continue
            for host in self._hosts(network):
                forward = self._forward(network, host)
                for zone in forward:
                    names.setdefault(zone.name, []).append((host, host.name))
                reverse = self._reverse(network, host)
                if forward and reverse:
                    pointers.setdefault(reverse.name, []).append((host, f"{host.name}.{forward[0].name}"))
        found: dict[str, dict[Key, tuple[bytes, ...]]] = {}
        for zone_name in names.keys() | pointers.keys():
            sets: dict[Key, set[bytes]] = {}
            for record_key, record in (
                *_addresses(names.get(zone_name, ())),
                *_pointers(zone_name, pointers.get(zone_name, ())),
            ):
                sets.setdefault(record_key, set()).add(record)
            found[zone_name] = {key: tuple(sorted(records)) for key, records in sets.items()}
        return dict(found)

    def _hosts(self, network: Network) -> Iterator[Host]:
        own = [each for each in (network.address(4), network.address(6)) if each]
        for each in own:
            yield Host(f"{network.name}.{GATEWAY}", each.ip, True)
        for port in ports(map(self._table.expanded, self._table.all()), network.name):
            status = self._table.status(port.instance)
            if status.state in _NO_NAMES:
                continue
            seen = map(ipaddress.ip_address, status.addresses)
            for address in dict.fromkeys((*port.kept, *seen)):
                if any(address in each.network and address != each.ip for each in own):
                    yield _host(port, address)

    def _forward(self, network: Network, host: Host) -> list[Zone]:
        """The zones in which a host has a name: its project's, else those of the default project."""
        found = [zone for name in network.zones_of(FORWARD) if (zone := self._catalog.find_zone(name))]
        project = host.instance.project if host.instance else DEFAULT_PROJECT
        own = [zone for zone in found if zone.project == project]
        chosen = own or [zone for zone in found if zone.project == DEFAULT_PROJECT]
        return [zone for zone in chosen if self._may(project, zone) and _shows(zone, network, host.address)]

    def _reverse(self, network: Network, host: Host) -> Zone | None:
        version = host.address.version
        names = network.zones_of(REVERSE[version])
        zone = self._catalog.find_zone(names[0]) if names else None
        if zone is None or not host.address.reverse_pointer.endswith(f".{zone.name}"):
            return None
        return zone if _shows(zone, network, host.address) else None

    def _may(self, project: str, zone: Zone) -> bool:
        found = self._catalog.project(project)
        return not found.restricted or is_within(zone.name, found.allows("networks.zones"))


def _host(port: Port, address: Address) -> Host:
    return Host(port.instance.name, address, address in port.kept, port.instance)


def _shows(zone: Zone, network: Network, address: Address) -> bool:
    return zone.with_nat or not network.flag(f"ipv{address.version}.nat")


def _addresses(hosts: Iterable[tuple[Host, str]]) -> Iterator[tuple[Key, bytes]]:
    """Of instances with one name, the first only has it."""
    owners: dict[str, str] = {}
    for host, name in sorted(hosts, key=lambda each: each[0].rank[1:]):
        uuid = host.instance.uuid if host.instance else ""
        if owners.setdefault(name.lower(), uuid) == uuid:
            owner, kind = wire_name(name), A if host.address.version == 4 else AAAA
            yield (owner, kind), render(owner, kind, DEFAULT_TTL, host.address.packed)


def _pointers(zone: str, hosts: Iterable[tuple[Host, str]]) -> Iterator[tuple[Key, bytes]]:
    """Of hosts that say they have one address, the first only is believed."""
    taken: set[Address] = set()
    for host, target in sorted(hosts, key=lambda each: each[0].rank):
        if host.address not in taken:
            taken.add(host.address)
            owner = wire_name(host.address.reverse_pointer.removesuffix(zone))
            yield (owner, PTR), render(owner, PTR, DEFAULT_TTL, wire_name(target) + b"\0")
