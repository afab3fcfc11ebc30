# SPDX-License-Identifier: Apache-2.0
"""Who is in a network: names and kept addresses of all instances on it, and what these have to be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sysd.manager import subjects, subnets
from sysd.manager.table import Table
from sysd.model import acls
from sysd.model.acls import Acl
from sysd.model.addresses import Address, Subnet, addresses, eui64, overlap, ranges
from sysd.model.addresses import subnets as networks_in
from sysd.model.devices.nic import ACLS, EXTERNAL, OF_BRIDGES, OF_CARDS, OF_OVN, OVN_ONLY, published
from sysd.model.errors import InvalidError, NotFoundError
from sysd.model.instance import Instance, hardware_address, host_interface_name
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.network import SRIOV, Network
from sysd.network.dnsmasq import Host
from sysd.network.links import HostRoute

Look = Callable[[str], Network | None]
"""The network of a name."""
FindAcl = Callable[[str], Acl | None]
_KEPT = ("ipv4.address", "ipv6.address")


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of an expanded instance in a network: its device's name and options."""

    instance: Instance
    device: str
    options: Mapping[str, str]

    @property
    def hwaddr(self) -> str:
        return hardware_address(self.instance, self.device).lower()

    @property
    def host_name(self) -> str:
        """Of the host's end, should the instance run."""
        return host_interface_name(self.instance, self.device)

    @property
    def kept(self) -> tuple[Address, ...]:
        """The addresses that it is always to have."""
        return tuple(one for key in _KEPT for one in addresses(self.options.get(key, "")))

    def __str__(self) -> str:
        return f"device {self.device} of {self.instance.reference}"


def ports(instances: Iterable[Instance], network: str) -> Iterator[Port]:
    """All interfaces of expanded instances that are in a network."""
    return (port for port in all_ports(instances) if port.options.get("network") == network)


def all_ports(instances: Iterable[Instance]) -> Iterator[Port]:
    """All interfaces of expanded instances."""
    for instance in instances:
        for device, options in instance.devices.items():
            if options.get("type") == "nic":
                yield Port(instance, device, options)


def ports_of(table: Table) -> Callable[[str], list[Port]]:
    """What says of a network which interfaces are in it, of instances that run or not."""
    return lambda network: list(ports(map(table.expanded, table.all()), network))


def hosts(found: Iterable[Port]) -> dict[str, Host]:
    """Who has which hardware address."""
    by_hwaddr = {port.hwaddr: port for port in found}
    names = named_once({hwaddr: port.instance for hwaddr, port in by_hwaddr.items()})
    return {hwaddr: Host(names[hwaddr], port.kept) for hwaddr, port in by_hwaddr.items()}


def named_once(instances: Mapping[str, Instance]) -> dict[str, str]:
    """Names in DNS by hardware address. Instances of several projects may have one name: networks are the default
    project's, so its instance is known by it, else the one that was there first; the others have no name (empty)."""
    ranked = sorted(instances.values(), key=lambda i: (i.project != DEFAULT_PROJECT, i.created, i.uuid))
    owners: dict[str, str] = {}
    for instance in ranked:
        owners.setdefault(instance.name.lower(), instance.uuid)
    return {
        address: instance.name if owners[instance.name.lower()] == instance.uuid else ""
        for address, instance in instances.items()
    }


def check_devices(devices: Mapping[str, Mapping[str, str]], look: Look, find_acl: FindAcl = Acl) -> None:
    """Raise NotFoundError or InvalidError unless all interfaces are what the networks that they name can have."""
    for name, options in devices.items():
        if options.get("type") != "nic" or "network" not in options:
            continue
        network = look(options["network"])
        if network is None:
            hint = "'syscont network list' shows what there is"
            raise NotFoundError(f"device {name}: no network {options['network']!r}", hint)
        for key in OF_BRIDGES:
            if key in options and not _fits(network, key):
                raise InvalidError(f"device {name}: {key} is not for networks of type {network.type}")
        for acl in acls.names(options.get(ACLS, "")):
            _check_acl(f"device {name}", network, acl, find_acl(acl))
        if network.is_ovn and network.address(4) and "ipv6.address" in options and "ipv4.address" not in options:
            hint = "OVN gives the others of an interface to which it gives one"
            raise InvalidError(f"device {name}: ipv6.address needs ipv4.address, too", hint)


def _check_acl(what: str, network: Network, name: str, acl: Acl | None) -> None:
    if acl is None:
        raise NotFoundError(f"{what}: no ACL {name!r}", "make it first: syscont network acl create")
    try:
        subjects.check_fits(acl, network)
    except InvalidError as error:
        raise InvalidError(f"{what}: {error.message}", error.hint) from None


