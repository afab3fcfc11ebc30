# SPDX-License-Identifier: Apache-2.0
"""Links and addresses over rtnetlink(7), encoded by pyroute2."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from pyroute2 import IPRoute

NLM_REQUEST_ACK = 0x1 | 0x4
NLM_CREATE_EXCL = 0x400 | 0x200
IFF_UP = 1
IFA_F_NODAD = 0x02

CONTAINER_INTERFACE_NAME = "host0"
"""The name that systemd's container interface gives a guest's link; ours has it as an alternative name."""

PORT_PREFIX = "vethsc"
"""By which data/udev/99-syscont.rules knows ports of bridges."""

_SYSCTL = Path("/proc/sys/net")


def random_mac() -> str:
    """Locally administered, unicast; the 02:73:63 of the first bytes makes ours easy to see."""
    return "02:73:63:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def random_host_name(*, port: bool) -> str:
    """Name of the host's side of a veth pair, at most 15 bytes as interface names must be. port: of a bridge."""
    return (PORT_PREFIX if port else "veth") + secrets.token_hex(4)


def interface_index(name: str) -> int:
    """0 when there is no such link."""
    try:
        # Not from /sys: whoever mounted that may have been in another network namespace.
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def ensure_bridge(name: str, addresses: list[str]) -> int:
    """Make the bridge when it is missing, give it its addresses, bring it up; returns its index."""
    with IPRoute() as route:
        found = list(route.link_lookup(ifname=name))
        if not found:
            # A set address stays when ports come and go.
            route.link("add", ifname=name, kind="bridge", address=random_mac())
            found = list(route.link_lookup(ifname=name))
        index = int(found[0])
        if has_ipv6():
            # Guests are on it: what they advertise must not become an address or a route of the host's.
            _write(_SYSCTL / "ipv6/conf" / name / "accept_ra", "0")
        present = {
            f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}" for message in route.get_addr(index=index)
        }
        for address in addresses:
            interface = ipaddress.ip_interface(address)
            if str(interface) not in present:
                # No duplicate detection: nobody else is there, and dnsmasq wants to bind at once.
                flags = {"flags": IFA_F_NODAD} if interface.version == 6 else {}
                length = interface.network.prefixlen
                route.addr("add", index=index, address=str(interface.ip), prefixlen=length, **flags)
        route.link("set", index=index, state="up")
    return index


def put_into_bridge(index: int, names: Collection[str]) -> None:
    """Those of the links that are there and in no bridge; who put one elsewhere meant it."""
    with IPRoute() as route:
        for message in route.get_links() if names else ():
            if message.get_attr("IFLA_IFNAME") in names and not message.get_attr("IFLA_MASTER"):
                route.link("set", index=message["index"], master=index)


def used_networks() -> Iterator[ipaddress.IPv4Network]:
    """IPv4 networks that the host has a route or an address in."""
    with IPRoute() as route:
        for message in route.get_routes(family=2):
            destination = message.get_attr("RTA_DST")
            if destination:
                yield ipaddress.IPv4Network(f"{destination}/{message['dst_len']}", strict=False)


def has_ipv6() -> bool:
    return (_SYSCTL / "ipv6").exists()


def enable_forwarding() -> None:
    """Let the host route; links that learn their address by router advertisement keep doing so (accept_ra=2)."""
    _write(_SYSCTL / "ipv4/ip_forward", "1")
    if not has_ipv6():
        return
    everything = _SYSCTL / "ipv6/conf/all/forwarding"
    if everything.read_text().strip() == "1":
        return
    for link in os.listdir(_SYSCTL / "ipv6/conf"):
        accept_ra = _SYSCTL / "ipv6/conf" / link / "accept_ra"
        if link != "all" and accept_ra.read_text().strip() == "1":
            _write(accept_ra, "2")
    _write(everything, "1")


def _write(path: Path, value: str) -> None:
    if path.read_text().strip() != value:
        path.write_text(value)


def is_bridge(name: str) -> bool:
    with IPRoute() as route:
        return bool(route.link_lookup(ifname=name, kind="bridge"))
