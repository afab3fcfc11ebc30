# SPDX-License-Identifier: Apache-2.0
"""Keys of networks of type bridge. Names, values and defaults are LXD's (see its reference of bridge networks)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from sysd.model import acls, addresses, dnsmasq_options, tunnels
from sysd.model.addresses import SLAAC_LENGTH, Interface
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.schema import Key
from sysd.model.values import anything, boolean, integer, one_of

DNS_DOMAIN = "syscont"
AUTO, NONE = "auto", "none"
ETHERNET_MTU = 1500
IPV6_MIN_MTU = 1280
"""Least MTU that IPv6 takes (RFC 8200, section 5)."""
_LEASE = re.compile(r"([0-9]{1,6})([smhdw]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MIN_LEASE = 120
"""Seconds; dnsmasq(8), --dhcp-range."""


def lease_time(text: str) -> str:
    """As dnsmasq takes it: ``1h``, ``90m``, ``infinite``."""
    if text == "infinite":
        return text
    found = _LEASE.fullmatch(text)
    if not found or int(found[1]) * _SECONDS[found[2]] < MIN_LEASE:
        raise InvalidError(f"not a lease time: {text!r}", "such as 1h, 90m or 7d, at least two minutes, or infinite")
    return text


def _interface(version: int, text: str) -> str:
    if text not in (AUTO, NONE):
        addresses.interface(version)(text)
    return text


def _ipv4(text: str) -> str:
    return _interface(4, text)


def _ipv6(text: str) -> str:
    return _interface(6, text)


def _driver(text: str) -> str:
    if text == "openvswitch":
        raise UnsupportedError("bridges of Open vSwitch are not offered", "they come with OVN networks")
    return one_of("native")(text)


def _mode(text: str) -> str:
    if text == "fan":
        raise UnsupportedError("fan networks are not offered", "only Ubuntu's kernels have them")
    return one_of("standard")(text)


def _reverse_zone(end: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        found = addresses.domain(text)
        if not found.endswith(end):
            raise InvalidError(f"not a reverse zone: {text[:80]!r}", f"one whose name ends with {end}")
        return found

    return check


def _family(version: int) -> Iterator[Key]:
    """The keys that there are for IPv4 and IPv6 alike."""
    ip, address = f"ipv{version}", addresses.address(version)
    check = _ipv4 if version == 4 else _ipv6
    yield Key(f"{ip}.address", check, NONE, f"The bridge's own IPv{version} address with prefix length; auto makes one "
              "up, as at creation when it is not set; none for none.", live=True)  # fmt: skip
    yield Key(f"{ip}.nat", boolean, "false", "Whether guests reach the world by the host's address; a network whose "
              "address is made up has it.", live=True)  # fmt: skip
    yield Key(f"{ip}.nat.address", address, "", "The address that guests have in the world, one of the host's; that "
              "of the way out when it is not set.", live=True)  # fmt: skip
    yield Key(f"{ip}.nat.order", one_of("before", "after"), "before", "Whether NAT comes before or after what others "
              "do at priority srcnat.", live=True)  # fmt: skip
    yield Key(f"{ip}.firewall", boolean, "true", f"Whether rules of ours hold {ip}.routing up.", live=True)
    yield Key(f"{ip}.routing", boolean, "true", "Whether guests reach anything beyond the bridge. Needs "
              f"{ip}.firewall.", live=True)  # fmt: skip
    yield Key(f"{ip}.routes", addresses.subnets(version), "", "More networks that are behind the bridge, with commas "
              f"between; interfaces in OVN networks may have some of them there ({ip}.routes.external).",
              live=True)  # fmt: skip
    yield Key(f"{ip}.dhcp.expiry", lease_time, "1h", "How long leases hold.", live=True)
    yield ovn_ranges(version)
    yield Key(f"{ip}.dhcp.ranges", addresses.ranges(version), "", "What addresses are leased, FIRST-LAST with commas "
              "between; all when it is not set.", live=True)  # fmt: skip


def ovn_ranges(version: int) -> Key:
    """Of networks that those of OVN may be linked to."""
    return Key(f"ipv{version}.ovn.ranges", addresses.ranges(version), "", "Addresses that routers of OVN networks may "
               "have, FIRST-LAST with commas between; none of them is leased.", live=True)  # fmt: skip


def check_ovn_ranges(config: Mapping[str, str], own: Interface) -> None:
    """own: the address and subnet of who routes there. Raises InvalidError."""
    key = f"ipv{own.version}.ovn.ranges"
    for first, last in addresses.ranges(own.version)(config.get(key, "")):
        if first not in own.network or last not in own.network:
            raise InvalidError(f"{key}: {first}-{last} is not in {own.network}")
        if int(first) <= int(own.ip) <= int(last):
            raise InvalidError(f"{key}: {first}-{last} has {own.ip}", "that is the way out itself")


def _defaults(direction: str) -> Iterator[Key]:
    key, about = f"security.acls.default.{direction}", f"{direction} that no rule of an ACL is about"
    yield Key(f"{key}.action", one_of(*acls.ACTIONS), "reject", f"What becomes of {about}.", live=True)
    yield Key(f"{key}.logged", boolean, "false", f"Whether the kernel's log has {about}.", live=True)


_FAN = "fan networks need Ubuntu's kernels"
REFUSED = {
    "no BGP is spoken": ("bgp.peers.*", "bgp.ipv4.nexthop", "bgp.ipv6.nexthop"),
    _FAN: ("fan.overlay_subnet", "fan.type", "fan.underlay_subnet"),
    "MAAS is not spoken to": ("maas.subnet.ipv4", "maas.subnet.ipv6"),
}  # fmt: skip
USER = Key("user.*", anything, "", "Free for users; may span lines. Everybody on the host can read it.", multiline=True)

KEYS = (
    Key("bridge.driver", _driver, "native", "What the bridge is: native, of the kernel's.", live=True),
    Key("bridge.external_interfaces", addresses.links, "", "Links of the host, without addresses of their own, that "
        "are put into the bridge, with commas between.", live=True),
    Key("bridge.hwaddr", addresses.mac, "", "The bridge's hardware address; made up when it is not set.", live=True),
    Key("bridge.mode", _mode, "standard", "How the bridge works: standard.", live=True),
    Key("bridge.mtu", integer(68, 65535), "1500", "Largest packet of the network, in bytes; of instances' interfaces "
        f"from their next start on; {tunnels.MTU} with tunnels.", live=True),
    Key("dns.domain", addresses.domain, DNS_DOMAIN, "The domain in which instances have their names.", live=True),
    Key("dns.mode", one_of("managed", "dynamic", "none"), "managed", "Who names instances in DNS: managed, their names "
        "with syscont; dynamic, the names that they give themselves; none.", live=True),
    Key("dns.search", addresses.domains, "", "More domains in which guests look for names, with commas between.",
        live=True),
    Key("dns.zone.forward", addresses.domains, "", "Zones in which instances of the network have names, with commas "
        "between: each in those of its project, or else of the default one.", live=True),
    Key("dns.zone.reverse.ipv4", _reverse_zone(".in-addr.arpa"), "", "Zone in which IPv4 addresses have names.",
        live=True),
    Key("dns.zone.reverse.ipv6", _reverse_zone(".ip6.arpa"), "", "Zone in which IPv6 addresses have names.", live=True),
    *_family(4),
    Key("ipv4.dhcp", boolean, "true", "Whether addresses are leased by DHCP.", live=True),
    Key("ipv4.dhcp.gateway", addresses.address(4), "", "The router that guests are told; the bridge when it is not "
        "set.", live=True),
    *_family(6),
    Key("ipv6.dhcp", boolean, "true", "Whether more than the router is told by DHCP.", live=True),
    Key("ipv6.dhcp.stateful", boolean, "false", "Whether addresses are leased by DHCP; else guests make them up.",
        live=True),
    Key("raw.dnsmasq", dnsmasq_options.check, "", "More options for dnsmasq, one a line; only those that say what it "
        "answers.", live=True, multiline=True),
    Key("security.acls", acls.names, "", "ACLs that say what goes between guests and the world, the host being part of "
        "it, with commas between. What goes between guests of the network is not for them.", live=True),
    *(key for direction in acls.DIRECTIONS for key in _defaults(direction)),
    tunnels.KEY,
    *(Key(name, anything, "", "", refused=why) for why, names in REFUSED.items() for name in names),
    USER,
)  # fmt: skip


def check(config: Mapping[str, str]) -> None:
    """What keys must be together. Raises InvalidError."""
    for version in (4, 6):
        own = own_address(config, version)
        if own:
            _check_inside(config, own)
            check_ovn_ranges(config, own)
            _check_not_leased(config, version)
        elif f"ipv{version}.ovn.ranges" in config:
            raise InvalidError(f"ipv{version}.ovn.ranges: the network has no IPv{version}")
    own = own_address(config, 6)
    if own and mtu(config) < IPV6_MIN_MTU:
        raise InvalidError("bridge.mtu: too small for IPv6", f"at least {IPV6_MIN_MTU}, or set ipv6.address=none")
    if own and own.network.prefixlen != SLAAC_LENGTH and guests_choose(config):
        raise InvalidError(
            f"ipv6.address: guests make addresses up in a /{SLAAC_LENGTH} only",
            "set ipv6.dhcp.stateful=true, or take such a prefix",
        )
    if "ipv6.dhcp.ranges" in config and not boolean(config.get("ipv6.dhcp.stateful", "false")):
        raise InvalidError("ipv6.dhcp.ranges: addresses are not leased", "set ipv6.dhcp.stateful=true")
    taken = addresses.links(config.get("bridge.external_interfaces", ""))
    if twice := next((name for name in taken if taken.count(name) > 1), ""):
        raise InvalidError(f"bridge.external_interfaces: {twice} is there twice")


def mtu(config: Mapping[str, str]) -> int:
    """The largest packet of the network, in bytes."""
    return int(config.get("bridge.mtu", tunnels.MTU if tunnels.tunnels(config) else ETHERNET_MTU))


def own_address(config: Mapping[str, str], version: int) -> Interface | None:
    """The bridge's; None when it has none, or none yet."""
    text = config.get(f"ipv{version}.address", NONE)
    return None if text in (AUTO, NONE) else addresses.interface(version)(text)


