# SPDX-License-Identifier: Apache-2.0
"""Links and addresses over rtnetlink(7), encoded by pyroute2."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from sysd.model.addresses import Interface, Subnet

NLM_REQUEST_ACK = 0x1 | 0x4
NLM_CREATE_EXCL = 0x400 | 0x200
IFF_UP = 1
IFA_F_NODAD = 0x02
RT_SCOPE_UNIVERSE = 0
RT_TABLE_MAIN = 254
RTPROT_KERNEL = 2
VLAN_FLAG_GVRP = 0x2

CONTAINER_INTERFACE_NAME = "host0"
"""The name that systemd's container interface gives a guest's link; ours has it as an alternative name."""

PORT_PREFIX, END_PREFIX = "vethsc", "vethsp"
"""By which data/udev/99-syscont.rules and the firewall know ports of bridges, and the latter other ends of guests'."""

DUMPS = 20
"""How often one is asked for before it is taken for a failure."""
_SYSCTL = Path("/proc/sys/net")


def random_mac() -> str:
    """Locally administered, unicast; the 02:73:63 of the first bytes makes ours easy to see."""
    return "02:73:63:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def random_host_name(*, port: bool) -> str:
    """Name of the host's side of a veth pair, at most 15 bytes as interface names must be. port: of a bridge."""
    return (PORT_PREFIX if port else END_PREFIX) + secrets.token_hex(4)


def interface_index(name: str) -> int:
    """0 when there is no such link."""
    try:
        # Not from /sys: whoever mounted that may have been in another network namespace.
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def whole(dump: Callable[[], Iterable[Any]]) -> list[Any]:
    """What a dump of the kernel's gives; asked for again when what it is about changed meanwhile (NLM_F_DUMP_INTR)."""
    for _ in range(DUMPS - 1):
        with contextlib.suppress(NetlinkDumpInterrupted):
            return list(dump())
    return list(dump())


def kind_of(name: str) -> str | None:
    """bridge, veth, vlan...; empty for hardware's and others that have none, None when there is no such link."""
    index = interface_index(name)
    try:
        with IPRoute() as route:
            return _kind(next(iter(route.get_links(index)))) if index else None
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return None


@dataclass(frozen=True, slots=True)
class Veth:
    index: int
    master: int
    up: bool


def veths() -> dict[str, Veth]:
    """All of the host's, by name."""
    found = {}
    with IPRoute() as route:
        for message in whole(route.get_links):
            if _kind(message) == "veth":
                up, master = bool(message["flags"] & IFF_UP), message.get_attr("IFLA_MASTER") or 0
                found[message.get_attr("IFLA_IFNAME")] = Veth(message["index"], master, up)
    return found


def is_foreign(name: str) -> bool:
    """Whether the host has a link of that name that can't be the end of a guest's."""
    return kind_of(name) not in (None, "veth")


def _kind(message: Any) -> str:
    info = message.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""


def used_networks() -> list[ipaddress.IPv4Network]:
    """IPv4 networks that the host has a route or an address in."""
    with IPRoute() as route:
        messages = whole(lambda: route.get_routes(family=2))
    found = [(message.get_attr("RTA_DST"), message["dst_len"]) for message in messages]
    return [ipaddress.IPv4Network(f"{address}/{length}", strict=False) for address, length in found if address]


def own_addresses(index: int = 0) -> list[tuple[int, Interface]]:
    """Indexes of links, of all or of one, with the addresses that they have and that hold beyond the link."""
    with IPRoute() as route:
        found = whole(lambda: route.get_addr(index=index) if index else route.get_addr())
        return [
            (message["index"], ipaddress.ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"))
            for message in found
            if message["scope"] == RT_SCOPE_UNIVERSE
        ]


@dataclass(frozen=True, slots=True)
class HostRoute:
    """link: the name of that which it leads out of; direct: to where the host is itself."""

    to: Subnet
    link: str
    direct: bool


def host_routes() -> list[HostRoute]:
    """Of its main table, but for default ones."""
    found = []
    with IPRoute() as route:
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in whole(route.get_links)}
        for message in whole(lambda: route.get_routes(table=RT_TABLE_MAIN)):
            to = message.get_attr("RTA_DST")
            if to and message["dst_len"]:
                subnet = ipaddress.ip_network(f"{to}/{message['dst_len']}", strict=False)
                direct = message["proto"] == RTPROT_KERNEL
                found.append(HostRoute(subnet, names.get(message.get_attr("RTA_OIF"), ""), direct))
    return found


