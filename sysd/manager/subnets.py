# SPDX-License-Identifier: Apache-2.0
"""Subnets for networks: chosen where nobody says which, checked where somebody does."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Sequence

from sysd.model import addresses
from sysd.model.addresses import Interface, Subnet
from sysd.model.bridge import AUTO
from sysd.model.errors import FailedError, InvalidError
from sysd.model.network import Network
from sysd.model.ovn import NO_UPLINK
from sysd.network import links


def fill(config: dict[str, str], networks: Iterable[Network], *, new: bool) -> dict[str, str]:
    """config of a network with addresses in place of ``auto``, which is what a new one has unless told otherwise;
    made-up ones come with NAT, if there is a way out. Blocks for a millisecond."""
    filled = dict(config)
    for version in (4, 6) if links.has_ipv6() else (4,):
        key = f"ipv{version}.address"
        if filled.get(key, AUTO if new else "") == AUTO:
            taken = [one for network in networks for one in of(network)]
            filled[key] = choose_ipv6() if version == 6 else choose_ipv4([*links.used_networks(), *taken])
            if filled.get("network") != NO_UPLINK:
                filled.setdefault(f"ipv{version}.nat", "true")
    return filled


def check(network: Network, others: Iterable[Network], host: Iterable[Interface]) -> None:
    """Raise InvalidError when an address of network's is in somebody else's subnet: in that of another network, or in
    one that a link of the host's has an address in."""
    for version in (4, 6):
        own = network.address(version)
        if not own:
            continue
        for other in others:
            for subnet in of(other):
                if subnet.version == version and subnet.overlaps(own.network):
                    raise InvalidError(f"ipv{version}.address: {own} overlaps {subnet}", f"network {other.name} has it")
        for interface in host:
            if interface.version == version and interface.network.overlaps(own.network):
                raise InvalidError(f"ipv{version}.address: {own} overlaps {interface.network}", "the host is in it")


def of(network: Network) -> list[Subnet]:
    """Its own and those behind it."""
    own = [subnet for subnet in (network.subnet(4), network.subnet(6)) if subnet]
    if not network.is_bridge:
        return own
    behind = [one for version in (4, 6) for one in addresses.subnets(version)(network.text(f"ipv{version}.routes"))]
    return [*own, *behind]


def choose_ipv4(used: Sequence[Subnet]) -> str:
    """A /24 in 10.0.0.0/8 that overlaps nothing; the gateway's address with prefix length."""
    taken = [*(other for other in used if other.prefixlen), ipaddress.IPv4Network("10.0.0.0/16")]
    start = secrets.randbelow(1 << 16)
    for step in range(1 << 16):
        # An odd factor visits each of the subnets once, in no obvious order.
        number = (start + step * 40503) % (1 << 16)
        subnet = ipaddress.IPv4Network((0x0A000000 | number << 8, 24))
        if not any(other.version == 4 and subnet.overlaps(other) for other in taken):
            return f"{subnet[1]}/24"
    raise FailedError("no free IPv4 subnet for the network", "10.0.0.0/8 is all in use on this host")


def choose_ipv6() -> str:
    """A random /64 of unique local addresses (RFC 4193)."""
    network = (0xFD42 << 112) | (secrets.randbits(48) << 64)
    return f"{ipaddress.IPv6Address(network + 1)}/64"
