# SPDX-License-Identifier: Apache-2.0
"""Network interfaces: of a managed network, or of a kind (nictype) of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sysd.model import acls
from sysd.model.addresses import Address, Subnet, addresses, link, mac, subnets, words
from sysd.model.devices import boot
from sysd.model.errors import InvalidError
from sysd.model.names import check_interface_name, check_network_name
from sysd.model.schema import Key
from sysd.model.sizes import parse_bits
from sysd.model.values import anything, boolean, integer, one_of

NICTYPES = ("bridged", "p2p", "macvlan", "ipvlan", "routed", "physical", "sriov")
ISOLATION = "security.port_isolation"
MAC_FILTERING = "security.mac_filtering"
IP_FILTERING = {4: "security.ipv4_filtering", 6: "security.ipv6_filtering"}
ACLS = "security.acls"
ACCELERATION = "acceleration"
EXTERNAL = {4: "ipv4.routes.external", 6: "ipv6.routes.external"}
MAX_EXTERNAL = 64
"""Addresses in one network of these: the uplink is told of each."""
BRIDGES_VLAN = "1"
"""That a bridge puts its ports in by itself, and is in."""
LEAST_RATE = 8_000
"""Bits a second; with less not even what holds a link up gets through."""
LXD_ONLY = {"ovn": "name an OVN network instead"}

@dataclass(frozen=True, slots=True)
class Vlans:
    """Of a bridge's port. untagged: that of frames without a tag, 0 for none, None for the bridge's own. tagged: the
    first and the last of ranges."""

    untagged: int | None = None
    tagged: tuple[tuple[int, int], ...] = ()


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


def _rate(text: str) -> int:
    rate = parse_bits(text)
    if rate < LEAST_RATE:
        raise InvalidError(f"too slow: {text!r}", f"at least {LEAST_RATE // 1000}kbit")
    return rate


def _untagged(text: str) -> int:
    return 0 if text == "none" else _vlan(text)


def _tagged(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for word in words(text):
        first, dash, last = word.partition("-")
        found.append((_vlan(first), _vlan(last if dash else first)))
    if not found or any(first > last for first, last in found):
        raise InvalidError(f"not VLANs: {text[:80]!r}", "numbers and ranges, as in 10,20-29")
    return tuple(found)


def _external(version: int) -> Callable[[str], list[Subnet]]:
    def check(text: str) -> list[Subnet]:
        found = subnets(version)(text)
        if big := next((each for each in found if each.num_addresses > MAX_EXTERNAL), None):
            raise InvalidError(f"{big} is more than {MAX_EXTERNAL} addresses", "the uplink is told of each of them")
        return found

    return check


_vlan = integer(1, 4094)
_NETWORKS_HAVE_IT = "networks of type macvlan and physical have it"
_MAAS = "MAAS is not spoken to"
_ALL = frozenset(NICTYPES)
_VETH = frozenset({"bridged", "p2p", "routed"})
_STATIC = frozenset({"ipvlan", "routed"})
_OWN = _STATIC | {"bridged"}
_BRIDGED = frozenset({"bridged"})
_SWITCHED = _BRIDGED | {"sriov"}
_MAC_HELP = "Whether it can send by its own hardware address only."
_IP_HELP = "Whether it can send by one IPv{0} address only, that of ipv{0}.address or a chosen one, and by its hwaddr."
_AS_NETWORK = "When not set, its network says so."
_ROUTES_HELP = "Networks behind the instance that the host or its network's router has routes to, with commas between."
_EXTERNAL_HELP = ("Networks behind the instance that are there on the uplink of its network, which is one of OVN, by "
                  "addresses of the uplink's ipv{0}.routes; with commas between.")  # fmt: skip
_ADDRESS_HELP = "The guest's own addresses, with commas between; in a managed network one, which DHCP always gives it."

# Key, and the nictypes that have it.
_TABLE = (
    (Key("nictype", _nictype, "", "Kind of interface, when it is in no managed network."), _ALL),
    (Key("network", check_network_name, "", "Managed network that the interface is in."), _BRIDGED),
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
    (Key(ISOLATION, boolean, "false", "Whether it reaches nobody's interface that has this on, too."), _BRIDGED),
    (Key(MAC_FILTERING, boolean, "false", _MAC_HELP, live=True), _SWITCHED),
    *((Key(key, boolean, "false", _IP_HELP.format(v), live=True), _BRIDGED) for v, key in IP_FILTERING.items()),
    (Key("limits.ingress", _rate, "", "The most that it receives a second, as in 10Mbit.", live=True), _VETH),
    (Key("limits.egress", _rate, "", "The most that it sends a second, as in 10Mbit.", live=True), _VETH),
    (Key("limits.max", _rate, "", "Both limits in one.", live=True), _VETH),
    (Key("vlan", _untagged, "", "VLAN of what it sends without a tag; or none."), _SWITCHED),
    (Key("vlan.tagged", _tagged, "", "VLANs that it reaches by their tags, as in 10,20-29."), _BRIDGED),
    (Key(ACLS, acls.names, "", "ACLs that hold for it beside those of its network, which is one of OVN.", live=True),
     _BRIDGED),
    *((Key(f"{ACLS}.default.{way}.action", one_of(*acls.ACTIONS), "", f"What becomes of {way} that no rule is about. "
           + _AS_NETWORK, live=True), _BRIDGED) for way in acls.DIRECTIONS),
    *((Key(f"{ACLS}.default.{way}.logged", boolean, "", f"Whether {way} that no rule is about is logged. "
           + _AS_NETWORK, live=True), _BRIDGED) for way in acls.DIRECTIONS),
    (Key(ACCELERATION, one_of("none", "sriov"), "none", "sriov: in a network of OVN it is a virtual function of a "
         "card, whose switch does what Open vSwitch would."), _BRIDGED),
    (boot.PRIORITY, _ALL),
    (Key("ipv4.routes", subnets(4), "", _ROUTES_HELP), _VETH),
    (Key("ipv6.routes", subnets(6), "", _ROUTES_HELP), _VETH),
    *((Key(key, _external(v), "", _EXTERNAL_HELP.format(v), live=True), _BRIDGED) for v, key in EXTERNAL.items()),
    *(
        (Key(name, anything, "", "", refused=why), _ALL)
        for why, names in {
            _NETWORKS_HAVE_IT: ("gvrp",),
            "routes of other tables are not there yet": ("ipv4.host_table", "ipv6.host_table"),
            _MAAS: ("maas.subnet.ipv4", "maas.subnet.ipv6"),
        }.items()
        for name in names
    ),
)  # fmt: skip
OPTIONS = tuple(key for key, _ in _TABLE)
_FOR = {key.name: types for key, types in _TABLE}
RULES = tuple(name for name in _FOR if name.startswith(ACLS))
OVN_ONLY = (*RULES, *EXTERNAL.values(), ACCELERATION)
_ROUTES = ("ipv4.routes", "ipv6.routes", *EXTERNAL.values())
NOT_MANAGED = (*_ROUTES, "vlan", "vlan.tagged", "host_name", *RULES, ACCELERATION)
"""What is beyond the network that an interface is in, or would open what that closes: not for who may use managed
networks only."""
OF_BRIDGES = tuple(n for n, types in _FOR.items() if "bridged" in types and "macvlan" not in types and n != "network")
"""What an interface has in networks of type bridge, and not in those of other types."""
OF_OVN = ("ipv4.address", "ipv6.address", "ipv4.routes", "ipv6.routes", "host_name")
"""Of these, what it has in networks of OVN, too."""
OF_CARDS = (MAC_FILTERING,)
"""What of that it has in networks of type sriov, too."""


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
            hint = _NETWORKS_HAVE_IT if key == "vlan" else ""
            raise InvalidError(f"{key} is not for nictype {kind}", hint)
    if kind not in ("p2p", "routed") and not options.get("network") and not options.get("parent"):
        raise InvalidError("parent is missing", f"nictype {kind} needs a link of the host")
    if (rule := next((key for key in options if key in OVN_ONLY), "")) and not options.get("network"):
        raise InvalidError(f"{rule} is for interfaces in networks of OVN", "unset it, or set network")
    if "limits.max" in options and ("limits.ingress" in options or "limits.egress" in options):
        raise InvalidError("limits.max stands for limits.ingress and limits.egress", "unset it, or both of them")
    if kind == "bridged":
        _check_kept(options)
        _check_vlans(vlans(options))
        if "vlan.tagged" in options and filtered(options)[0]:
            raise InvalidError("vlan.tagged: filters do not look into what has a tag", "set only one of these")
    if kind == "ipvlan" and options.get("mode", "l3s") == "l3s":
        for key in ("ipv4.gateway", "ipv6.gateway"):
            if options.get(key, "auto") not in ("auto", "none"):
                raise InvalidError(f"{key}: an address is for mode l2", "auto or none")


def is_accelerated(options: Mapping[str, str]) -> bool:
    return options.get(ACCELERATION, "none") == "sriov"


def is_hardware(options: Mapping[str, str]) -> bool:
    """Whether the guest has something of a card's, by what the device itself says; its network may say so, too."""
    return nictype(options) in ("physical", "sriov") or is_accelerated(options)


