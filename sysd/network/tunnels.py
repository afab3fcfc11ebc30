# SPDX-License-Identifier: Apache-2.0
"""Links of tunnels, as ports of a bridge. Each is in a group of ours (ip-link(8)) from the moment that it is made, and
has an alias that says whose it is, and what it was made of; without one it was left half made."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sysd.model.errors import FailedError
from sysd.model.tunnels import VXLAN, Tunnel
from sysd.network import links

GROUP = 20705
"""Nobody's in iproute2's group file."""


def ensure(network: str, bridge: int, wanted: Collection[Tunnel], mtu: int) -> None:
    """Let the bridge of that index have these tunnels and no other. Blocks for milliseconds.

    Raises FailedError when the host has a link of a tunnel's name, or the kernel does not take one.
    """
    aliases = {tunnel.link(network): _alias(network, tunnel, mtu) for tunnel in wanted}
    with IPRoute() as route:
        there = {message.get_attr("IFLA_IFNAME"): message for message in links.whole(route.get_links)}
        for name, message in there.items():
            ours, alias = message.get_attr("IFLA_GROUP") == GROUP, message.get_attr("IFLA_IFALIAS") or ""
            if name in aliases and not ours:
                raise FailedError(f"the host has a link {name}", f"network {network} needs it for a tunnel")
            if ours and (not alias or (_is_of(network, alias) and aliases.get(name) != alias)):
                route.link("del", index=message["index"])
            elif name in aliases and message.get_attr("IFLA_MASTER") != bridge:
                route.link("set", index=message["index"], master=bridge, state="up")
        for tunnel in wanted:
            name = tunnel.link(network)
            kept = name in there and there[name].get_attr("IFLA_IFALIAS") == aliases[name]
            if not kept:
                _make(route, name, tunnel, bridge, aliases[name], mtu)


def _is_of(network: str, alias: str) -> bool:
    return alias.startswith(f"syscont {network} ")


def _alias(network: str, tunnel: Tunnel, mtu: int) -> str:
    return f"syscont {network} {tunnel.name} {hashlib.sha256(repr((tunnel, mtu)).encode()).hexdigest()[:8]}"


def _make(route: IPRoute, name: str, tunnel: Tunnel, bridge: int, alias: str, mtu: int) -> None:
    device = links.interface_index(tunnel.interface) if tunnel.interface else 0
    if tunnel.interface and not device:
        raise FailedError(f"tunnel.{tunnel.name}.interface: the host has no link {tunnel.interface}")
    options = _vxlan(tunnel, device) if tunnel.protocol == VXLAN else _gre(tunnel, device)
    try:
        route.link("add", ifname=name, group=GROUP, mtu=mtu, **options)
        index = links.interface_index(name)
        route.link("set", index=index, master=bridge, state="up")
        route.link("set", index=index, ifalias=alias)
    except NetlinkError as error:
        raise FailedError(f"tunnel.{tunnel.name} can't be made: {error.args[1]}") from None


def _vxlan(tunnel: Tunnel, device: int) -> dict[str, Any]:
    six = "6" if tunnel.to.version == 6 else ""
    # A group is joined by some link; without a route to it the kernel has none to choose.
    options: dict[str, Any] = {f"vxlan_group{six}": str(tunnel.to), "vxlan_id": tunnel.number, "vxlan_learning": 1}
    if device or tunnel.to.is_multicast:
        options["vxlan_link"] = device or _way_out(tunnel)
    if tunnel.local:
        options[f"vxlan_local{six}"] = str(tunnel.local)
    if tunnel.port:
        options["vxlan_port"] = tunnel.port
    if tunnel.to.is_multicast:
        options["vxlan_ttl"] = tunnel.ttl
    return {"kind": "vxlan", **options}


def _way_out(tunnel: Tunnel) -> int:
    """The link of the default route, as LXD takes it."""
    with IPRoute() as route:
        for message in route.get_default_routes(family=2 if tunnel.to.version == 4 else 10):
            if index := message.get_attr("RTA_OIF"):
                return int(index)
    raise FailedError(f"tunnel.{tunnel.name}: the host has no default route", f"set tunnel.{tunnel.name}.interface")


def _gre(tunnel: Tunnel, device: int) -> dict[str, Any]:
    options: dict[str, Any] = {"gre_local": str(tunnel.local), "gre_remote": str(tunnel.to)}
    if device:
        options["gre_link"] = device
    return {"kind": "gretap", **options}
