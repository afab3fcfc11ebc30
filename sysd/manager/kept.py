# SPDX-License-Identifier: Apache-2.0
"""What interfaces keep: hardware addresses and names that were made up, and where an interface may send by its own
address only and nobody says which, that address, as LXD chooses it (security.ipv4_filtering and its kin)."""

from __future__ import annotations

import ipaddress
import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from sysd.manager.catalog import Catalog, Lookup
from sysd.manager.hosts import Port, ports
from sysd.manager.interfaces import remember_interfaces
from sysd.manager.register import Register
from sysd.manager.table import Table
from sysd.model.addresses import SLAAC_LENGTH, Address, eui64, ranges
from sysd.model.devices.nic import IP_FILTERING, chosen_key
from sysd.model.errors import FailedError, InvalidError
from sysd.model.instance import Instance
from sysd.model.network import Network
from sysd.model.values import boolean
from sysd.network import dnsmasq, leases

MOST_TRIED = 1 << 16


class Kept:
    def __init__(self, table: Table, catalog: Catalog, register: Register) -> None:
        self._table = table
        self._catalog = catalog
        self._register = register

    def remember(self, instance: Instance, look: Lookup | None = None) -> Instance:
        """The instance, with what its interfaces are to keep. look: see Catalog.expand. Raises InvalidError for devices
        that collide, or that can't have what they need."""
        instance = remember_interfaces(instance, self._catalog.expand(instance, look))
        config = dict(instance.config)
        expanded = self._catalog.expand(instance, look)
        for name, options in expanded.devices.items():
            if options.get("type") == "nic" and options.get("network"):
                for version in IP_FILTERING:
                    self._choose(config, Port(expanded, name, options), version)
        return replace(instance, config=config) if config != instance.config else instance

    def renew(self, instances: Iterable[Instance]) -> None:
        """Addresses that were chosen, after the networks of instances have become others."""
        changed = [(instance, self.remember(instance)) for instance in instances]
        self._register.commit(tuple(now for before, now in changed if now != before))

    def _choose(self, config: dict[str, str], port: Port, version: int) -> None:
        """Put an address into config if one is needed, leave it if it serves, and take it out if there can be none."""
        key, said = chosen_key(port.device, version), port.options.get(f"ipv{version}.address", "")
        if not boolean(port.options.get(IP_FILTERING[version], "false")) or said != config.get(key, ""):
            return
        network = self._catalog.find_network(port.options["network"])
        if network is None or not network.address(version):
            config.pop(key, None)
            return
        if not network.leases(version) and not any(_by_itself(network, port, version)):
            needed = f"{port}: {IP_FILTERING[version]} needs ipv{version}.address"
            raise InvalidError(needed, f"network {network.name} leases none")
        taken = self._taken(network, port)
        if not said or not _serves(network, ipaddress.ip_address(said), taken):
            config[key] = str(_free(network, port, version, taken))

    def _taken(self, network: Network, port: Port) -> set[Address]:
        others = [self._table.expanded(one) for one in self._table.all() if one.uuid != port.instance.uuid]
        own = [one for one in ports([port.instance], network.name) if one.device != port.device]
        return {address for one in (*ports(others, network.name), *own) for address in one.kept}


def _serves(network: Network, address: Address, taken: Collection[Address]) -> bool:
    own = network.address(address.version)
    if not own or address not in own.network or address in taken:
        return False
    ends = (own.ip, own.network.network_address, *([own.network.broadcast_address] if own.version == 4 else []))
    return address not in ends


def _free(network: Network, port: Port, version: int, taken: Collection[Address]) -> Address:
    """That which it has now, or one that is nobody's. Raises FailedError."""
    leased = leases.read(dnsmasq.lease_file(network.name))
    mine = [one.address for one in leased if one.hwaddr == port.hwaddr and one.address.version == version]
    others = {one.address for one in leased if one.hwaddr != port.hwaddr}
    for address in itertools.chain(_by_itself(network, port, version), mine, _walk(network, port, version)):
        if address not in others and _serves(network, address, taken):
            return address
    raise FailedError(f"{port}: network {network.name} has no free IPv{version} address")


def _by_itself(network: Network, port: Port, version: int) -> Iterator[Address]:
    """What an interface makes up from its hardware address."""
    subnet = network.subnet(6)
    if version == 6 and isinstance(subnet, ipaddress.IPv6Network) and subnet.prefixlen == SLAAC_LENGTH:
        yield eui64(subnet, port.hwaddr)


def _walk(network: Network, port: Port, version: int) -> Iterator[Address]:
    """Those that its DHCP gives, from one on that is each interface's own."""
    subnet = network.subnet(version)
    assert subnet
    said = ranges(version)(network.text(f"ipv{version}.dhcp.ranges"))
    for first, last in said or [(subnet[0], subnet[-1])]:
        count = int(last) - int(first) + 1
        start = zlib.crc32(port.hwaddr.encode())
        for step in range(min(count, MOST_TRIED)):
            yield ipaddress.ip_address(int(first) + (start + step) % count)
