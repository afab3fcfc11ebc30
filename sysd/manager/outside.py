# SPDX-License-Identifier: Apache-2.0
"""Where networks of OVN are linked to: what their uplinks set apart for them, and what each has of that."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sysd.model import addresses, ovn
from sysd.model.addresses import SLAAC_LENGTH, Address, Interface, eui64
from sysd.model.errors import BusyError, FailedError, InvalidError, NotFoundError
from sysd.model.network import BRIDGE, PHYSICAL, Network
from sysd.network.links import random_mac


@dataclass(frozen=True, slots=True)
class Outside:
    """An uplink, and the network's router there: its addresses with the subnets' prefixes, the ways out, and whom its
    guests ask for names."""

    uplink: Network
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    nameservers: tuple[Address, ...]


def uplink_of(network: Network, networks: Iterable[Network]) -> Network | None:
    """None for a network that leads nowhere. Raises NotFoundError or InvalidError for one that can't be an uplink."""
    name = network.config.get("network", ovn.NO_UPLINK)
    if name == ovn.NO_UPLINK:
        return None
    found = next((each for each in networks if each.name == name), None)
    if found is None:
        raise NotFoundError(f"network: no network {name!r}", "'syscont network list' shows what there is")
    if found.type not in (BRIDGE, PHYSICAL):
        raise InvalidError(f"network: {name} is of type {found.type}", f"an uplink is of type {BRIDGE} or {PHYSICAL}")
    if not any(apart(found, version) for version in (4, 6)):
        hint = f"syscont network set {name} ipv4.ovn.ranges=FIRST-LAST"
        raise InvalidError(f"network: {name} sets no addresses apart for OVN networks", hint)
    return found


def kept(network: Network, config: Mapping[str, str], others: Iterable[Network]) -> dict[str, str]:
    """What the daemon keeps of a network of OVN which is to have config: as it was as far as it still fits. others: all
    that there are."""
    others = list(others)
    wanted = Network(network.name, network.type, config=dict(config))
    found = {
        ovn.UUID: network.config.get(ovn.UUID) or str(uuid.uuid4()),
        ovn.HWADDR: network.config.get(ovn.HWADDR) or random_mac(),
    }
    uplink = uplink_of(wanted, others)
    for version in (4, 6):
        way = router(uplink, version) if uplink and wanted.address(version) else None
        mac = config.get("bridge.hwaddr") or found[ovn.HWADDR]
        if uplink and way and (apart(uplink, version) or _made_up(way, mac)):
            key = ovn.outside_key(version)
            found[key] = _choose(uplink, version, network.config.get(key, ""), mac, others, network.name)
    return found


def outside(network: Network, networks: Iterable[Network]) -> Outside | None:
    """What is kept of it, read. None for a network that leads nowhere."""
    uplink = uplink_of(network, networks)
    if uplink is None:
        return None
    own, ways = [], []
    for version in (4, 6):
        way, address = router(uplink, version), network.config.get(ovn.outside_key(version))
        if way and address:
            own.append(ipaddress.ip_interface(f"{address}/{way.network.prefixlen}"))
            ways.append(way.ip)
    return Outside(uplink, tuple(own), tuple(ways), tuple(_nameservers(uplink, ways)))


def linked_to(uplink: str, networks: Iterable[Network]) -> list[Network]:
    """Networks of OVN that are linked to an uplink."""
    return [each for each in networks if each.is_ovn and each.config.get("network") == uplink]


def check_uplink(uplink: Network, networks: Iterable[Network]) -> None:
    """Raise BusyError unless an uplink that has changed still has what those linked to it have of it."""
    for network in linked_to(uplink.name, networks):
        for version in (4, 6):
            text = network.config.get(ovn.outside_key(version))
            if text and not _fits(uplink, version, ipaddress.ip_address(text), _mac(network)):
                why = f"network {network.name} of OVN has {text} of {uplink.name}"
                raise BusyError(why, f"leave it in ipv{version}.ovn.ranges, and in the subnet")


def check_forwards(network: Network, networks: Iterable[Network]) -> None:
    """Raise InvalidError unless all that a network of OVN forwards comes for an address that is set apart for it."""
    networks = list(networks)
    uplink = uplink_of(network, networks)
    for forward in network.forwarded:
        what, address = f"the forward of {forward.listen}", ipaddress.ip_address(forward.listen)
        if uplink is None:
            raise InvalidError(f"{what}: network {network.name} leads nowhere", "set network")
        if not _is_among(address, apart(uplink, address.version)):
            raise InvalidError(f"{what}: network {uplink.name} does not set it apart", "see its ipv4.ovn.ranges")
        for other in linked_to(uplink.name, networks):
            if other.config.get(ovn.outside_key(address.version)) == forward.listen:
                raise InvalidError(f"{what}: it is the router's of network {other.name}")


def _mac(network: Network) -> str:
    return network.text("bridge.hwaddr") or network.config.get(ovn.HWADDR, "")


def router(uplink: Network, version: int) -> Interface | None:
    """The way out of it."""
    if uplink.is_bridge:
        return uplink.address(version)
    text = uplink.config.get(f"ipv{version}.gateway")
    return addresses.interface(version)(text) if text else None


def apart(uplink: Network, version: int) -> list[tuple[Address, Address]]:
    """What it sets apart for networks of OVN."""
    return addresses.ranges(version)(uplink.config.get(f"ipv{version}.ovn.ranges", ""))


def _nameservers(uplink: Network, ways: list[Address]) -> Iterator[Address]:
    """A bridge's own dnsmasq; of others those that are said."""
    if uplink.is_bridge:
        yield from ways
    else:
        yield from addresses.addresses(uplink.text("dns.nameservers"))


def _fits(uplink: Network, version: int, address: Address, mac: str) -> bool:
    way = router(uplink, version)
    if way is None or address not in way.network:
        return False
    return _is_among(address, apart(uplink, version)) or address == _made_up(way, mac)


def _is_among(address: Address, found: list[tuple[Address, Address]]) -> bool:
    return any(int(first) <= int(address) <= int(last) for first, last in found)


def _made_up(way: Interface, mac: str) -> Address | None:
    """Of IPv6, what its router makes up for itself, as any host there would."""
    network = way.network
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen == SLAAC_LENGTH:
        return eui64(network, mac)
    return None


def _choose(uplink: Network, version: int, before: str, mac: str, others: list[Network], name: str) -> str:
    key = ovn.outside_key(version)
    linked = linked_to(uplink.name, others)
    taken = {each.config.get(key) for each in linked if each.name != name}
    taken |= {forward.listen for each in linked for forward in each.forwarded}
    way = router(uplink, version)
    assert way
    made_up = None if apart(uplink, version) else _made_up(way, mac)
    if made_up:
        return str(made_up)
    if before and before not in taken and _fits(uplink, version, ipaddress.ip_address(before), mac):
        return before
    for first, last in apart(uplink, version):
        for number in range(int(first), int(last) + 1):
            if (found := str(type(first)(number))) not in taken:
                return found
    raise FailedError(f"network {uplink.name} has no IPv{version} address left", f"add some to ipv{version}.ovn.ranges")
