# SPDX-License-Identifier: Apache-2.0
"""Managed networks: bridges of ours, and links of the host's that instances' interfaces are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sysd.model import acls, addresses, bridge, ovn
from sysd.model.addresses import Interface, Subnet
from sysd.model.errors import InvalidError
from sysd.model.forwards import Forward
from sysd.model.instance import Phase
from sysd.model.peers import Peer
from sysd.model.schema import Key, Schema
from sysd.model.values import anything, boolean, integer

DEFAULT_NETWORK = "syscontbr0"
BRIDGE, MACVLAN, OVN, PHYSICAL, SRIOV = "bridge", "macvlan", "ovn", "physical", "sriov"
ZONE_KEYS = ("dns.zone.forward", "dns.zone.reverse.ipv4", "dns.zone.reverse.ipv6")
MADE_LINK = "volatile.link.created"
"""Whether the link with the VLAN's tag is of our own making."""

_OVN = "OVN networks can do without it, or have not got it yet"
_PARENT = (
    Key("parent", addresses.link, "", "Link of the host that interfaces are made of; has to be set."),
    Key("mtu", integer(68, 65535), "", "Largest packet of instances' interfaces, in bytes; the parent's when not set."),
    Key("vlan", integer(1, 4094), "", "The VLAN to be in: of a link PARENT.VLAN, made when it is not there."),
    Key("gvrp", boolean, "false", "Whether the switch is told of the VLAN (GARP VLAN Registration Protocol)."),
    Key("maas.subnet.ipv4", anything, "", "", refused="MAAS is not spoken to"),
    Key("maas.subnet.ipv6", anything, "", "", refused="MAAS is not spoken to"),
    Key(MADE_LINK, boolean, "false", "Whether the link with the VLAN's tag was made by syscontd.", internal=True),
    bridge.USER,
)
_UPLINK = (
    *(Key(f"ipv{version}.gateway", addresses.interface(version), "", "Router by which OVN networks reach the world, "
          "with the length of the subnet's prefix.", live=True) for version in (4, 6)),
    *map(bridge.ovn_ranges, (4, 6)),
    Key("dns.nameservers", addresses.addresses, "", "Whom guests in OVN networks ask for names, with commas between.",
        live=True),
    *(Key(f"ipv{version}.routes", addresses.subnets(version), "", "Networks, with commas between, of which interfaces "
          f"in OVN networks may have some there (ipv{version}.routes.external).", live=True) for version in (4, 6)),
    *(
        Key(name, anything, "", "", refused=_OVN)
        for name in (
            "ipv4.routes.anycast", "ipv6.routes.anycast", "ovn.ingress_mode",
            "bgp.peers.*",
        )
    ),
)  # fmt: skip
_CARD = (
    Key("parent", addresses.link, "", "Link of a card whose virtual functions interfaces are; has to be set."),
    Key("mtu", integer(68, 65535), "", "Largest packet of containers' interfaces, in bytes; the card's when not set."),
    Key("vlan", integer(1, 4094), "", "The VLAN that the card puts interfaces in, which know nothing of it."),
    *(key for key in _PARENT if key.name.startswith("maas.")),
    bridge.USER,
)
def _check_parent(config: Mapping[str, str]) -> None:
    if "parent" not in config:
        raise InvalidError("parent is missing", "the link of the host that interfaces are made of")
    if "vlan" in config:
        addresses.link(vlan_link(config))
    elif "gvrp" in config:
        raise InvalidError("gvrp: it is about a vlan", "set vlan")


def _check_physical(config: Mapping[str, str]) -> None:
    _check_parent(config)
    for version in (4, 6):
        if text := config.get(f"ipv{version}.gateway"):
            bridge.check_ovn_ranges(config, addresses.interface(version)(text))
        elif f"ipv{version}.ovn.ranges" in config:
            raise InvalidError(f"ipv{version}.ovn.ranges: whose subnet is it?", f"set ipv{version}.gateway")


def _check_card(config: Mapping[str, str]) -> None:
    if "parent" not in config:
        raise InvalidError("parent is missing", "the link of a network card with SR-IOV")


def vlan_link(config: Mapping[str, str]) -> str:
    """Name of the link with the VLAN's tag, as LXD names it."""
    return f"{config['parent']}.{config['vlan']}"


@dataclass(frozen=True, slots=True)
class Type:
    """keys, and what they must be together."""

    keys: tuple[Key, ...]
    check: Callable[[Mapping[str, str]], None]


