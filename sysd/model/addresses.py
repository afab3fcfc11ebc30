# SPDX-License-Identifier: Apache-2.0
"""Grammars of addresses: of links, of IP, of domains. Each gives the value's meaning or raises InvalidError."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import cache, lru_cache

from sysd.model.errors import InvalidError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", re.ASCII)
_LINK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
MAX_DOMAIN = 253
SLAAC_LENGTH = 64
"""Of a prefix that hosts make addresses in by themselves (RFC 4862, RFC 4291)."""


def words(text: str) -> list[str]:
    """What stands between commas, without the spaces that people put there."""
    return [word.strip() for word in text.split(",") if word.strip()]


def mac(text: str) -> str:
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise InvalidError(f"not a hardware address: {text!r}", "six bytes such as 02:73:63:00:00:01, not a group's")
    return text.lower()


def link(text: str) -> str:
    """Name of a link of the host's, which others may have named."""
    if not _LINK.fullmatch(text):
        raise InvalidError(f"not the name of a link: {text[:80]!r}", "1 to 15 letters, digits, '_', '.', '@' and '-'")
    return text


def links(text: str) -> list[str]:
    return [link(word) for word in words(text)]


def domain(text: str) -> str:
    """A domain name without the dot at its end."""
    if len(text) > MAX_DOMAIN or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise InvalidError(f"not a domain: {text[:80]!r}", "labels of letters, digits and hyphens with dots between")
    return text.lower()


def domains(text: str) -> list[str]:
    return [domain(word) for word in words(text)]


def addresses(text: str) -> list[Address]:
    """Addresses with commas between."""
    return list(_addresses(text))


# Asked for of all interfaces in a network, again and again, when one of them changes; that of the network, too.
@lru_cache(maxsize=1 << 14)
def _addresses(text: str) -> tuple[Address, ...]:
    try:
        return tuple(ipaddress.ip_address(word) for word in words(text))
    except ValueError:
        raise InvalidError(f"not addresses: {text[:80]!r}", "IP addresses with commas between them") from None


def address(version: int) -> Callable[[str], Address]:
    def check(text: str) -> Address:
        try:
            found = ipaddress.ip_address(text)
        except ValueError:
            found = None
        if found is None or found.version != version or getattr(found, "scope_id", None):
            raise InvalidError(f"not an IPv{version} address: {text[:80]!r}")
        return found

    return check


def subnets(version: int) -> Callable[[str], list[Subnet]]:
    """Networks such as ``10.1.0.0/16``, with commas between."""

    def check(text: str) -> list[Subnet]:
        return [_subnet(version, word) for word in words(text)]

    return check


def _subnet(version: int, text: str) -> Subnet:
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        found = None
    if found is None or found.version != version or "/" not in text:
        raise InvalidError(f"not an IPv{version} network: {text[:80]!r}", "address and length, no bits set after it")
    return found


@cache
def interface(version: int) -> Callable[[str], Interface]:
    """A host's own address with the length of its network's prefix, such as ``10.1.2.1/24``, with room for guests."""

    @lru_cache(maxsize=1 << 10)
    def check(text: str) -> Interface:
        try:
            found = ipaddress.ip_interface(text)
        except ValueError:
            found = None
        if found is None or found.version != version or "/" not in text or getattr(found, "scope_id", None):
            raise InvalidError(f"not an IPv{version} address with prefix length: {text[:80]!r}")
        if found.network.num_addresses < 4:
            raise InvalidError(f"no room for guests: {text!r}", f"the prefix may have {found.max_prefixlen - 2} bits")
        if found.ip in (found.network.network_address, found.network.broadcast_address) or not _usable(found.ip):
            raise InvalidError(f"not an address that a host can have: {text!r}")
        return found

    return check


def overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def eui64(subnet: ipaddress.IPv6Network, hwaddr: str) -> ipaddress.IPv6Address:
    """The address that an interface makes of its hardware address (RFC 4291, appendix A)."""
    first, *rest = bytes.fromhex(hwaddr.replace(":", ""))
    interface = bytes([first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])
    return ipaddress.IPv6Address(subnet.network_address.packed[:8] + interface)


def _usable(found: Address) -> bool:
    unusable = found.is_multicast or found.is_loopback or found.is_unspecified or found.is_link_local
    return not unusable and not (found.version == 4 and found.is_reserved)


def ranges(version: int) -> Callable[[str], list[tuple[Address, Address]]]:
    """First and last addresses, ``A-B`` with commas between."""

    def check(text: str) -> list[tuple[Address, Address]]:
        return [_range(version, word) for word in words(text)]

    return check


def _range(version: int, text: str) -> tuple[Address, Address]:
    first, dash, last = text.partition("-")
    if not dash:
        raise InvalidError(f"not a range: {text[:80]!r}", "first and last address with '-' between")
    one, other = address(version)(first.strip()), address(version)(last.strip())
    if int(one) > int(other):
        raise InvalidError(f"a range ends before it begins: {text!r}")
    return one, other
