# SPDX-License-Identifier: Apache-2.0
"""What is behind interfaces in networks of OVN, and of that what is there on the uplinks: whether it can be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from sysd.manager import outside
from sysd.manager.hosts import all_ports
from sysd.model import addresses, ovn
from sysd.model.addresses import Subnet, overlap
from sysd.model.devices.nic import EXTERNAL, published, routes
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance
from sysd.model.network import Network


def check_published(instances: Iterable[Instance], networks: Sequence[Network]) -> None:
    """Raise InvalidError unless all networks behind interfaces of expanded instances that are in networks of OVN have a
    way there, and those for the uplink are the uplink's to give, and nobody's there."""
    by_name = {network.name: network for network in networks}
    for port in all_ports(instances):
        network = by_name.get(port.options.get("network", ""))
        if network is None or not network.is_ovn:
            continue
        for route in routes(port.options):
            _check_way(f"{port}: ipv{route.version}.routes: {route}", network, route)
        for route in published(port.options):
            what = f"{port}: {EXTERNAL[route.version]}: {route}"
            _check_way(what, network, route)
            _check_outside(what, network, route, networks)


def _check_way(what: str, network: Network, route: Subnet) -> None:
    if not network.address(route.version):
        raise InvalidError(f"{what} has no way: network {network.name} has no IPv{route.version}")


def _check_outside(what: str, network: Network, route: Subnet, networks: Sequence[Network]) -> None:
    uplink = outside.uplink_of(network, networks)
    if uplink is None:
        raise InvalidError(f"{what}: network {network.name} leads nowhere", "set its network, or ipv4.routes here")
    version = route.version
    if not network.config.get(ovn.outside_key(version)):
        raise InvalidError(f"{what}: network {network.name} has no IPv{version} address in network {uplink.name}")
    given = addresses.subnets(version)(uplink.config.get(f"ipv{version}.routes", ""))
    if not any(_is_in(route, each) for each in given):
        hint = f"syscont network set {uplink.name} ipv{version}.routes=..."
        raise InvalidError(f"{what} is not in ipv{version}.routes of network {uplink.name}", hint)
    for first, last in outside.apart(uplink, version):
        if int(first) <= int(route[-1]) and int(route[0]) <= int(last):
            raise InvalidError(f"{what} overlaps ipv{version}.ovn.ranges of network {uplink.name}", f"{first}-{last}")
    own, router = uplink.subnet(version), outside.router(uplink, version)
    if (own and overlap(own, route)) or (router and router.ip in route):
        raise InvalidError(f"{what} overlaps the subnet of network {uplink.name}" if own else f"{what} has {router}",
                           "that is the uplink's own")  # fmt: skip
    for other in networks:
        address = other.config.get(ovn.outside_key(version)) if other.is_ovn else None
        if address and ipaddress.ip_address(address) in route:
            raise InvalidError(f"{what} has {address}", f"which is the router's of network {other.name}")
        if forward := next((each.listen for each in other.forwarded if ipaddress.ip_address(each.listen) in route), ""):
            raise InvalidError(f"{what} has {forward}", f"for which network {other.name} has a forward")


def _is_in(route: Subnet, other: Subnet) -> bool:
    return overlap(route, other) and route.prefixlen >= other.prefixlen