def guests_choose(config: Mapping[str, str]) -> bool:
    """Whether guests make up their own IPv6 addresses (SLAAC)."""
    stateful = boolean(config.get("ipv6.dhcp.stateful", "false"))
    return not (stateful and boolean(config.get("ipv6.dhcp", "true")))


def _check_inside(config: Mapping[str, str], own: Interface) -> None:
    """The network's addresses are in its subnet."""
    key = f"ipv{own.version}.dhcp.ranges"
    named = [(key, end) for pair in addresses.ranges(own.version)(config.get(key, "")) for end in pair]
    if own.version == 4 and (gateway := config.get("ipv4.dhcp.gateway")):
        named.append(("ipv4.dhcp.gateway", addresses.address(4)(gateway)))
    for key, found in named:
        if found not in own.network:
            why = f"that is the network of ipv{own.version}.address"
            raise InvalidError(f"{key}: {found} is not in {own.network}", why)


def _check_not_leased(config: Mapping[str, str], version: int) -> None:
    apart, leased = (f"ipv{version}.{name}.ranges" for name in ("ovn", "dhcp"))
    is_leased = boolean(config.get(f"ipv{version}.dhcp", "true")) and not (version == 6 and guests_choose(config))
    if apart not in config or not is_leased:
        return
    if leased not in config:
        raise InvalidError(f"{apart}: all addresses are leased", f"set {leased}, with others than these")
    for one, other in ((a, b) for a in _ends(config, apart) for b in _ends(config, leased)):
        if max(one[0], other[0]) <= min(one[1], other[1]):
            raise InvalidError(f"{apart}: some of these are leased", f"{leased} is to have others")


def _ends(config: Mapping[str, str], key: str) -> list[tuple[int, int]]:
    version = int(key[3])
    return [(int(first), int(last)) for first, last in addresses.ranges(version)(config[key])]
