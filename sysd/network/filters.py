# SPDX-License-Identifier: Apache-2.0
"""What instances may send: rules for packets that come from the host's ends of their interfaces.

Each instance has tables of its own (libnftables-json(5)), by names that stay: they are there before the links are and
whether it runs or not, so that no packet is sent without them. Which addresses are let through is as in LXD
(security.mac_filtering and its kin). Sources: nft(8), RFC 826, RFC 2131, RFC 4861.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sysd.model.addresses import Address, Subnet, eui64
from sysd.network.expressions import ACCEPT, DROP, Rule, match, payload, prefix
from sysd.network.firewall import holds
from sysd.network.links import END_PREFIX, PORT_PREFIX
from sysd.network.shaping import burst

PREFIX = "syscont_of_"
GUARD = "syscont_guards_all_ports"
"""No network has that name: it would be too long for a link's."""
FAMILIES = ("bridge", "inet")
CHAIN = "from"
_BEFORE = -300
"""Before all that decides where a packet goes (nft(8), priorities dstnat of bridge and raw of inet)."""
_TARGET = 64
"""Bits from the start of a neighbour advertisement to the address that it is about."""
_OPTION = {
    "nd-neighbor-advert": (192, "0201"),
    "nd-neighbor-solicit": (192, "0101"),
    "nd-router-solicit": (64, "0101"),
    "nd-router-advert": (128, "0101"),
    "nd-redirect": (320, "0201"),
}
"""Bits to the first option of a message, and the head of that which says a hardware address (RFC 4861, 4.6.1)."""
_MORE_OR_LATER = 0x3FFF
"""Of an IPv4 packet's flags and offset, what is not 0 in a fragment (RFC 791)."""
_CLIENT_OF_DHCP = 288
"""Bits from the start of a datagram to the hardware address of who asks (RFC 2131, chaddr)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One interface. mac: by which alone it may send, if any; addresses, by IP version: likewise, where that is said.
    egress: bits a second, 0 for any number. port: of a bridge. networks: behind it, for which it may send, too."""

    host_name: str
    port: bool
    mac: str = ""
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    egress: int = 0
    networks: tuple[Subnet, ...] = ()

    def senders(self, version: int) -> list[Any]:
        """As which it may send."""
        behind = [prefix(each) for each in self.networks if each.version == version]
        return [*(str(address) for address in self.addresses[version]), *behind]


def table_name(uuid: str) -> str:
    return PREFIX + uuid.replace("-", "")


def rules(sources: Iterable[Source]) -> dict[str, list[Rule]]:
    """By family; of one without rules there is nothing."""
    found: dict[str, list[Rule]] = {}
    for source in sources:
        found.setdefault("bridge" if source.port else "inet", []).extend(_rules(source))
        found.setdefault("inet", []).extend(_of_host_end(source))
    return {family: each for family, each in found.items() if each}


def guard() -> dict[str, Any]:
    """What holds for the host's ends of all interfaces, by what their names begin with; see _of_host_end."""
    ports, ends = (match(_LINK, f"{prefix}*") for prefix in (PORT_PREFIX, END_PREFIX))
    return _replaced(GUARD, {"inet": [[ports, DROP], *([ends, *rule] for rule in _NO_ROUTER)]})


def transaction(uuid: str, wanted: Mapping[str, list[Rule]]) -> dict[str, Any]:
    """Replace an instance's tables as a whole; without rules it has none."""
    return _replaced(table_name(uuid), wanted)


def _replaced(name: str, wanted: Mapping[str, list[Rule]]) -> dict[str, Any]:
    commands: list[dict[str, Any]] = removal(name)["nftables"]
    for family, found in wanted.items():
        table = {"family": family, "table": name}
        hook = {"type": "filter", "hook": "prerouting", "prio": _BEFORE, "policy": "accept"}
        commands.append({"add": {"table": {"family": family, "name": name}}})
        commands.append({"add": {"chain": {**table, "name": CHAIN, **hook}}})
        commands += [{"add": {"rule": {**table, "chain": CHAIN, "expr": rule}}} for rule in found]
    return {"nftables": commands}


def removal(name: str) -> dict[str, Any]:
    """Take an instance's tables away; that there are none is no error."""
    tables = [{"table": {"family": family, "name": name}} for family in FAMILIES]
    return {"nftables": [{verb: table} for table in tables for verb in ("add", "delete")]}


def in_place(uuid: str, wanted: Mapping[str, list[Rule]]) -> bool:
    """Whether an instance's chains have all their rules, as far as can be seen."""
    return all(holds(family, table_name(uuid), CHAIN, len(found)) for family, found in wanted.items())


def _of_host_end(source: Source) -> Iterator[Rule]:
    """Of one whose name somebody chose: what guard() says of the others.

    Frames that a bridge takes for itself (IEEE 802.1D, 7.12.6) come to the host by the port, past all rules for what is
    bridged; nothing else does. A guest at the other end of a link is no router of the host's.
    """
    ours = match(_LINK, source.host_name)
    if source.port and not source.host_name.startswith(PORT_PREFIX):
        yield [ours, DROP]
    if not source.port and not source.host_name.startswith(END_PREFIX):
        yield from ([ours, *rule] for rule in _NO_ROUTER)


def guarded() -> bool:
    return holds("inet", GUARD, CHAIN, 1 + len(_NO_ROUTER))


def _rules(source: Source) -> Iterator[Rule]:
    ours = match(_LINK, source.host_name)
    for rule in (*_of_hardware(source), *_of_rate(source), *_of_kinds(source), *_of_ipv4(source), *_of_ipv6(source)):
        yield [ours, *rule]


