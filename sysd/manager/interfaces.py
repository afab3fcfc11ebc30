# SPDX-License-Identifier: Apache-2.0
"""Network interfaces of instances: what is remembered of them, and the requests that they are made by."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sysd.model.addresses import Address, addresses
from sysd.model.devices import nic as model
from sysd.model.devices.check import SCHEMAS, check_together
from sysd.model.devices.nic import Vlans
from sysd.model.errors import FailedError
from sysd.model.instance import Instance, Kind, hardware_address, host_interface_name, interface_name
from sysd.model.network import SRIOV
from sysd.network import links, nics
from sysd.network.filters import Source
from sysd.network.nics import GUEST, HOST, Nic, Step
from sysd.runtime.container import Links, Macvtap
from sysd.runtime.spec import HOST_NETNS_FD, NETNS_FD, Plugged
from sysd.runtime.sriov.loans import Wanted


@dataclass(frozen=True, slots=True)
class Uplink:
    """What interfaces in a managed network are made of: their nictype, the host's link by name and index (of cards it
    may be several, with commas between), and their largest packet if the network says it. vlan: that a card is to put
    them in, 0 for none."""

    kind: str
    link: str
    index: int
    mtu: int
    vlan: int = 0


FindUplink = Callable[[str, bool], Coroutine[Any, Any, Uplink]]
"""That of a managed network, which is up then; and whether the interface is to be accelerated."""

_NO_ADDRESS = ("ipvlan", "physical")
_BY_NAME = ("physical", SRIOV)
"""Made of a link that is looked for when it is needed."""
_HAS_HOST_END = ("bridged", "p2p", "routed")
_SCHEMA = SCHEMAS["nic"]


def names_of(devices: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [name for name, options in devices.items() if options.get("type") == "nic"]


def remember_interfaces(instance: Instance, expanded: Instance) -> Instance:
    """The instance, with what its network interfaces are to keep. Raises InvalidError for devices that collide."""
    check_together(expanded.devices)
    return replace(instance, config=instance.config | lacking(expanded))


def lacking(expanded: Instance) -> dict[str, str]:
    """volatile.* keys for what an instance's interfaces have not been given, hardware address and names, and keep."""
    made: dict[str, str] = {}
    interfaces = names_of(expanded.devices)
    used = {interface_name(expanded, name) for name in interfaces if _has(expanded, name, "name")}
    for name in interfaces:
        kind = model.nictype(expanded.devices[name])
        if kind not in _NO_ADDRESS and not _has(expanded, name, "hwaddr"):
            made[f"volatile.{name}.hwaddr"] = links.random_mac()
        if kind in _HAS_HOST_END and not _has_host_name(expanded, name, kind):
            made[f"volatile.{name}.host_name"] = links.random_host_name(port=kind == "bridged")
        if not _has(expanded, name, "name"):
            free = next(f"eth{number}" for number in range(len(interfaces) + 1) if f"eth{number}" not in used)
            made[f"volatile.{name}.name"] = free
            used.add(free)
    return made


def _has(instance: Instance, name: str, option: str) -> bool:
    return option in instance.devices[name] or f"volatile.{name}.{option}" in instance.config


def _has_host_name(expanded: Instance, name: str, kind: str) -> bool:
    """Whether it has one that fits: what was a bridge's port may have become something else."""
    kept = expanded.config.get(f"volatile.{name}.host_name", "")
    fits = kept.startswith(links.PORT_PREFIX if kind == "bridged" else links.END_PREFIX)
    return fits or "host_name" in expanded.devices[name]


async def links_of(instance: Instance, find_uplink: FindUplink) -> Links:
    """All of an expanded instance. Raises FailedError when a link of the host's that one needs is not there."""
    made: dict[str, Plugged] = {}
    mtus: dict[str, int] = {}
    macvtaps: dict[str, Macvtap] = {}
    lent: dict[str, str] = {}
    virtual: dict[str, Wanted] = {}
    put_back: list[Step] = []
    stays = False
    names, uplinks = names_of(instance.devices), dict[tuple[str, bool], Uplink]()

    async def find(network: str, accelerated: bool) -> Uplink:
        """Once for all interfaces in a network."""
        if (network, accelerated) not in uplinks:
            uplinks[network, accelerated] = await find_uplink(network, accelerated)
        return uplinks[network, accelerated]

    for name in names:
        nic = await _nic(instance, name, find)
        if nic.kind == SRIOV:
            virtual[name] = _virtual(instance, name, nic)
            nic = replace(nic, mac="", parent_name=virtual[name].name)
        mtus[name] = nic.mtu
        found = nics.requests(nic, NETNS_FD, HOST_NETNS_FD)
        made[name] = Plugged(list(found.plug), list(found.unplug), list(found.tune))
        if nic.tap and nic.kind == "physical":
            lent[name] = nic.parent_name
        elif found.macvtap:
            macvtaps[name] = Macvtap(nics.passing_name(nic), found.macvtap)
        else:
            put_back += nics.left_behind(nic, found)
            stays |= nics.would_stay(nic)
    steps = [step for each in made.values() for step in (*each.plug, *each.tune)]
    first = interface_name(instance, names[0]) if names else ""
    host = [request for side, request in steps if side == HOST]
    guest = [request for side, request in steps if side == GUEST]
    return Links(host, [*guest, *nics.guest_basics(first)], made, put_back, mtus, macvtaps, lent, virtual, stays)


