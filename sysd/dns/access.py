# SPDX-License-Identifier: Apache-2.0
"""The zones that are served, and to whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import dns.name

from sysd.dns import tsig
from sysd.dns.content import APEX, Content
from sysd.dns.lookup import DS, wire_labels
from sysd.dns.message import Query
from sysd.dns.tsig import Signer
from sysd.model.zones import Peer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """Says why; for the log only: clients are not to learn which zones there are."""


@dataclass(frozen=True, slots=True)
class Served:
    """A zone, by its name in wire form's labels, and who may ask for it."""

    name: str
    labels: tuple[bytes, ...]
    content: Content
    peers: Sequence[Peer]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a query may be answered from. owner: the question's name below the zone."""

    zone: Served
    owner: bytes
    signer: Signer | None


def labels_of(name: str) -> tuple[bytes, ...]:
    return tuple(label.encode() for label in name.split("."))


def key_name(zone: str, peer: str) -> dns.name.Name:
    """As LXD calls them: ``ZONE_PEER.``"""
    return dns.name.from_text(f"{zone}_{peer}.")


class Directory:
    def __init__(self) -> None:
        self._zones: dict[tuple[bytes, ...], Served] = {}

    def put(self, zone: Served) -> None:
        self._zones[zone.labels] = zone

    def drop(self, name: str) -> None:
        self._zones.pop(labels_of(name), None)

    def is_peer(self, address: Address) -> bool:
        """Whether any zone has a peer of this address."""
        return any(peer.network and address in peer.network for zone in self._zones.values() for peer in zone.peers)

    def grant(self, query: Query, address: Address) -> Grant:
        """Raises Refused."""
        zone, depth = self._find(query)
        if zone is None or zone.content.empty:
            raise Refused("there is no such zone")
        peer = _peer(zone, query, address)
        signer = None
        if query.signature and peer.secret:
            rdata = query.signature.rdata
            signer = Signer(query.signature.key, peer.secret, rdata.algorithm, rdata.mac)
        return Grant(zone, wire_labels(query.labels[:depth]) if depth else APEX, signer)

    def _find(self, query: Query) -> tuple[Served | None, int]:
        """The zone nearest to the question, and how many labels of that come before the zone's name."""
        # What a parent says of a child is the parent's (RFC 4035, section 3.1.4.1).
        first = 1 if query.kind == DS else 0
        for depth in (*range(first, len(query.labels)), *range(first)):
            if zone := self._zones.get(query.labels[depth:]):
                return zone, depth
        return None, 0


def _peer(zone: Served, query: Query, address: Address) -> Peer:
    """The first peer that a query can be from: of its address and with its key, where these are set."""
    why = f"{address} is no peer of zone {zone.name}"
    for peer in zone.peers:
        if peer.network and address not in peer.network:
            continue
        if peer.secret is None:
            if query.signature is None:
                return peer
            why = f"zone {zone.name}: peer {peer.name} has no key"
            continue
        if query.signature is None or query.signature.key != key_name(zone.name, peer.name):
            why = f"zone {zone.name}: not signed with the key {key_name(zone.name, peer.name)}"
            continue
        try:
            tsig.check(query.wire, query.signature, peer.secret)
        except tsig.BadSignature as error:
            why = f"zone {zone.name}: the signature of peer {peer.name} does not hold: {error}"
            continue
        return peer
    raise Refused(why)
