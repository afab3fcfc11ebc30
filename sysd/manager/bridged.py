# SPDX-License-Identifier: Apache-2.0
"""What the bridge of a network is to be, by what the network says and who is in it."""

from __future__ import annotations

import logging

from pyroute2.netlink.exceptions import NetlinkError

from sysd.manager.hosts import Port
from sysd.model import addresses, bridge
from sysd.model.devices import nic
from sysd.model.errors import FailedError
from sysd.model.network import Network
from sysd.model.values import boolean
from sysd.network import links, ports
from sysd.network.bridges import Bridge, Route

log = logging.getLogger(__name__)


def bridge_of(network: Network, there: list[Port]) -> Bridge:
    """there: who is in it, running or not."""
    return Bridge(
        network.name,
        tuple(own for own in (network.address(4), network.address(6)) if own),
        bridge.mtu(network.config),
        network.text("bridge.hwaddr").lower(),
        own_routes(network),
        behind_of(there),
        external(network),
    )


def behind_of(there: list[Port]) -> tuple[Route, ...]:
    """To what is behind instances: by way of their own addresses, if these are known."""
    found = []
    for port in there:
        for to in nic.routes(port.options):
            found.append(Route(to, next((one for one in port.kept if one.version == to.version), None)))
    return tuple(found)


def own_routes(network: Network) -> tuple[Route, ...]:
    """To what the network says is behind it."""
    return tuple(
        Route(to) for version in (4, 6) for to in addresses.subnets(version)(network.text(f"ipv{version}.routes"))
    )


def put_back(index: int, there: list[Port]) -> None:
    """Into the bridge of an index those who are in none, as they are once somebody deleted it; who put one into another
    bridge meant it. One that is in it and down was left by a daemon that was killed."""
    found = links.veths()
    for port in there:
        link = found.get(port.host_name)
        if not link or (link.master, link.up) == (index, True) or link.master not in (0, index):
            continue
        try:
            isolated = boolean(port.options.get(nic.ISOLATION, "false"))
            ports.put(link.index, index, nic.vlans(port.options), isolated=isolated)
        except (OSError, NetlinkError) as error:
            log.warning("%s is not back in its network: %s", port, error)


def external(network: Network) -> tuple[str, ...]:
    """Links of the host's that are to be in it."""
    return tuple(addresses.links(network.text("bridge.external_interfaces")))


def check_external(network: Network) -> None:
    """Raise FailedError for a link that can't be put into the bridge without taking it from somebody."""
    named = {links.interface_index(port): port for port in external(network)}
    used = {index for index, _ in links.own_addresses()}
    for index, port in named.items():
        if not index:
            raise FailedError(f"bridge.external_interfaces: the host has no link {port}")
        if index in used:
            raise FailedError(f"bridge.external_interfaces: {port} has addresses", "the host needs it for itself")
