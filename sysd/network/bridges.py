# SPDX-License-Identifier: Apache-2.0
"""Bridges: made to be what a network says, with nothing that it does not say."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pyroute2 import IPRoute

from sysd.model.addresses import Interface, Subnet
from sysd.model.errors import FailedError
from sysd.network import links
from sysd.network.links import IFA_F_NODAD, RT_SCOPE_UNIVERSE

RTPROT_SYSCONT = 115
"""Whose routes ours are (rtnetlink(7), rtm_protocol): nobody's in iproute2's rt_protos."""
_FAMILIES = {4: 2, 6: 10}


@dataclass(frozen=True, slots=True)
class Bridge:
    """hwaddr: made up when empty. mtu in bytes. routes: what is behind it. ports: links of the host's in it."""

    name: str
    addresses: tuple[Interface, ...]
    mtu: int
    hwaddr: str = ""
    routes: tuple[Subnet, ...] = ()
    ports: tuple[str, ...] = ()


def ensure(bridge: Bridge) -> int:
    """Make the bridge when it is missing, and let it be what is said; returns its index. Blocks for milliseconds.

    Raises FailedError when the host has a link of that name that is no bridge, or a port is missing.
    """
    index = _find_or_make(bridge)
    links.accept_no_router(bridge.name)
    links.tell_vlans_apart(index)
    with IPRoute() as route:
        _set_up(route, index, bridge)
        _set_addresses(route, index, bridge.addresses)
        for version in _FAMILIES if links.has_ipv6() else (4,):
            _set_routes(route, index, version, [one for one in bridge.routes if one.version == version])
    for port in bridge.ports:
        put(port, index)
    return index


def _find_or_make(bridge: Bridge) -> int:
    with IPRoute() as route:
        if not links.interface_index(bridge.name):
            # A set address stays when ports come and go.
            address = bridge.hwaddr or links.random_mac()
            route.link("add", ifname=bridge.name, kind="bridge", address=address)
        elif not route.link_lookup(ifname=bridge.name, kind="bridge"):
            raise FailedError(f"the host has a link {bridge.name} that is no bridge", "a network has that name")
    return links.interface_index(bridge.name)


def _set_up(route: IPRoute, index: int, bridge: Bridge) -> None:
    (link,) = route.get_links(index)
    wanted: dict[str, object] = {}
    if link.get_attr("IFLA_MTU") != bridge.mtu:
        wanted["mtu"] = bridge.mtu
    if bridge.hwaddr and link.get_attr("IFLA_ADDRESS") != bridge.hwaddr:
        wanted["address"] = bridge.hwaddr
    route.link("set", index=index, state="up", **wanted)


def _set_addresses(route: IPRoute, index: int, wanted: tuple[Interface, ...]) -> None:
    present = {address for _, address in links.own_addresses(index)}
    for gone in present - set(wanted):
        route.addr("del", index=index, address=str(gone.ip), prefixlen=gone.network.prefixlen)
    for new in wanted:
        if new not in present:
            # No duplicate detection: nobody else is there, and dnsmasq wants to bind at once.
            flags = {"flags": IFA_F_NODAD} if new.version == 6 else {}
            route.addr("add", index=index, address=str(new.ip), prefixlen=new.network.prefixlen, **flags)


def _set_routes(route: IPRoute, index: int, version: int, wanted: list[Subnet]) -> None:
    common = {"oif": index, "proto": RTPROT_SYSCONT, "family": _FAMILIES[version], "scope": RT_SCOPE_UNIVERSE}
    present = {
        ipaddress.ip_network(f"{message.get_attr('RTA_DST')}/{message['dst_len']}")
        for message in route.get_routes(family=_FAMILIES[version], oif=index)
        if message["proto"] == RTPROT_SYSCONT
    }
    for gone in present - set(wanted):
        route.route("del", dst=str(gone), **common)
    for new in set(wanted) - present:
        route.route("replace", dst=str(new), **common)


def put(port: str, index: int) -> None:
    """Into the bridge of that index. Raises FailedError when the host has no such link."""
    link = links.interface_index(port)
    if not link:
        raise FailedError(f"the host has no link {port}", "bridge.external_interfaces names it")
    with IPRoute() as route:
        route.link("set", index=link, master=index, state="up")


def take_out(port: str, index: int) -> None:
    """Of the bridge of that index; a link that is gone, or elsewhere, stays as it is."""
    link = links.interface_index(port)
    if not link:
        return
    with IPRoute() as route:
        (found,) = route.get_links(link)
        if found.get_attr("IFLA_MASTER") == index:
            route.link("set", index=link, master=0)


def bounce(index: int, but: tuple[str, ...]) -> None:
    """Take the ports of a bridge down for a moment, but for some: guests see their carrier go and come, and ask for an
    address again."""
    with IPRoute() as route:
        ports = [
            message["index"]
            for message in route.get_links()
            if message.get_attr("IFLA_MASTER") == index and message.get_attr("IFLA_IFNAME") not in but
        ]
        for state in ("down", "up"):
            for port in ports:
                route.link("set", index=port, state=state)