def routes(options: Mapping[str, str]) -> tuple[Subnet, ...]:
    """Networks that are behind an instance's interface."""
    return tuple(one for version in (4, 6) for one in subnets(version)(options.get(f"ipv{version}.routes", "")))


def published(options: Mapping[str, str]) -> tuple[Subnet, ...]:
    """Those that its network's uplink is to know, too."""
    return tuple(one for version, key in EXTERNAL.items() for one in subnets(version)(options.get(key, "")))


def chosen_key(device: str, version: int) -> str:
    """Under which an instance keeps the address that was chosen for an interface."""
    return f"volatile.{device}.ipv{version}.address"


def with_chosen(device: str, options: Mapping[str, str], config: Mapping[str, str]) -> dict[str, str]:
    """An interface with the addresses that were chosen for it, if it has none of its own and needs them."""
    found = dict(options)
    for version, key in IP_FILTERING.items():
        address = config.get(chosen_key(device, version), "")
        if address and options.get("network") and boolean(options.get(key, "false")):
            found.setdefault(f"ipv{version}.address", address)
    return found


def vlans(options: Mapping[str, str]) -> Vlans:
    """In which an interface is."""
    untagged, tagged = options.get("vlan"), options.get("vlan.tagged")
    return Vlans(_untagged(untagged) if untagged else None, _tagged(tagged) if tagged else ())


