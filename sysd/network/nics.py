# SPDX-License-Identifier: Apache-2.0
"""Interfaces of guests as rtnetlink requests, prepared for whoever sends them (sysd/_cext/launch/replay.c).

What each kind needs on the host and in the guest is LXD's (its reference of network devices): routed and ipvlan guests
get their addresses and routes from us, all others configure themselves.
"""

from __future__ import annotations

import ipaddress
import sys
import zlib
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sysd.model.addresses import Address, Subnet
from sysd.model.devices.nic import Vlans
from sysd.network import ports, shaping
from sysd.network.links import CONTAINER_INTERFACE_NAME, IFA_F_NODAD, IFF_UP, NLM_CREATE_EXCL, NLM_REQUEST_ACK

HOST, GUEST = "host", "guest"
Step = tuple[str, str]
"""A side, and a request to be sent there."""

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_DELNEIGH = 20, 24, 28, 29
RTM_NEWLINKPROP = 108
NLM_REPLACE = 0x400 | 0x100
IFF_ALLMULTI = 0x200
MACVLAN_MODE_BRIDGE = 4
IPVLAN_MODES = {"l2": 0, "l3s": 2}
NTF_PROXY = 8
RT_SCOPE_LINK = 253
_MARK = 0x7E57ED1F
"""Stands for an index that is to be filled in."""
_FAMILY = {4: 2, 6: 10}


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface. kind is a nictype; name is the guest's; parent is the index of the host's link, 0 for none (of a
    physical one, and of that of a virtual function, only parent_name counts).

    gateways: whether, by IP version, there is a default route (routed and ipvlan), or to which router. isolated: of a
    bridge's ports it reaches only those that are not isolated, too. vlans: in which it is then. routes: what the host
    reaches through it. ingress: the bits a second that it receives at most, 0 for any number. tap: the host's end is a
    tap of a virtual machine's, made by whoever opens it."""

    kind: str
    name: str
    host_name: str = ""
    mac: str = ""
    mtu: int = 0
    parent: int = 0
    parent_name: str = ""
    mode: str = "l3s"
    addresses: tuple[Address, ...] = ()
    routers: tuple[Address, ...] = ()
    gateways: dict[int, str] = field(default_factory=dict)
    isolated: bool = False
    vlans: Vlans = field(default_factory=Vlans)
    routes: tuple[Subnet, ...] = ()
    ingress: int = 0
    tap: bool = False


@dataclass(frozen=True, slots=True)
class Requests:
    """Each comes with the side that it is sent on, HOST or GUEST. unplug undoes plug in a guest that runs; tune comes
    after plug, and with other values at any time later. macvtap: that for the host by which who opens it makes it."""

    plug: tuple[Step, ...]
    unplug: tuple[Step, ...]
    tune: tuple[Step, ...] = ()
    macvtap: str = ""

    def side(self, side: str) -> list[str]:
        return [request for where, request in (*self.plug, *self.tune) if where == side]


def requests(nic: Nic, guest_fd: int, host_fd: int) -> Requests:
    """The descriptors are those at which whoever sends them holds the guest's and the host's network namespace."""
    if nic.tap:
        return _of_machine(nic, guest_fd)
    match nic.kind:
        case "macvlan" | "ipvlan":
            return _on_parent(nic, guest_fd)
        case "physical":
            return _physical(nic, guest_fd, host_fd)
        case "sriov":
            return _virtual(nic, guest_fd, host_fd)
        case _:
            return _veth(nic, guest_fd)


