# SPDX-License-Identifier: Apache-2.0
"""Tunnels that join bridges of several hosts (``tunnel.NAME.*`` of networks). Names, values and defaults are LXD's."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sysd.model import addresses
from sysd.model.addresses import Address
from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.values import anything, integer, one_of

GRE, VXLAN = "gre", "vxlan"
MTU = 1400
"""Of a network with tunnels that says nothing else: what is left of 1500 bytes by all that a tunnel adds, and some."""
MAX_LINK_NAME = 15
_PREFIX = "tunnel."


def _address(text: str) -> Address:
    found = addresses.addresses(text)
    if len(found) != 1 or found[0].is_multicast or found[0].is_unspecified:
        raise InvalidError(f"not the address of a host: {text[:80]!r}")
    return found[0]


def _group(text: str) -> Address:
    found = addresses.addresses(text)
    if len(found) != 1 or not found[0].is_multicast:
        raise InvalidError(f"not a multicast address: {text[:80]!r}", "such as 239.0.0.1")
    return found[0]


_MEMBERS: dict[str, Callable[[str], object]] = {
    "protocol": one_of(GRE, VXLAN),
    "local": _address,
    "remote": _address,
    "group": _group,
    "interface": addresses.link,
    "id": integer(0, (1 << 24) - 1),
    "port": integer(0, 65535),
    "ttl": integer(1, 255),
}
_OF_VXLAN = ("group", "id", "port")


def _check_member(member: str, value: str) -> object:
    return _MEMBERS[member.rpartition(".")[2]](value)


KEY = Key(
    "tunnel.*",
    anything,
    "",
    "tunnel.NAME.protocol: gre or vxlan, by which the bridge is joined to one of another host, of tunnel.NAME.remote. "
    "More of it: local and interface, by which the host sends; ttl (1); of VXLAN id (0) and port (8472), and group "
    "(239.0.0.1), to which all send that have no remote. What is sent is neither encrypted nor signed.",
    live=True,
    member=rf"[A-Za-z0-9]([A-Za-z0-9_-]{{0,30}}[A-Za-z0-9])?\.({'|'.join(_MEMBERS)})",
    check_member=_check_member,
)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """to: the other host, or all that are in a group. number: of VXLAN, which tells networks apart. port 0 is the
    kernel's choice. interface: the host's link to send by; empty for the one that the route says."""

    name: str
    protocol: str
    to: Address
    local: Address | None = None
    interface: str = ""
    number: int = 0
    port: int = 0
    ttl: int = 1

    def link(self, network: str) -> str:
        """Name of the host's link: NETWORK-NAME as in LXD, or what is always the same where that is too long."""
        readable = f"{network}-{self.name}"
        if len(readable) <= MAX_LINK_NAME:
            return readable
        return "sctun" + hashlib.sha256(readable.encode()).hexdigest()[:8]


def tunnels(config: Mapping[str, str]) -> tuple[Tunnel, ...]:
    """All of a network, by name. Raises InvalidError for one that is not whole, or has what does not go together."""
    found: dict[str, dict[str, str]] = {}
    for key, value in config.items():
        if key.startswith(_PREFIX):
            name, _, member = key.removeprefix(_PREFIX).rpartition(".")
            found.setdefault(name, {})[member] = value
    return tuple(_tunnel(name, found[name]) for name in sorted(found))


def _tunnel(name: str, members: Mapping[str, str]) -> Tunnel:
    key, protocol = f"{_PREFIX}{name}", members.get("protocol", "")
    if not protocol:
        raise InvalidError(f"{key}.protocol is missing", f"{GRE} or {VXLAN}")
    _check_together(key, protocol, members)
    to = ipaddress.ip_address(members.get("remote") or members.get("group", "239.0.0.1"))
    local = ipaddress.ip_address(members["local"]) if "local" in members else None
    if local and local.version != to.version:
        raise InvalidError(f"{key}.local: {local} and {to} are of two versions of IP")
    number, port, ttl = (int(members.get(each, "0")) for each in ("id", "port", "ttl"))
    return Tunnel(name, protocol, to, local, members.get("interface", ""), number, port, ttl or 1)


def _check_together(key: str, protocol: str, members: Mapping[str, str]) -> None:
    if protocol == VXLAN:
        if "remote" in members and "group" in members:
            raise InvalidError(f"{key}.group is for who has no remote", "unset one of them")
        return
    if foreign := next((member for member in _OF_VXLAN if member in members), ""):
        raise InvalidError(f"{key}.{foreign} is for {VXLAN}")
    for member in ("local", "remote"):
        if member not in members:
            raise InvalidError(f"{key}.{member} is missing", f"{GRE} is between two addresses")
        if ipaddress.ip_address(members[member]).version != 4:
            raise InvalidError(f"{key}.{member}: {GRE} is spoken over IPv4")