def _fits(network: Network, key: str) -> bool:
    """Whether what interfaces in bridges have is for those in a network, too."""
    if network.is_ovn:
        return key in OVN_ONLY or key in OF_OVN
    return (network.is_bridge and key not in OVN_ONLY) or (network.type == SRIOV and key in OF_CARDS)


def check_kept(network: Network, instances: Iterable[Instance], others: Iterable[Instance] = ()) -> None:
    """Raise InvalidError unless each of the addresses kept for expanded instances can be leased in the network, and to
    no other; not to any of others either, of which all else was looked at when they became what they are."""
    owners: dict[Address, Port] = {}
    for port in ports(instances, network.name):
        for address in port.kept:
            _check_address(network, port, address)
            if owner := owners.get(address):
                raise InvalidError(f"{port}: {address} is kept for another", f"for {owner}")
            owners[address] = port
    for port in ports(others, network.name):
        for address in port.kept:
            if wanting := owners.get(address):
                raise InvalidError(f"{wanting}: {address} is kept for another", f"for {port}")


def without_chosen(instance: Instance) -> Instance:
    """An expanded instance without addresses that were chosen for it, and may be others."""
    devices = {
        name: {
            key: value
            for key, value in options.items()
            if key not in _KEPT or value != instance.config.get(f"volatile.{name}.{key}")
        }
        for name, options in instance.devices.items()
    }
    return replace(instance, devices=devices)


def check_routes(
    instances: Iterable[Instance], others: Iterable[Instance], networks: Iterable[Network], host: Iterable[HostRoute]
) -> None:
    """Raise InvalidError unless what is behind the interfaces of expanded instances is nowhere else: not in a network,
    not where the host is itself or has a route to, and not behind another of these, or of any of others."""
    behind, elsewhere = list(_behind(instances)), list(_behind(others))
    for what, _, route in behind:
        if not route.prefixlen:
            raise InvalidError(f"{what} is everything", "name the networks that are behind the instance")
    check_networks_apart(networks, instances)
    for number, (what, _, route) in enumerate(behind):
        for known in host:
            if known.to == route or (known.direct and overlap(known.to, route)):
                raise InvalidError(f"{what} overlaps {known.to}", f"the host has it by {known.link}")
        for _, other, its in (*behind[:number], *elsewhere):
            if overlap(its, route):
                raise InvalidError(f"{what} overlaps {its}", f"which is behind {other}")


def check_networks_apart(networks: Iterable[Network], instances: Iterable[Instance]) -> None:
    """Raise InvalidError when something is in one of networks and behind an instance, too. What uplinks have is what
    those in networks of OVN get."""
    behind = list(_behind(instances))
    for network in networks if behind else ():
        for subnet in subnets.of(network):
            for what, port, route in behind:
                given = route in published(port.options) and subnet != network.subnet(subnet.version)
                if overlap(subnet, route) and not given:
                    raise InvalidError(f"{what} overlaps {subnet}", f"network {network.name} has it")


def _behind(instances: Iterable[Instance]) -> Iterator[tuple[str, Port, Subnet]]:
    """With what errors about it begin with."""
    for port in all_ports(instances):
        for version in (4, 6):
            for key in (f"ipv{version}.routes", EXTERNAL[version]):
                for route in networks_in(version)(port.options.get(key, "")):
                    yield f"{port}: {key}: {route}", port, route


def _check_address(network: Network, port: Port, address: Address) -> None:
    what, own = f"{port}: ipv{address.version}.address", network.address(address.version)
    if not own or address not in own.network:
        there = f"it has {own.network}" if own else f"it has no IPv{address.version}"
        raise InvalidError(f"{what}: {address} is not in network {network.name}", there)
    if address in (own.ip, own.network.network_address) or (
        address.version == 4 and address == own.network.broadcast_address
    ):
        raise InvalidError(f"{what}: {address} is not for guests of network {network.name}")
    apart = network.config.get(f"ipv{address.version}.ovn.ranges", "")
    if any(int(first) <= int(address) <= int(last) for first, last in ranges(address.version)(apart)):
        raise InvalidError(f"{what}: {address} is for routers of OVN networks", "see the network's ipv4.ovn.ranges")
    if not network.leases(address.version) and not _makes_up(own.network, port, address):
        key = "ipv6.dhcp.stateful=true" if address.version == 6 else "ipv4.dhcp=true"
        raise InvalidError(f"{what}: network {network.name} leases no addresses", f"it does with {key}")


def _makes_up(subnet: Subnet, port: Port, address: Address) -> bool:
    """Whether an interface comes by an address by itself (SLAAC)."""
    return isinstance(subnet, ipaddress.IPv6Network) and address == eui64(subnet, port.hwaddr)