def _of_hardware(source: Source) -> Iterator[Rule]:
    if not source.mac:
        return
    # In a VLAN of its own making it could be anyone; who has a tag of none is taken as if there was no tag.
    yield [match(payload("ether", "type"), {"set": ["8021q", "8021ad"]}), DROP]
    yield [match(payload("ether", "saddr"), source.mac, "!="), DROP]
    yield [match(payload("arp", "saddr ether"), source.mac, "!="), DROP]
    known = source.mac.replace(":", "")
    for kind, (offset, head) in _OPTION.items():
        # Who looks whether an address is free has none to be answered at, and says something else here (RFC 7527).
        speaks = [] if kind == "nd-neighbor-advert" else [match(payload("ip6", "saddr"), "::", "!=")]
        yield [*speaks, _icmpv6(kind), match(_bits(offset, 64), f"0x{head}{known}", "!="), DROP]
    # Else one instance could lease all addresses that there are; or say who asks in a second part of the datagram.
    asks = match(payload("udp", "dport"), 67)
    yield [asks, match(_bits(_CLIENT_OF_DHCP, 48), f"0x{known}", "!="), DROP]
    yield [asks, match({"&": [payload("ip", "frag-off"), _MORE_OR_LATER]}, 0, "!="), DROP]


def _of_kinds(source: Source) -> Iterator[Rule]:
    """Whose addresses are looked at says them in no other way."""
    if source.addresses:
        yield [match(payload("ether", "type"), {"set": ["arp", "ip", "ip6"]}, "!="), DROP]


def _of_ipv4(source: Source) -> Iterator[Rule]:
    if 4 not in source.addresses:
        return
    own = source.senders(4)
    # Who asks whether an address is free has none (RFC 5227); about others' it is not to ask that.
    yield [match(payload("arp", "saddr ip"), {"set": [*own, "0.0.0.0"]}, "!="), DROP]
    probes = match(payload("arp", "saddr ip"), "0.0.0.0")
    yield [probes, match(payload("arp", "daddr ip"), {"set": own or ["0.0.0.0"]}, "!="), DROP]
    # As a server of DHCP it would say who routes.
    yield [match(payload("ip", "version"), 4), match(payload("udp", "dport"), 68), DROP]
    asks = [match(payload("ip", "saddr"), "0.0.0.0"), match(payload("ip", "daddr"), "255.255.255.255")]
    yield [*asks, match(payload("udp", "dport"), 67), ACCEPT]
    # Without any it has no IPv4 at all.
    yield [match(payload("ip", "saddr"), {"set": own or ["0.0.0.0"]}, "!="), DROP]


def _of_ipv6(source: Source) -> Iterator[Rule]:
    if 6 not in source.addresses:
        return
    own = [*source.senders(6), str(link_local(source.mac))]
    # A question says where who asks is to be found: not as another does who makes its address of its hardware's.
    derived = match({"&": [payload("ip6", "saddr"), _DERIVED_BITS]}, _DERIVED)
    yield [derived, match(payload("ip6", "saddr"), str(link_local(source.mac)), "!="), DROP]
    yield [match(payload("ip6", "version"), 6), match(payload("udp", "dport"), 546), DROP]
    for kind in ("nd-router-advert", "nd-redirect"):
        yield [_icmpv6(kind), DROP]
    targets = [f"0x{int(address):032x}" for address in (*source.addresses[6], link_local(source.mac))]
    yield [_icmpv6("nd-neighbor-advert"), match(_bits(_TARGET, 128), {"set": targets}, "!="), DROP]
    probes = [match(payload("ip6", "saddr"), "::"), _icmpv6("nd-neighbor-solicit")]
    others = [match(_bits(_TARGET, 64), "0xfe80000000000000", "!="), match(_bits(_TARGET, 128), {"set": targets}, "!=")]
    yield [*probes, *others, DROP]
    # An instance looks for routers and for DHCP by whatever address it has made up, and has none at first.
    for kind in ("nd-router-solicit", "nd-neighbor-solicit", "mld2-listener-report"):
        yield [match(payload("ip6", "saddr"), {"set": ["::", _LINK_LOCAL]}), _icmpv6(kind), ACCEPT]
    asks = [match(payload("ip6", "saddr"), _LINK_LOCAL), match(payload("ip6", "daddr"), "ff02::1:2")]
    yield [*asks, match(payload("udp", "dport"), 547), ACCEPT]
    yield [match(payload("ip6", "saddr"), {"set": own}, "!="), DROP]


_LINK_LOCAL: Any = {"prefix": {"addr": "fe80::", "len": 10}}
_DERIVED, _DERIVED_BITS = "fe80::ff:fe00:0", "ffff:ffff:ffff:ffff:0:ff:ff00:0"
"""What link-local addresses have in common that are made of hardware addresses (RFC 4291, appendix A)."""


def _of_rate(source: Source) -> Iterator[Rule]:
    if source.egress:
        rate = max(1, source.egress // 8)
        each = {"rate": rate, "per": "second", "rate_unit": "bytes", "burst": burst(rate), "burst_unit": "bytes"}
        yield [{"limit": {**each, "inv": True}}, DROP]


def link_local(mac: str) -> ipaddress.IPv6Address:
    return eui64(ipaddress.IPv6Network("fe80::/64"), mac)


_LINK: dict[str, Any] = {"meta": {"key": "iifname"}}


def _icmpv6(kind: str) -> dict[str, Any]:
    return match(payload("icmpv6", "type"), kind)


def _bits(offset: int, length: int) -> dict[str, Any]:
    """Of what IP carries, wherever that begins."""
    return {"payload": {"base": "th", "offset": offset, "len": length}}


_NO_ROUTER: list[Rule] = [[_icmpv6(kind), DROP] for kind in ("nd-router-advert", "nd-redirect")]
