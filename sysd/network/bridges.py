# SPDX-License-Identifier: Apache-2.0
"""Bridges: made to be what a network says, with nothing that it does not say."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sysd.model.addresses import Address, Interface, Subnet
from sysd.model.errors import FailedError
from sysd.network import links, netlink
from sysd.network.links import IFA_F_NODAD, NLM_REQUEST_ACK, RT_SCOPE_UNIVERSE
from sysd.network.netlink import attribute, message, nested

log = logging.getLogger(__name__)

_RTM_NEWLINK, _LINKINFO, _KIND, _DATA, _MULTI_BOOLOPT = 16, 18, 1, 2, 46
_NO_LL_LEARN = 1 << 0
RTPROT_SYSCONT = 115
"""Whose routes ours are (rtnetlink(7), rtm_protocol): nobody's in iproute2's rt_protos."""
_FAMILIES = {4: 2, 6: 10}


@dataclass(frozen=True, slots=True)
class Route:
    """via: who knows the way, if it is not there itself."""

    to: Subnet
    via: Address | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """hwaddr: made up when empty. mtu in bytes. routes: what is behind it; behind: and behind guests, which may fail.
    ports: links of the host's in it."""

    name: str
    addresses: tuple[Interface, ...]
    mtu: int
    hwaddr: str = ""
    routes: tuple[Route, ...] = ()
    behind: tuple[Route, ...] = ()
    ports: tuple[str, ...] = ()


def ensure(bridge: Bridge) -> int:
    """Make the bridge when it is missing, and let it be what is said; returns its index. Blocks for milliseconds.

    Raises FailedError when the host has a link of that name that is no bridge, or a port is missing.
    """
    index = _find_or_make(bridge)
    links.accept_no_router(bridge.name)
    links.tell_vlans_apart(index)
    netlink.ask(0, _learn_no_more(index))
    with IPRoute() as route:
        _set_up(route, index, bridge)
        _set_addresses(route, index, bridge.addresses)
    refused = set_routes(index, (*bridge.routes, *bridge.behind))
    if lost := next((one for one in bridge.routes if one in refused), None):
        raise FailedError(f"ipv{lost.to.version}.routes: {refused[lost]}")
    for port in bridge.ports:
        put(port, index)
    return index


def _find_or_make(bridge: Bridge) -> int:
    with IPRoute() as route:
        if not links.interface_index(bridge.name):
            # A set address stays when ports come and go.
            address = bridge.hwaddr or links.random_mac()
            route.link("add", ifname=bridge.name, kind="bridge", address=address)
        elif not links.is_bridge(bridge.name):
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


def _learn_no_more(index: int) -> bytes:
    """From frames that the bridge takes for itself, which no filter sees: who sent them is who he says he is not."""
    options = attribute(_MULTI_BOOLOPT, struct.pack("=II", _NO_LL_LEARN, _NO_LL_LEARN))
    info = nested(_LINKINFO, attribute(_KIND, b"bridge\0"), nested(_DATA, options))
    return message(_RTM_NEWLINK, NLM_REQUEST_ACK, struct.pack("=BxHiII", 0, 0, index, 0, 0) + info)


def _set_addresses(route: IPRoute, index: int, wanted: tuple[Interface, ...]) -> None:
    present = {address for _, address in links.own_addresses(index)}
    for gone in present - set(wanted):
        route.addr("del", index=index, address=str(gone.ip), prefixlen=gone.network.prefixlen)
    for new in wanted:
        if new not in present:
            # No duplicate detection: nobody else is there, and dnsmasq wants to bind at once.
            flags = {"flags": IFA_F_NODAD} if new.version == 6 else {}
            route.addr("add", index=index, address=str(new.ip), prefixlen=new.network.prefixlen, **flags)


def set_routes(index: int, wanted: Collection[Route]) -> dict[Route, str]:
    """Let a bridge's routes be these, which others do not have; logs and returns those that can't be, and why."""
    refused: dict[Route, str] = {}
    with IPRoute() as route:
        for version in _FAMILIES if links.has_ipv6() else (4,):
            present = _routes(route, index, version)
            of_version = {one for one in wanted if one.to.version == version}
            for gone in present - of_version:
                route.route("del", **_said(index, gone))
            for new in of_version - present:
                if why := _add(route, index, new):
                    log.warning("%s", why)
                    refused[new] = why
    return refused


def _add(route: IPRoute, index: int, new: Route) -> str:
    try:
        route.route("add", **_said(index, new))
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            return f"the host has a route to {new.to} already, which stays"
        return f"no route to {new.to}: {os.strerror(error.code)}"
    return ""


def _said(index: int, one: Route) -> dict[str, object]:
    via = {"gateway": str(one.via)} if one.via else {}
    common = {"oif": index, "proto": RTPROT_SYSCONT, "scope": RT_SCOPE_UNIVERSE}
    return {"dst": str(one.to), "family": _FAMILIES[one.to.version], **common, **via}


def _routes(route: IPRoute, index: int, version: int) -> set[Route]:
    found = set()
    for each in links.whole(lambda: route.get_routes(family=_FAMILIES[version], oif=index)):
        if each["proto"] == RTPROT_SYSCONT:
            via = each.get_attr("RTA_GATEWAY")
            to = ipaddress.ip_network(f"{each.get_attr('RTA_DST')}/{each['dst_len']}")
            found.add(Route(to, ipaddress.ip_address(via) if via else None))
    return found


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
            for message in links.whole(route.get_links)
            if message.get_attr("IFLA_MASTER") == index and message.get_attr("IFLA_IFNAME") not in but
        ]
        for state in ("down", "up"):
            for port in ports:
                route.link("set", index=port, state=state)
