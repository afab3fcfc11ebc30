# SPDX-License-Identifier: Apache-2.0
"""Keys of networks of type ovn. Names, values and defaults are LXD's (see its reference of OVN networks)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sysd.model import acls, addresses, bridge
from sysd.model.errors import InvalidError
from sysd.model.names import check_network_name
from sysd.model.schema import Key
from sysd.model.values import anything, boolean, integer

NO_UPLINK = "none"
MTU = 1442
"""Of an Ethernet of 1500 bytes, what Geneve over IPv4 leaves (RFC 8926, with OVN's own options)."""


UUID, HWADDR = "volatile.network.uuid", "volatile.network.hwaddr"
"""By which OVN knows it, whatever its name is; and what is made up for bridge.hwaddr."""


def outside_key(version: int) -> str:
    """Under which a network keeps the address that its router has in the uplink."""
    return f"volatile.network.ipv{version}.address"


def _uplink(text: str) -> str:
    return text if text == NO_UPLINK else check_network_name(text)


def _of_bridges(*names: str) -> Iterator[Key]:
    by_name = {key.name: key for key in bridge.KEYS}
    return (by_name[name] for name in names)


def _family(version: int) -> Iterator[Key]:
    ip = f"ipv{version}"
    yield from _of_bridges(f"{ip}.address", f"{ip}.nat", f"{ip}.dhcp")
    yield Key(outside_key(version), addresses.address(version), "", "Its router's address in the uplink.",
              internal=True)  # fmt: skip


KEYS = (
    Key("network", _uplink, "", "Uplink: a network of type bridge or physical in which addresses are set apart for it "
        "(ipv4.ovn.ranges); none for a network that leads nowhere. Has to be set.", live=True),
    Key("bridge.hwaddr", addresses.mac, "", "Its router's hardware address; made up when it is not set.", live=True),
    Key("bridge.mtu", integer(68, 65535), str(MTU), "Largest packet of the network, in bytes; of instances' interfaces "
        "from their next start on.", live=True),
    *_of_bridges("dns.domain", "dns.search", "dns.zone.forward", "dns.zone.reverse.ipv4", "dns.zone.reverse.ipv6"),
    *_family(4),
    *_family(6),
    *_of_bridges("ipv6.dhcp.stateful"),
    Key(UUID, anything, "", "By what OVN knows the network.", internal=True),
    Key(HWADDR, addresses.mac, "", "Its router's hardware address, made up.", internal=True),
    Key("security.acls", acls.names, "", "ACLs that hold for each of its guests, also between them, with commas "
        "between.", live=True),
    *_of_bridges(*(f"security.acls.default.{way}.{what}" for way in acls.DIRECTIONS for what in ("action", "logged"))),
    bridge.USER,
)  # fmt: skip


def check(config: Mapping[str, str]) -> None:
    """What keys must be together. Raises InvalidError."""
    if "network" not in config:
        raise InvalidError("network is missing", f"the network that it is linked to, or {NO_UPLINK}")
    own = {version: bridge.own_address(config, version) for version in (4, 6)}
    if not any(own.values()):
        raise InvalidError("neither ipv4.address nor ipv6.address: there is nothing to route")
    if own[6] and int(config.get("bridge.mtu", MTU)) < bridge.IPV6_MIN_MTU:
        raise InvalidError("bridge.mtu: too small for IPv6", f"at least {bridge.IPV6_MIN_MTU}, or ipv6.address=none")
    if own[6] and own[6].network.prefixlen != addresses.SLAAC_LENGTH:
        raise InvalidError(f"ipv6.address: guests make addresses up in a /{addresses.SLAAC_LENGTH} only")
    for version in (4, 6):
        if boolean(config.get(f"ipv{version}.nat", "false")) and config["network"] == NO_UPLINK:
            raise InvalidError(f"ipv{version}.nat: the network leads nowhere", "set network, or unset this")