def _virtual(instance: Instance, name: str, nic: Nic) -> Wanted:
    """The function that an interface is to be, known by all that it is to be; its card tells it its address."""
    options = instance.devices[name]
    filtered, port = model.filtered(options)[0], nic.host_name if model.is_accelerated(options) else ""
    # Which cards carry accelerated ones may change without these.
    card = port or nic.parent_name
    known = repr((instance.uuid, name, nic.name, card, nic.mac, nic.mtu, nic.vlans.untagged, filtered))
    passing = f"sc{zlib.crc32(known.encode()):08x}"
    return Wanted(nic.parent_name, nic.mac, nic.vlans.untagged or 0, filtered, passing, nic.tap, port)


async def _nic(instance: Instance, name: str, find_uplink: FindUplink) -> Nic:
    options = instance.devices[name]
    uplink = await _uplink(name, options, find_uplink)
    kind = uplink.kind
    if "host_name" in options and links.is_foreign(options["host_name"]):
        # What is left of an earlier run is deleted, and that would be.
        raise FailedError(f"device {name}: host_name: the host has a link {options['host_name']} that is another's")
    return Nic(
        kind=kind,
        name=interface_name(instance, name),
        host_name=host_interface_name(instance, name),
        mac=hardware_address(instance, name) if kind not in _NO_ADDRESS else options.get("hwaddr", ""),
        mtu=int(options.get("mtu", uplink.mtu)),
        parent=uplink.index,
        parent_name=uplink.link,
        mode=_SCHEMA.text(options, "mode"),
        addresses=_addresses(options, "ipv4.address", "ipv6.address"),
        routers=_routers(options),
        gateways={version: _SCHEMA.text(options, f"ipv{version}.gateway") for version in (4, 6)},
        isolated=kind == "bridged" and _SCHEMA.boolean(options, model.ISOLATION),
        vlans=_vlans(name, options, uplink),
        routes=model.routes(options) if kind in ("p2p", "routed") else (),
        ingress=model.rates(options)[0],
        tap=instance.kind is Kind.VM,
    )


def sources(instance: Instance) -> list[Source]:
    """The interfaces of an expanded instance that may not send whatever they like."""
    found = []
    for name in names_of(instance.devices):
        options = instance.devices[name]
        if model.nictype(options) == SRIOV:
            continue  # what it sends is its card's to look at
        by_mac, own = model.filtered(options)
        egress = model.rates(options)[1]
        if by_mac or egress or "host_name" in options:
            mac = hardware_address(instance, name) if by_mac else ""
            port = model.nictype(options) == "bridged"
            host_name, behind = host_interface_name(instance, name), model.routes(options)
            found.append(Source(host_name, port, mac.lower(), own, egress, behind))
    return found


async def _uplink(name: str, options: Mapping[str, str], find_uplink: FindUplink) -> Uplink:
    if network := options.get("network"):
        found = await find_uplink(network, model.is_accelerated(options))
        if not found.index and found.kind not in (*_BY_NAME, "ovn"):
            raise FailedError(f"device {name}: the host has no link {found.link}", f"network {network} is made of it")
        return found
    kind, parent = model.nictype(options), options.get("parent", "")
    if not parent or kind in _BY_NAME:
        return Uplink(kind, parent, 0, 0)
    index = links.interface_index(parent)
    if not index:
        raise FailedError(f"device {name}: the host has no link {parent}")
    if kind == "bridged" and not links.is_bridge(parent):
        raise FailedError(f"device {name}: {parent} is no bridge", "nictype=macvlan makes interfaces of other links")
    return Uplink(kind, parent, index, 0)


def _vlans(name: str, options: Mapping[str, str], uplink: Uplink) -> Vlans:
    if uplink.kind == SRIOV:
        return Vlans(uplink.vlan or model.vlans(options).untagged)
    found = model.vlans(options)
    if found != Vlans() and not links.tells_vlans_apart(uplink.index):
        hint = "its kernel cannot (CONFIG_BRIDGE_VLAN_FILTERING)"
        if not options.get("network"):
            hint = f"it does with 'ip link set {uplink.link} type bridge vlan_filtering 1', where the kernel can"
        raise FailedError(f"device {name}: bridge {uplink.link} does not tell VLANs apart", hint)
    return found


def _addresses(options: Mapping[str, str], *keys: str) -> tuple[Address, ...]:
    return tuple(one for key in keys for one in addresses(options.get(key, "")))


def _routers(options: Mapping[str, str]) -> tuple[Address, ...]:
    """Of the versions that the guest has an address of."""
    versions = {one.version for one in _addresses(options, "ipv4.address", "ipv6.address")}
    return tuple(ipaddress.ip_address(_SCHEMA.text(options, f"ipv{each}.host_address")) for each in sorted(versions))