def rates(options: Mapping[str, str]) -> tuple[int, int]:
    """Bits a second that an interface receives and sends at most; 0 for any number."""
    both = options.get("limits.max", "")
    found = (options.get(f"limits.{way}", both) for way in ("ingress", "egress"))
    ingress, egress = (parse_bits(text) if text else 0 for text in found)
    return ingress, egress


def filtered(options: Mapping[str, str]) -> tuple[bool, dict[int, tuple[Address, ...]]]:
    """Whether an interface may send by its own hardware address only, and by which addresses of the versions of IP for
    which that is said."""
    by_version = {
        version: tuple(addresses(options.get(f"ipv{version}.address", "")))
        for version, key in IP_FILTERING.items()
        if boolean(options.get(key, "false"))
    }
    return bool(by_version) or boolean(options.get(MAC_FILTERING, "false")), by_version


def _check_vlans(wanted: Vlans) -> None:
    untagged = int(BRIDGES_VLAN) if wanted.untagged is None else wanted.untagged
    if any(first <= untagged <= last for first, last in wanted.tagged):
        raise InvalidError(f"vlan.tagged: it is in VLAN {untagged} without a tag", "leave that out, or set vlan=none")


def _check_kept(options: Mapping[str, str]) -> None:
    elsewhere = options.get("vlan", BRIDGES_VLAN) != BRIDGES_VLAN
    for key in ("ipv4.address", "ipv6.address", "ipv4.routes", "ipv6.routes"):
        if key in options and not options.get("network") and not _only_filtered_by(key, options):
            raise InvalidError(f"{key} needs a managed network", "whose DHCP, and whose routes, syscont looks after")
        if key in options and elsewhere:
            raise InvalidError(f"{key}: the network itself is not in VLAN {options['vlan']}", "unset vlan, or it")
    for key in ("ipv4.address", "ipv6.address"):
        if len(addresses(options.get(key, ""))) > 1:
            raise InvalidError(f"{key}: DHCP gives one address only")
    for version, key in IP_FILTERING.items():
        if boolean(options.get(key, "false")) and not (options.get("network") or options.get(f"ipv{version}.address")):
            raise InvalidError(f"{key} needs ipv{version}.address", "the one address that the instance may send by")


def _only_filtered_by(key: str, options: Mapping[str, str]) -> bool:
    """Whether an address is there for who may send by it, wherever the instance has it from."""
    return any(
        key == f"ipv{version}.address" and boolean(options.get(filtering, "false"))
        for version, filtering in IP_FILTERING.items()
    )
