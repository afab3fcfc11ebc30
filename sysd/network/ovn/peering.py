# SPDX-License-Identifier: Apache-2.0
"""Two networks of OVN's that reach each other without leaving it: their routers have ports that are each other's peer.

Each router knows the way to what the other has, and no more: nothing passes through one network to a third, and nobody
comes in with an address that is not of where he comes from. As in LXD, but that networks that overlap are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from sysd.model.addresses import Subnet, overlap
from sysd.model.errors import InvalidError
from sysd.network.ovn.northbound import Northbound, name, short
from sysd.network.ovn.rows import PEER, Columns, Owner, Row, View, settle
from sysd.network.ovn.topology import DROP, ROUTER
from sysd.network.ovn.values import OvnNetwork


@dataclass(frozen=True, slots=True)
class Peer:
    """A side. routes: subnets behind guests of it, which the other side is to reach, too."""

    network: OvnNetwork
    routes: tuple[Subnet, ...] = ()

    @property
    def subnets(self) -> list[Subnet]:
        return [*self.network.subnets, *self.routes]


async def ensure_peering(north: Northbound, one: Peer, other: Peer, *, settled: bool = False) -> bool:
    """Let two networks reach each other; whether anything had to change. Raises InvalidError when an address could mean
    either, or someone whom one of them reaches already."""
    _check(one, other)
    sides = [(mine, theirs, list(_side(mine, theirs))) for mine, theirs in ((one, other), (other, one))]

    def work(view: View) -> None:
        for mine, theirs, rows in sides:
            _check_others(view, mine, theirs)
            settle(view, _owner(mine.network.uuid, theirs.network.uuid), rows)

    return await north.change(work, settled=settled)


async def remove_peering(north: Northbound, one: str, other: str, *, settled: bool = False) -> bool:
    """By their UUIDs; whether there was anything."""

    def work(view: View) -> None:
        settle(view, _owner(one, other), ())
        settle(view, _owner(other, one), ())

    return await north.change(work, settled=settled)


async def peers_of(north: Northbound, network: str) -> list[str]:
    """UUIDs of those that a network reaches."""
    parts = await north.read(lambda view: [owner.part for owner in view.parts(network)])
    return [part.removeprefix(PEER) for part in parts if part.startswith(PEER)]


def _owner(mine: str, theirs: str) -> Owner:
    return Owner(mine, f"{PEER}{theirs}")


def _check(one: Peer, other: Peer) -> None:
    if one.network.uuid == other.network.uuid:
        raise InvalidError(f"network {one.network.name} can't be its own peer")
    for mine in one.subnets:
        for theirs in other.subnets:
            if overlap(mine, theirs):
                both = f"{one.network.name} has {mine}, {other.network.name} has {theirs}"
                raise InvalidError(f"networks that overlap can't be peers: {both}", "give one of them another subnet")


def _check_others(view: View, mine: Peer, theirs: Peer) -> None:
    own = f"{PEER}{theirs.network.uuid}"
    for owner in view.parts(mine.network.uuid):
        if owner.part.startswith(PEER) and owner.part != own:
            for (table, _), found in view.owned(owner).items():
                for prefix in (row.ip_prefix for row in found if table == "Logical_Router_Static_Route"):
                    _check_route(prefix, mine, theirs)


def _check_route(prefix: str, mine: Peer, theirs: Peer) -> None:
    try:
        other = ip_network(prefix, strict=False)
    except ValueError:  # somebody wrote it there, and it is put right with what it belongs to
        return
    for subnet in theirs.subnets:
        if overlap(other, subnet):
            raise InvalidError(
                f"network {mine.network.name} reaches {prefix} by another peer, and {theirs.network.name} has {subnet}",
                "one of the two peerings has to go",
            )


def _side(mine: Peer, theirs: Peer) -> Iterator[Row]:
    own, other = mine.network, theirs.network
    port = name(own.uuid, "lr-peer", short(other.uuid))
    columns: Columns = {
        "name": port, "mac": own.mac, "peer": name(other.uuid, "lr-peer", short(own.uuid)),
        # The router alone: what is behind it is reached by routes.
        "networks": tuple(f"{each.ip}/{each.max_prefixlen}" for each in own.addresses),
    }  # fmt: skip
    yield Row("Logical_Router_Port", "port", columns, (ROUTER,))
    for subnet in theirs.subnets:
        if (hop := other.address(subnet.version)) and own.address(subnet.version):
            way: Columns = {"ip_prefix": str(subnet), "nexthop": str(hop.ip), "output_port": port}
            yield Row("Logical_Router_Static_Route", f"route/{subnet}", way, (ROUTER,))
    yield from _policies(mine, theirs, port)


def _policies(mine: Peer, theirs: Peer, port: str) -> Iterator[Row]:
    for version in (4, 6):
        source = f"ip{version}.src"
        ours, others = _of(mine, version), _of(theirs, version)
        dropped = {
            "stranger": f'inport == "{port}" && {f"{source} != {others}" if others else f"ip{version}"}',
            "transit": f'outport == "{port}" && {f"{source} != {ours}" if ours else f"ip{version}"}',
        }
        if others and mine.network.uplink:
            dropped["outsider"] = f'inport == "{name(mine.network.uuid, "lr-ext")}" && {source} == {others}'
        for key, match in dropped.items():
            policy: Columns = {"priority": DROP, "match": match, "action": "drop"}
            yield Row("Logical_Router_Policy", f"{key}{version}", policy, (ROUTER,))


def _of(side: Peer, version: int) -> str:
    found = [str(subnet) for subnet in side.subnets if subnet.version == version]
    return f"{{{', '.join(found)}}}" if found else ""