def _veth(nic: Nic, guest_fd: int) -> Requests:
    gone = (HOST, "-" + _delete(nic.host_name))
    peer = [("IFLA_IFNAME", nic.name), *_common(nic), ("IFLA_NET_NS_FD", guest_fd)]
    attributes: list[Any] = [("IFLA_IFNAME", nic.host_name)]
    if nic.mtu:
        attributes.append(("IFLA_MTU", nic.mtu))
    if nic.kind == "bridged":
        attributes.append(("IFLA_MASTER", nic.parent))
    attributes.append(_info("veth", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}))
    up, port = {"flags": IFF_UP, "change": IFF_UP}, _port(nic)
    # A guest that runs must not be there before its port is what it is to be.
    add = (HOST, _link(RTM_NEWLINK, attributes, NLM_CREATE_EXCL, {} if port else up))
    if port:
        port.append((HOST, _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.host_name)], 0, up)))
    tune = (_limit(nic),)
    if nic.kind != "routed":
        return Requests((gone, add, *port, *_behind(nic)), (gone,), tune)
    proxied, undo = _proxied(nic)
    steps = (gone, add, *_router(nic), *_behind(nic), *proxied, *_static(nic, nic.routers))
    return Requests(steps, (gone, *undo), tune)


def _of_machine(nic: Nic, guest_fd: int) -> Requests:
    """Of a virtual machine's, whose guest has its own ways to what is on its side."""
    match nic.kind:
        case "macvlan":
            return Requests((), (), macvtap=_macvtap(nic, guest_fd))
        case "physical" | "sriov":
            return Requests((), ())
        case _:
            return _tap(nic)


def _macvtap(nic: Nic, guest_fd: int) -> str:
    """A link of QEMU's network namespace, with which it ends, that hears all that is for many: who is to hear it, only
    the guest knows. It has the passing name."""
    attributes = [("IFLA_IFNAME", passing_name(nic)), *_common(nic), ("IFLA_LINK", nic.parent)]
    info = _info("macvtap", {"attrs": [("IFLA_MACVTAP_MODE", MACVLAN_MODE_BRIDGE)]})
    up = {"flags": IFF_UP | IFF_ALLMULTI, "change": IFF_UP | IFF_ALLMULTI}
    return _link(RTM_NEWLINK, [*attributes, ("IFLA_NET_NS_FD", guest_fd), info], NLM_CREATE_EXCL, up)


def _tap(nic: Nic) -> Requests:
    """The link is there already, and goes when QEMU closes it."""
    attributes: list[Any] = [("IFLA_IFNAME", nic.host_name)]
    if nic.mtu:
        attributes.append(("IFLA_MTU", nic.mtu))
    if nic.kind == "bridged":
        attributes.append(("IFLA_MASTER", nic.parent))
    up = _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.host_name)], 0, {"flags": IFF_UP, "change": IFF_UP})
    steps = ((HOST, _link(RTM_NEWLINK, attributes)), *_port(nic), (HOST, up), *_behind(nic))
    return Requests(steps, (), (_limit(nic),))


def _limit(nic: Nic) -> Step:
    """What the host's end sends is what the guest receives. Without a limit: that there was none is no error."""
    request = _for_link(nic.host_name, shaping.limit(_MARK, nic.ingress))
    return (HOST, request if nic.ingress else "-" + request)


def _behind(nic: Nic) -> list[Step]:
    """Routes to what is behind a guest; by way of its own address, if the host knows that. Those of a bridge's port are
    the bridge's (sysd.network.bridges)."""
    found = []
    for route in nic.routes:
        via = next((one for one in nic.addresses if one.version == route.version), None)
        found.append((HOST, _route(nic.host_name, route, via, flags=NLM_CREATE_EXCL)))
    return found


def _port(nic: Nic) -> list[Step]:
    asked = ports.requests(_MARK, nic.vlans, isolated=nic.isolated) if nic.kind == "bridged" else []
    return [(HOST, _for_link(nic.host_name, each.hex())) for each in asked]


def _router(nic: Nic) -> list[Step]:
    """The host is the guest's router: it has the router's address there, and a route to each of the guest's."""
    found = [_address(nic.host_name, router) for router in nic.routers]
    found += [_route(nic.host_name, one, flags=NLM_CREATE_EXCL) for one in nic.addresses]
    return [(HOST, request) for request in found]


