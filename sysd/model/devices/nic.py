# SPDX-License-Identifier: Apache-2.0
"""Network interfaces: of a managed network, or of a kind (nictype) of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from sysd.model.addresses import addresses, link, mac
from sysd.model.errors import InvalidError
from sysd.model.names import check_interface_name, check_network_name
from sysd.model.schema import Key
from sysd.model.values import anything, boolean, integer, one_of

NICTYPES = ("bridged", "p2p", "macvlan", "ipvlan", "routed", "physical")
ISOLATION = "security.port_isolation"
LXD_ONLY = {"sriov": "SR-IOV needs virtual functions that are not managed yet", "ovn": "name an OVN network instead"}

def _nictype(text: str) -> str:
    if reason := LXD_ONLY.get(text):
        raise InvalidError(f"nictype {text} is not offered", reason)
    return one_of(*NICTYPES)(text)


def _of_version(version: int, text: str) -> str:
    found = addresses(text)
    if not found or any(one.version != version for one in found):
        raise InvalidError(f"not IPv{version} addresses: {text[:80]!r}", "addresses with commas between them")
    return text


def _ipv4(text: str) -> str:
    return _of_version(4, text)


def _ipv6(text: str) -> str:
    return _of_version(6, text)


def _gateway(text: str) -> str:
    if text in ("auto", "none"):
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidError(f"not a gateway: {text[:80]!r}", "auto, none or, in mode l2, an address") from None


_FILTERS = "filters and limits of interfaces are not there yet"
_MAAS = "MAAS is not spoken to"
_ALL = frozenset(NICTYPES)
_VETH = frozenset({"bridged", "p2p", "routed"})
_STATIC = frozenset({"ipvlan", "routed"})
_OWN = _STATIC | {"bridged"}
_ADDRESS_HELP = "The guest's own addresses, with commas between; in a managed network one, which DHCP always gives it."

# Key, and the nictypes that have it.
_TABLE = (
    (Key("nictype", _nictype, "", "Kind of interface, when it is in no managed network."), _ALL),
    (Key("network", check_network_name, "", "Managed network that the interface is in."), frozenset({"bridged"})),
    (Key("parent", link, "", "Link of the host: a bridge, or what the interface is made of."), _ALL - {"p2p"}),
    (Key("name", check_interface_name, "", "Name of the interface in the guest."), _ALL),
    (Key("hwaddr", mac, "", "Hardware address; made up when it is not set."), _ALL - {"ipvlan"}),
    (Key("mtu", integer(68, 65535), "", "Largest packet, in bytes; the parent's when not set."), _ALL),
    (Key("host_name", link, "", "Name of the host's end; made up when it is not set."), _VETH),
    (Key("mode", one_of("l2", "l3s"), "l3s", "How packets are switched."), frozenset({"ipvlan"})),
    (Key("ipv4.address", _ipv4, "", _ADDRESS_HELP), _OWN),
    (Key("ipv6.address", _ipv6, "", _ADDRESS_HELP), _OWN),
    (Key("ipv4.gateway", _gateway, "auto", "auto: a default route; none; in mode l2 the router's address."), _STATIC),
    (Key("ipv6.gateway", _gateway, "auto", "auto: a default route; none; in mode l2 the router's address."), _STATIC),
    (Key("ipv4.host_address", _ipv4, "169.254.0.1", "The host's end, as the guest's router."), frozenset({"routed"})),
    (Key("ipv6.host_address", _ipv6, "fe80::1", "The host's end, as the guest's router."), frozenset({"routed"})),
    (
        Key(ISOLATION, boolean, "false", "Whether it reaches nobody's interface that has this on, too."),
        frozenset({"bridged"}),
    ),
    *(
        (Key(name, anything, "", "", refused=why), _ALL)
        for why, names in {
            _FILTERS: (
                "limits.ingress", "limits.egress", "limits.max", "security.mac_filtering", "security.ipv4_filtering",
                "security.ipv6_filtering", "ipv4.routes", "ipv6.routes",
                "ipv4.routes.external", "ipv6.routes.external", "ipv4.host_table", "ipv6.host_table", "vlan",
                "vlan.tagged", "gvrp",
            ),
            _MAAS: ("maas.subnet.ipv4", "maas.subnet.ipv6"),
            "it is for virtual machines": ("boot.priority",),
        }.items()
        for name in names
    ),
)  # fmt: skip
OPTIONS = tuple(key for key, _ in _TABLE)
_FOR = {key.name: types for key, types in _TABLE}


def nictype(options: Mapping[str, str]) -> str:
    """An interface of a managed network may be what a bridge's port may be; of networks of other types, see
    sysd.manager.hosts."""
    return "bridged" if options.get("network") else options.get("nictype", "")


def check(options: Mapping[str, str]) -> None:
    if options.get("network") and ("nictype" in options or "parent" in options):
        raise InvalidError("network says what kind of interface it is", "unset nictype and parent")
    kind = nictype(options)
    if not kind:
        raise InvalidError("network is missing", f"or nictype, one of {', '.join(NICTYPES)}")
    for key in options:
        if key in _FOR and kind not in _FOR[key]:
            raise InvalidError(f"{key} is not for nictype {kind}")
    if kind not in ("p2p", "routed") and not options.get("network") and not options.get("parent"):
        raise InvalidError("parent is missing", f"nictype {kind} needs a link of the host")
    if kind == "bridged":
        _check_kept(options)
    if kind == "ipvlan" and options.get("mode", "l3s") == "l3s":
        for key in ("ipv4.gateway", "ipv6.gateway"):
            if options.get(key, "auto") not in ("auto", "none"):
                raise InvalidError(f"{key}: an address is for mode l2", "auto or none")


def _check_kept(options: Mapping[str, str]) -> None:
    for key in ("ipv4.address", "ipv6.address"):
        if key in options and not options.get("network"):
            raise InvalidError(f"{key} needs a managed network", "whose DHCP gives the address")
        if len(addresses(options.get(key, ""))) > 1:
            raise InvalidError(f"{key}: DHCP gives one address only")
