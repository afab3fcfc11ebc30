# SPDX-License-Identifier: Apache-2.0
"""Peers of networks of OVN: networks that reach each other when both say so. As in LXD."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sysd.model.errors import ExistsError, InvalidError, NotFoundError
from sysd.model.values import check_description

if TYPE_CHECKING:
    from sysd.model.network import Network

CREATED, PENDING = "created", "pending"
MAX_PEERS = 100
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Peer:
    """target: the name of the other network."""

    name: str
    target: str
    description: str = ""


def check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        hint = "1 to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidError(f"not the name of a peer: {text[:80]!r}", hint)
    return text


def with_peer(network: Network, name: str, target: str, description: str) -> list[dict[str, Any]]:
    """A network's peers and one more. Raises ExistsError or InvalidError."""
    made = Peer(check_name(name), target, check_description(description))
    for each in network.peered:
        if each.name == name:
            raise ExistsError(f"network {network.name} has a peer named {name} already")
        if each.target == target:
            raise ExistsError(f"network {target} is a peer of {network.name} already", f"it is named {each.name}")
    if target == network.name:
        raise InvalidError(f"network {target} can't be its own peer")
    if len(network.peers) >= MAX_PEERS:
        raise InvalidError(f"network {network.name}: more than {MAX_PEERS} peers")
    return [*network.peers, asdict(made)]


def without(network: Network, name: str) -> list[dict[str, Any]]:
    gone = find(network, name)
    return [each for each in network.peers if each["name"] != gone.name]


def find(network: Network, name: str) -> Peer:
    """Raises NotFoundError."""
    for each in network.peered:
        if each.name == name:
            return each
    hint = f"'syscont network peer list {network.name}' shows what there is"
    raise NotFoundError(f"network {network.name} has no peer {name[:80]!r}", hint)


def mutual(network: Network, networks: Iterable[Network]) -> list[Network]:
    """Those that a network names, and that name it."""
    targets = {each.target for each in network.peered}
    return [each for each in networks if each.name in targets and _names(each, network.name)]


def status(network: Network, peer: Peer, networks: Iterable[Network]) -> str:
    """created, or pending until the other one names this one."""
    return CREATED if any(each.name == peer.target for each in mutual(network, networks)) else PENDING


def check(network: Network, networks: Iterable[Network]) -> None:
    """Raise NotFoundError or InvalidError unless all that a network names could name it."""
    by_name = {each.name: each for each in networks}
    for each in network.peered:
        other = by_name.get(each.target)
        if other is None:
            hint = "'syscont network list' shows what there is"
            raise NotFoundError(f"peer {each.name}: no network {each.target[:80]!r}", hint)
        if not other.is_ovn:
            raise InvalidError(f"peer {each.name}: network {other.name} is of type {other.type}", "peers are of OVN")


def _names(network: Network, other: str) -> bool:
    return any(each.target == other for each in network.peered)