TYPES = {
    BRIDGE: Type(bridge.KEYS, bridge.check),
    MACVLAN: Type(_PARENT, _check_parent),
    OVN: Type(ovn.KEYS, ovn.check),
    PHYSICAL: Type((*_PARENT[:-1], *_UPLINK, _PARENT[-1]), _check_physical),
    SRIOV: Type(_CARD, _check_card),
}
_HINT = "see 'syscont network keys'"
SCHEMAS = {name: Schema(kind.keys, f"{name} network", _HINT) for name, kind in TYPES.items()}
KEYS = tuple({key.name: key for kind in reversed(TYPES.values()) for key in kind.keys}.values())
SCHEMA = Schema(KEYS, "network", _HINT)
"""Of all types together, for who does not know which it is."""


@dataclass(frozen=True, slots=True)
class Network:
    """What the store remembers. The address of a bridge is never ``auto`` here: it was chosen."""

    name: str
    type: str = BRIDGE
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    phase: Phase = Phase.READY
    forwards: list[dict[str, Any]] = field(default_factory=list)
    peers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def forwarded(self) -> list[Forward]:
        return [Forward(**each) for each in self.forwards]

    @property
    def peered(self) -> list[Peer]:
        return [Peer(**each) for each in self.peers]

    @property
    def is_bridge(self) -> bool:
        return self.type == BRIDGE

    @property
    def is_ovn(self) -> bool:
        return self.type == OVN

    @property
    def has_subnets(self) -> bool:
        """Whether it is a network of its own, of ours: others are only ways to one."""
        return self.type in (BRIDGE, OVN)

    def text(self, key: str) -> str:
        """The value of a key, its default when it is not set."""
        return SCHEMAS[self.type].text(self.config, key)

    def flag(self, key: str) -> bool:
        return boolean(self.text(key))

    def address(self, version: int) -> Interface | None:
        """That of its bridge or router, with the length of the subnet's prefix."""
        return bridge.own_address(self.config, version) if self.has_subnets else None

    def subnet(self, version: int) -> Subnet | None:
        own = self.address(version)
        return own.network if own else None

    @property
    def ipv4(self) -> str:
        return str(self.address(4) or "")

    @property
    def ipv6(self) -> str:
        return str(self.address(6) or "")

    @property
    def domain(self) -> str:
        """In which instances have names; empty where they have none."""
        if self.is_bridge and self.text("dns.mode") == "none":
            return ""
        return self.text("dns.domain") if self.has_subnets else ""

    @property
    def searched(self) -> list[str]:
        """More domains in which guests look for names."""
        return addresses.domains(self.text("dns.search")) if self.has_subnets else []

    @property
    def acls(self) -> list[str]:
        """Names of those that hold in it."""
        return acls.names(self.text("security.acls")) if self.has_subnets else []

    def zones_of(self, key: str) -> list[str]:
        """Names of the zones that a key names, as these are remembered."""
        return addresses.domains(self.text(key)) if self.has_subnets else []

    @property
    def zones(self) -> set[str]:
        return {zone for key in ZONE_KEYS for zone in self.zones_of(key)}

    @property
    def link(self) -> str:
        """The link of the host's that interfaces are ports of, or made of."""
        if self.has_subnets:
            return self.name
        return vlan_link(self.config) if "vlan" in self.config and self.type != SRIOV else self.config["parent"]

    @property
    def vlan(self) -> int:
        """That a card puts interfaces in; 0 for none."""
        return int(self.config.get("vlan", "0")) if self.type == SRIOV else 0

    @property
    def mtu(self) -> int:
        """Of instances' interfaces; 0 for that of the link."""
        if self.is_ovn:
            return int(self.text("bridge.mtu"))
        if not self.is_bridge:
            return int(self.config.get("mtu", "0"))
        own = bridge.mtu(self.config)
        return own if own != bridge.ETHERNET_MTU else 0

    def leases(self, version: int) -> bool:
        """Whether addresses are leased, so that an interface can have one of its own."""
        own = self.address(version)
        if not own or not self.flag(f"ipv{version}.dhcp"):
            return False
        return version == 4 or self.flag("ipv6.dhcp.stateful")


def check_type(kind: str) -> str:
    if kind not in TYPES:
        raise InvalidError(f"unknown type of network {kind[:80]!r}", f"one of {', '.join(TYPES)}")
    return kind


def check_network(network: Network, config: Mapping[str, str]) -> dict[str, str]:
    """A checked copy of config for a network; what the daemon keeps there stays. Raises InvalidError or
    UnsupportedError."""
    schema = SCHEMAS[network.type]
    kept = {key: value for key, value in network.config.items() if schema.find(key).internal}
    checked = kept | schema.check(config)
    TYPES[network.type].check(checked)
    return checked
