# SPDX-License-Identifier: Apache-2.0
"""Who has which address in a network: kept, leased, or seen in a guest that made it up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from sysd.manager.hosts import Port, ports
from sysd.manager.table import Table
from sysd.model.addresses import Address
from sysd.model.network import Network
from sysd.network import dnsmasq, leases


@dataclass(frozen=True, slots=True)
class Lease:
    """type: gateway, static (kept for the instance, running or not) or dynamic. hwaddr, and the instance with its
    project, are empty where they are not known. expires is in seconds since the epoch, 0 for never or not known."""

    hostname: str
    hwaddr: str
    address: str
    type: str
    project: str = ""
    expires: int = 0


def known(network: Network, table: Table) -> list[Lease]:
    """All of a network, by address; nothing of one that is no bridge. Reads a file of dnsmasq's."""
    found: dict[Address, Lease] = {}
    for lease in (*_gateways(network), *_of_ports(network, table), *_leased(network, table), *_seen(network, table)):
        found.setdefault(ipaddress.ip_address(lease.address), lease)
    return [found[address] for address in sorted(found, key=lambda each: (each.version, int(each)))]


def _gateways(network: Network) -> Iterator[Lease]:
    for own in (network.address(4), network.address(6)):
        if own:
            yield Lease(f"_gateway.{network.domain}" if network.domain else "", "", str(own.ip), "gateway")


def _ports(network: Network, table: Table) -> list[Port]:
    return list(ports(map(table.expanded, table.all()), network.name))


def _of_ports(network: Network, table: Table) -> Iterator[Lease]:
    for port in _ports(network, table):
        for address in port.kept:
            yield Lease(port.instance.name, port.hwaddr, str(address), "static", port.instance.project)


def _leased(network: Network, table: Table) -> Iterator[Lease]:
    """What dnsmasq remembers, also of instances that are stopped."""
    if not network.is_bridge:
        return
    owners = {port.hwaddr: port.instance for port in _ports(network, table)}
    for lease in leases.read(dnsmasq.lease_file(network.name)):
        owner = owners.get(lease.hwaddr)
        name, project = (owner.name, owner.project) if owner else (lease.name, "")
        if lease.hwaddr:
            yield Lease(name, lease.hwaddr, str(lease.address), "dynamic", project, lease.expires)


def _seen(network: Network, table: Table) -> Iterator[Lease]:
    """What instances that run have in the network's subnets, such as addresses that they made up (SLAAC)."""
    subnets = [subnet for subnet in (network.subnet(4), network.subnet(6)) if subnet]
    for port in _ports(network, table):
        for text in table.status(port.instance).addresses:
            if any(ipaddress.ip_address(text) in subnet for subnet in subnets):
                yield Lease(port.instance.name, port.hwaddr, text, "dynamic", port.instance.project)