def has_ipv6() -> bool:
    return (_SYSCTL / "ipv6").exists()


def accept_no_router(link: str) -> None:
    """What guests advertise must not become an address or a route of the host's."""
    if has_ipv6():
        _write(_SYSCTL / "ipv6/conf" / link / "accept_ra", "0")


def make_no_address(link: str) -> None:
    """Not even the one that IPv6 makes up for a link that comes up."""
    if has_ipv6():
        _write(_SYSCTL / "ipv6/conf" / link / "addr_gen_mode", "1")


def enable_forwarding(version: int) -> None:
    """Let the host route; links that learn their address by router advertisement keep doing so (accept_ra=2)."""
    if version == 4:
        _write(_SYSCTL / "ipv4/ip_forward", "1")
        return
    everything = _SYSCTL / "ipv6/conf/all/forwarding"
    if not has_ipv6() or everything.read_text().strip() == "1":
        return
    for link in os.listdir(_SYSCTL / "ipv6/conf"):
        accept_ra = _SYSCTL / "ipv6/conf" / link / "accept_ra"
        # Not the default of links that are yet to come, guests' among them.
        if link not in ("all", "default") and accept_ra.read_text().strip() == "1":
            _write(accept_ra, "2")
    _write(everything, "1")


def _write(path: Path, value: str) -> None:
    if path.read_text().strip() != value:
        path.write_text(value)


def is_bridge(name: str) -> bool:
    return kind_of(name) == "bridge"


def tells_vlans_apart(index: int) -> bool:
    """Whether a bridge heeds in which VLANs its ports are."""
    with IPRoute() as route:
        (link,) = route.get_links(index)
    return _filters(link)


def _filters(link: Any) -> bool:
    return bool(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_VLAN_FILTERING"))


def tell_vlans_apart(index: int) -> None:
    """Let a bridge heed them, if the kernel's bridges can."""
    with IPRoute() as route:
        (link,) = route.get_links(index)
        if _filters(link):
            return
        try:
            route.link("set", index=index, kind="bridge", br_vlan_filtering=1)
        except NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise


def is_vlan(name: str, parent: int, number: int) -> bool:
    """Whether a link is that with a VLAN's tag of the link whose index is parent."""
    with IPRoute() as route:
        (link,) = route.get_links(interface_index(name))
    info = link.get_attr("IFLA_LINKINFO")
    if link.get_attr("IFLA_LINK") != parent or not info or info.get_attr("IFLA_INFO_KIND") != "vlan":
        return False
    return bool(info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VLAN_ID") == number)


def make_vlan(name: str, parent: int, number: int, *, gvrp: bool) -> None:
    flags = {"flags": VLAN_FLAG_GVRP, "mask": VLAN_FLAG_GVRP} if gvrp else None
    with IPRoute() as route:
        options = {"vlan_flags": flags} if flags else {}
        route.link("add", ifname=name, kind="vlan", link=parent, vlan_id=number, **options)
        route.link("set", index=interface_index(name), state="up")


def delete_link(name: str) -> None:
    """One that is gone already is no error."""
    index = interface_index(name)
    if not index:
        return
    with IPRoute() as route:
        try:
            route.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


@dataclass(frozen=True, slots=True)
class LinkState:
    """What the kernel says of a link now. hwaddr is empty where it has none. counters: rx_bytes, rx_packets, tx_bytes
    and tx_packets since it was made, from the host's side."""

    state: str
    hwaddr: str
    mtu: int
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    counters: dict[str, int]


def describe(name: str) -> LinkState | None:
    """None when there is no such link."""
    index = interface_index(name)
    if not index:
        return None
    with IPRoute() as route:
        (link,) = route.get_links(index)
        everyone = whole(route.get_links)
    ports = [each.get_attr("IFLA_IFNAME") for each in everyone if each.get_attr("IFLA_MASTER") == index]
    counted = link.get_attr("IFLA_STATS64") or {}
    return LinkState(
        str(link.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
        link.get_attr("IFLA_ADDRESS") or "",
        int(link.get_attr("IFLA_MTU") or 0),
        tuple(str(address) for _, address in own_addresses(index)),
        tuple(sorted(ports)),
        {field: int(counted.get(field, 0)) for field in ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets")},
    )