def _proxied(nic: Nic) -> tuple[list[Step], list[Step]]:
    """On the parent, if there is one, the host answers for the guest's addresses; and how that is ended."""
    if not nic.parent:
        return [], []
    add = [(HOST, _neighbour(RTM_NEWNEIGH, nic.parent, one)) for one in nic.addresses]
    remove = [(HOST, "-" + _neighbour(RTM_DELNEIGH, nic.parent, one)) for one in nic.addresses]
    return add, remove


def _on_parent(nic: Nic, guest_fd: int) -> Requests:
    if nic.kind == "macvlan":
        info = _info("macvlan", {"attrs": [("IFLA_MACVLAN_MODE", MACVLAN_MODE_BRIDGE)]})
    else:
        info = _info("ipvlan", {"attrs": [("IFLA_IPVLAN_MODE", IPVLAN_MODES[nic.mode])]})
    passing = passing_name(nic)
    attributes = [("IFLA_IFNAME", passing), *_common(nic), ("IFLA_LINK", nic.parent), ("IFLA_NET_NS_FD", guest_fd)]
    add = (HOST, _link(RTM_NEWLINK, [*attributes, info], NLM_CREATE_EXCL))
    rename = (GUEST, _for_link(passing, _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.name)], 0, {"index": _MARK})))
    proxied, undo = _proxied(nic) if nic.kind == "ipvlan" else ([], [])
    static = _static(nic, ()) if nic.addresses else []
    return Requests((add, rename, *proxied, *static), ((GUEST, _delete(nic.name)), *undo))


def passing_name(nic: Nic) -> str:
    """For a link that is made in the guest's namespace: the kernel looks for a link of its name in ours all the same,
    where eth0 is often taken. Always the same of the same interface."""
    return f"sc{zlib.crc32(repr((nic.name, nic.mac, nic.parent, nic.addresses)).encode()):08x}"


def would_stay(nic: Nic) -> bool:
    """Whether something of it would be there for good when its guest has ended, if nobody took it away."""
    return nic.kind == "physical" or (nic.kind in ("routed", "ipvlan") and bool(nic.parent))


def left_behind(nic: Nic, made: Requests) -> list[Step]:
    """What is to be done when the guest has ended: its own links go with it, the host's link and what the host
    answers for it on a parent do not. The kernel takes its time over the former, too: with routes, that is too long."""
    if nic.kind == "physical":
        return list(made.unplug)
    if nic.kind in ("routed", "ipvlan") or nic.routes:
        return [step for step in made.unplug if step[0] == HOST]
    return []


def _physical(nic: Nic, guest_fd: int, host_fd: int) -> Requests:
    """The link itself, by name: its index is another each time that it comes back."""
    down = {"flags": 0, "change": IFF_UP}
    move = _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.parent_name), ("IFLA_NET_NS_FD", guest_fd)], 0, down)
    rename = _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.name), *_common(nic)], 0, {"index": _MARK})
    undo = _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.parent_name)], 0, {"index": _MARK, **down})
    back = _link(RTM_NEWLINK, [("IFLA_IFNAME", nic.parent_name), ("IFLA_NET_NS_FD", host_fd)], 0, down)
    return Requests(
        ((HOST, move), (GUEST, _for_link(nic.parent_name, rename))),
        ((GUEST, _for_link(nic.name, undo)), (GUEST, back)),
    )


def _virtual(nic: Nic, guest_fd: int, host_fd: int) -> Requests:
    """The link of a function, by the name that it was given for that. From a guest that has renamed it, it comes back
    by its driver alone (sysd.runtime.sriov.lending)."""
    made = _physical(nic, guest_fd, host_fd)
    return Requests(made.plug, tuple((side, f"-{request}") for side, request in made.unplug))


