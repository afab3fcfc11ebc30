# SPDX-License-Identifier: Apache-2.0
"""What is to be in OVN: networks, their uplinks, and ports of guests, as the manager says them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sysd.model import addresses
from sysd.model.acls import INGRESS
from sysd.model.addresses import Address, Interface, Subnet
from sysd.model.devices.nic import MAX_EXTERNAL
from sysd.model.errors import InvalidError
from sysd.model.forwards import Forward

_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)
_TEXT = re.compile(r"[A-Za-z0-9_.-]{1,253}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OvnUplink:
    """How a router gets out: by its own addresses there, to gateways. provider: the name that hosts' Open vSwitch map
    to a bridge (ovn-bridge-mappings). chassis: system-id of hosts where the router may be at the uplink, the highest
    number first."""

    provider: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    chassis: tuple[tuple[str, int], ...]
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class OvnNetwork:
    """addresses: the router's among the guests. nat: whose addresses guests have outside; a version that has none goes
    out as it is. reserved: what OVN gives nobody. stateful6: guests have IPv6 addresses by DHCP, and make none."""

    uuid: str
    name: str
    mac: str
    mtu: int
    addresses: tuple[Interface, ...]
    dhcp4: bool = True
    dhcp6: bool = True
    stateful6: bool = False
    lease: int = 3600
    nat: tuple[Address, ...] = ()
    reserved: tuple[tuple[Address, Address], ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    nameservers: tuple[Address, ...] = ()
    uplink: OvnUplink | None = None
    forwards: tuple[Forward, ...] = ()

    def address(self, version: int) -> Interface | None:
        return next((each for each in self.addresses if each.version == version), None)

    @property
    def subnets(self) -> list[Subnet]:
        return [each.network for each in self.addresses]

    def servers(self, version: int) -> list[Address]:
        """Who is asked for names; of those in the domain OVN answers whoever is asked. The router, if nobody else is
        known: it stands for nobody, but only who asks is answered."""
        found = [each for each in self.nameservers if each.version == version]
        own = self.address(version)
        return found or ([own.ip] if own and not self.nameservers else [])


@dataclass(frozen=True, slots=True)
class Defaults:
    """What becomes of what no rule of an ACL is about: an action for each direction, and whether it is logged."""

    ingress: str = "reject"
    egress: str = "reject"
    ingress_logged: bool = False
    egress_logged: bool = False

    def of(self, direction: str) -> tuple[str, bool]:
        return (self.ingress, self.ingress_logged) if direction == INGRESS else (self.egress, self.egress_logged)


@dataclass(frozen=True, slots=True)
class OvnPort:
    """Of a guest's interface. addresses: its own; with no IPv4 address where the network has IPv4, OVN gives it some,
    and known are those that it gave. routes: subnets behind the guest; published: those that the uplink is to send
    here without having a route. acls: names of those that hold for it, the network's as its own. defaults: if they are
    others than the network's. privacy: the guest may have any IPv6 address of
    the network, as RFC 8981 would have it; else those here alone."""

    id: str
    mac: str
    addresses: tuple[Address, ...] = ()
    known: tuple[Address, ...] = ()
    hostname: str = ""
    routes: tuple[Subnet, ...] = ()
    published: tuple[Subnet, ...] = ()
    acls: tuple[str, ...] = ()
    defaults: Defaults | None = None
    secured: bool = True
    privacy: bool = False
    enabled: bool = True

    def is_dynamic(self, network: OvnNetwork) -> bool:
        return bool(network.address(4)) and not any(each.version == 4 for each in self.addresses)

    def all_addresses(self, network: OvnNetwork) -> list[Address]:
        """As far as they are known; of IPv6 the one made of its hardware address, if it has no other."""
        found = list(self.known if self.is_dynamic(network) else self.addresses)
        own = network.address(6)
        if own and not any(each.version == 6 for each in found) and own.network.prefixlen == addresses.SLAAC_LENGTH:
            assert isinstance(own.network, ipaddress.IPv6Network)
            found.append(addresses.eui64(own.network, self.mac))
        return found


def check_port(network: OvnNetwork, port: OvnPort) -> None:
    """Raise InvalidError for what OVN can't be told."""
    if not _ID.fullmatch(port.id):
        raise InvalidError(f"not the name of a port in OVN: {port.id[:80]!r}", "letters, digits, '-', '_' and '.'")
    addresses.mac(port.mac)
    if port.hostname:
        text(port.hostname)
    if port.is_dynamic(network) and port.addresses:
        raise InvalidError(f"port {port.id}: an IPv6 address of its own needs one of IPv4, too", "set ipv4.address")
    for each in port.addresses:
        if not any(each in subnet for subnet in network.subnets):
            raise InvalidError(f"port {port.id}: {each} is not in network {network.name}")
    versions = {each.version for each in port.all_addresses(network)} | ({4} if port.is_dynamic(network) else set())
    for subnet in (*port.routes, *port.published):
        if subnet.version not in versions:
            raise InvalidError(f"port {port.id}: {subnet} has no way: the port has no IPv{subnet.version} address")
    for subnet in port.published:
        if subnet.num_addresses > MAX_EXTERNAL:
            raise InvalidError(f"port {port.id}: {subnet} is more than {MAX_EXTERNAL} addresses")


def text(word: str) -> str:
    """A name as it can stand in OVN's strings and expressions. Raises InvalidError."""
    if not _TEXT.fullmatch(word):
        raise InvalidError(f"not a name that OVN can be told: {word[:80]!r}", "letters, digits, '-', '_' and '.'")
    return word
