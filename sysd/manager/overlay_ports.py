# SPDX-License-Identifier: Apache-2.0
"""Ports of instances in networks of OVN: what its databases and the local Open vSwitch have of them, as far as we know,
and what they are to have. With hundreds of them, what has not changed is not looked at."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sysd.manager.hosts import Port, named_once
from sysd.model.acls import names
from sysd.model.addresses import Address, Subnet
from sysd.model.devices import nic
from sysd.model.devices.nic import ACLS, RULES
from sysd.model.network import Network
from sysd.model.values import boolean
from sysd.network.ovn import chassis, ports
from sysd.network.ovn.chassis import Chassis
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.values import Defaults, OvnNetwork, OvnPort

PortsOf = Callable[[str], list[Port]]
Known = Mapping[str, tuple[Address, ...]]
"""Addresses that OVN has given, by port."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A port, and what it was made of."""

    network: Network
    options: Mapping[str, str]
    rest: tuple[object, ...]
    port: OvnPort


@dataclass(slots=True)
class _Of:
    """A network's ports, links of the host's by their names, and where these are; None where it is not known."""

    has: dict[str, OvnPort] | None = None
    plugged: dict[str, str] | None = None
    bridge: str = ""
    made: dict[str, _Made] = field(default_factory=dict)


class OverlayPorts:
    def __init__(self, ports_of: PortsOf, switch: Chassis) -> None:
        self._ports_of = ports_of
        self._switch = switch
        self._networks: dict[str, _Of] = {}

    def forget(self, uuid: str) -> None:
        """What a network has."""
        self._networks.pop(uuid, None)

    def has(self, uuid: str) -> dict[str, OvnPort] | None:
        """What the database has of a network, as far as we know; None when it was not asked yet, or the local Open
        vSwitch did not take all of it."""
        of = self._of(uuid)
        return of.has if of.plugged is not None else None

    def _of(self, uuid: str) -> _Of:
        return self._networks.setdefault(uuid, _Of())

    def wanted(self, network: Network, uuid: str, known: Known) -> dict[str, OvnPort]:
        """By id, all that a network is to have."""
        there = self._ports_of(network.name)
        hostnames = named_once({port.hwaddr: port.instance for port in there}) if network.domain else {}
        before, made = self._of(uuid).made, dict[str, _Made]()
        for port in there:
            name, hwaddr = id_of(port), port.hwaddr
            rest = hwaddr, hostnames.get(hwaddr, ""), () if port.kept else known.get(name, ())
            had = before.get(name)
            if had is None or had.network is not network or had.options is not port.options or had.rest != rest:
                had = _Made(network, port.options, rest, _port(name, network, port, *rest))
            made[name] = had
        self._of(uuid).made = made
        return {name: each.port for name, each in made.items()}

    def known(self, uuid: str) -> Known:
        """As far as we know."""
        return {name: each.known for name, each in (self.has(uuid) or {}).items()}

    async def learned(self, north: Northbound, uuid: str) -> Known:
        """The same, with what OVN has given since. Raises FailedError."""
        missing = [name for name, each in (self.has(uuid) or {}).items() if not each.known and not each.addresses]
        return {**self.known(uuid), **await ports.given(north, uuid, missing)}

    async def set_all(self, north: Northbound, network: Network, described: OvnNetwork, where: str) -> None:
        """Also what it is known to have, which somebody may have changed. Raises FailedError."""
        uuid = described.uuid
        there = {each.id: each for each in await ports.ports_of(north, uuid)}
        wanted = self.wanted(network, uuid, {name: one.addresses for name, one in there.items()})
        await self._set(north, described, wanted, there.keys() - wanted.keys(), list(wanted.values()))
        plugged = {each.link: each for each in await chassis.attached(self._switch)}
        own = {link: each.iface_id for link, each in plugged.items() if each.network == uuid and each.bridge == where}
        elsewhere = {link for link, each in plugged.items() if each.network == uuid and each.bridge != where}
        await self._plug(network, uuid, where, own | dict.fromkeys(elsewhere, ""))

    async def set_changed(
        self, north: Northbound, network: Network, described: OvnNetwork, where: str, known: Known
    ) -> None:
        """What is other than it is known to be. Raises FailedError."""
        uuid = described.uuid
        of = self._of(uuid)
        has, plugged, wanted = of.has or {}, of.plugged or {}, self.wanted(network, uuid, known)
        changed = [each for name, each in wanted.items() if has.get(name) != each]
        await self._set(north, described, wanted, has.keys() - wanted.keys(), changed)
        await self._plug(network, uuid, where, plugged if of.bridge == where else dict.fromkeys(plugged, ""))

    async def _set(
        self, north: Northbound, described: OvnNetwork, wanted: dict[str, OvnPort], gone: set[str], new: list[OvnPort]
    ) -> None:
        for name in gone:
            await ports.remove_port(north, described.uuid, name)
        if new:
            await ports.add_ports(north, described, new)
        of = self._of(described.uuid)
        if of.has != wanted:
            of.plugged = None
        of.has = wanted

    async def _plug(self, network: Network, uuid: str, where: str, there: dict[str, str]) -> None:
        """Have Open vSwitch take the hosts' ends of guests' interfaces, when they are there. there: those it has, and
        as what."""
        of = self._of(uuid)
        of.plugged = None
        wanted = {port.host_name: ports.iface_id(uuid, id_of(port)) for port in self._ports_of(network.name)}
        for link in there.keys() - wanted.keys():
            await chassis.detach(self._switch, link, network=uuid)
        for link, iface_id in wanted.items():
            if there.get(link) != iface_id:
                await chassis.attach(self._switch, link, network=uuid, iface_id=iface_id, bridge=where)
        of.plugged, of.bridge = wanted, where


def _port(
    name: str, network: Network, port: Port, hwaddr: str, hostname: str, known: tuple[Address, ...]
) -> OvnPort:
    return OvnPort(
        name,
        hwaddr,
        port.kept,
        known,
        hostname=hostname,
        acls=tuple(dict.fromkeys((*network.acls, *names(port.options.get(ACLS, ""))))),
        routes=nic.routes(port.options),
        published=nic.published(port.options),
        defaults=defaults(network, port.options) if RULES & port.options.keys() else None,
        privacy=True,
    )


def defaults(network: Network, options: Mapping[str, str]) -> Defaults:
    """options: of an interface, which come first."""

    def said(what: str) -> str:
        return options.get(f"{ACLS}.default.{what}") or network.text(f"{ACLS}.default.{what}")

    return Defaults(
        said("ingress.action"), said("egress.action"), boolean(said("ingress.logged")), boolean(said("egress.logged"))
    )


def behind(found: Mapping[str, OvnPort]) -> set[Subnet]:
    """What is reached through ports."""
    with_some = (port for port in found.values() if port.routes or port.published)
    return {to for port in with_some for to in (*port.routes, *port.published)}


def id_of(port: Port) -> str:
    return f"{port.instance.uuid}.{zlib.crc32(port.device.encode()):08x}"