def _static(nic: Nic, routers: tuple[Address, ...]) -> list[Step]:
    """In the guest: its addresses, and default routes to routers or just out of the interface."""
    found = [_link(RTM_NEWLINK, [("IFLA_IFNAME", nic.name)], 0, {"flags": IFF_UP, "change": IFF_UP})]
    found += [_address(nic.name, one) for one in nic.addresses]
    for version in sorted({one.version for one in nic.addresses}):
        gateway = nic.gateways.get(version, "auto")
        if gateway == "none":
            continue
        router = next((one for one in routers if one.version == version), None)
        if gateway != "auto":
            router = ipaddress.ip_address(gateway)
        if router:
            found.append(_route(nic.name, router))
        found.append(_route(nic.name, None, router, version))
    return [(GUEST, request) for request in found]


def guest_basics(first: str) -> list[str]:
    """Bring up lo, and name the guest's first link as systemd's container interface does."""
    found = [_link(RTM_NEWLINK, [], 0, {"index": 1, "flags": IFF_UP, "change": IFF_UP})]
    if first:
        names = {"attrs": [("IFLA_ALT_IFNAME", CONTAINER_INTERFACE_NAME)]}
        attributes = [("IFLA_IFNAME", first), ("IFLA_PROP_LIST", names)]
        # A physical link may have that name already.
        found.append("-" + _link(RTM_NEWLINKPROP, attributes, NLM_CREATE_EXCL))
    return found


# single messages


def _common(nic: Nic) -> list[Any]:
    found: list[Any] = []
    if nic.mac:
        found.append(("IFLA_ADDRESS", nic.mac))
    if nic.mtu:
        found.append(("IFLA_MTU", nic.mtu))
    return found


def _info(kind: str, data: dict[str, Any]) -> tuple[str, Any]:
    return ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data)]})


def _delete(name: str) -> str:
    return _link(RTM_DELLINK, [("IFLA_IFNAME", name)])


def _link(kind: int, attributes: list[Any], flags: int = 0, fields: dict[str, int] | None = None) -> str:
    return _encode(ifinfmsg(), kind, flags, fields or {}, attributes)


def _address(link: str, address: Address) -> str:
    """As the only one of its network."""
    fields = {
        "family": _FAMILY[address.version],
        "prefixlen": address.max_prefixlen,
        "flags": IFA_F_NODAD if address.version == 6 else 0,
        "index": _MARK,
    }
    attributes = [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address))]
    return _for_link(link, _encode(ifaddrmsg(), RTM_NEWADDR, NLM_REPLACE, fields, attributes))


def _route(
    link: str,
    to: Address | Subnet | None,
    via: Address | None = None,
    version: int = 0,
    flags: int = NLM_REPLACE,
) -> str:
    """To one address, a network, or everywhere; out of link, over a router or not. The host's take nobody's place, by
    their flags."""
    there = ipaddress.ip_network(to) if to else None
    fields = {
        "family": _FAMILY[there.version if there else version],
        "dst_len": there.prefixlen if there else 0,
        "table": 254,
        "proto": 4,
        "scope": 0 if via else RT_SCOPE_LINK,
        "type": 1,
    }
    attributes: list[Any] = [("RTA_OIF", _MARK)]
    if there:
        attributes.append(("RTA_DST", str(there.network_address)))
    if via:
        attributes.append(("RTA_GATEWAY", str(via)))
    return _for_link(link, _encode(rtmsg(), RTM_NEWROUTE, flags, fields, attributes))


def _neighbour(kind: int, index: int, address: Address) -> str:
    fields = {"family": _FAMILY[address.version], "ifindex": index, "flags": NTF_PROXY, "state": 0x80}
    flags = NLM_REPLACE if kind == RTM_NEWNEIGH else 0
    return _encode(ndmsg(), kind, flags, fields, [("NDA_DST", str(address))])


def _for_link(link: str, request: str) -> str:
    at = bytes.fromhex(request).index(_MARK.to_bytes(4, sys.byteorder))
    return f"@{link}:{at}:{request}"


def _encode(message: Any, kind: int, flags: int, fields: dict[str, int], attributes: list[Any]) -> str:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_REQUEST_ACK | flags
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data).hex()
