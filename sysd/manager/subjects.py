# SPDX-License-Identifier: Apache-2.0
"""Who rules of ACLs are about by names: ACLs, for the guests that these hold for, and peers of networks of OVN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sysd.manager.catalog import Catalog
from sysd.model import acls, peers
from sysd.model.acls import Acl
from sysd.model.errors import BusyError, InvalidError, NotFoundError
from sysd.model.network import OVN, Network


def check_known(catalog: Catalog, acl: Acl, before: Acl | None = None) -> None:
    """Raise NotFoundError unless all that an ACL names is there; before: what it is now, which names what nobody could
    delete."""
    known = {acl.name, *(before.named if before else ())}
    for word in acl.named:
        if word in known:
            continue
        if peer := acls.peer_of(word):
            network = catalog.network(peer[0])
            if not network.is_ovn:
                raise InvalidError(f"{word}: network {network.name} is of type {network.type}", "peers are of OVN")
            peers.find(network, peer[1])
    for name in acl.named_acls:
        if name not in known and not catalog.has_acl(name):
            raise NotFoundError(f"no ACL {name!r} for a rule to name", "make it first: syscont network acl create")


def check_fits(acl: Acl, network: Network) -> None:
    """Raise InvalidError unless an ACL can hold in a network: who is who only OVN knows, and of peers each network its
    own."""
    for word in acl.named:
        what = f"ACL {acl.name} names {word}"
        if not network.is_ovn:
            raise InvalidError(f"{what}, and network {network.name} is of type {network.type}", f"it is for type {OVN}")
        peer = acls.peer_of(word)
        if peer and peer[0] != network.name:
            raise InvalidError(f"{what}, and holds in network {network.name}", f"that is a peer of {peer[0]}'s")


def naming(everyone: Iterable[Acl], word: str) -> Iterator[Acl]:
    """Those whose rules name something, without what names itself."""
    return (acl for acl in everyone if word in acl.named and acl.name != word)


def check_unnamed(everyone: Iterable[Acl], network: Network, left: Iterable[str]) -> None:
    """Raise BusyError when a rule names a peer of a network which is not among those that are left."""
    left = set(left)
    for peer in network.peered:
        for acl in naming(everyone, acls.peer_word(network.name, peer.name)) if peer.name not in left else ():
            why = f"peer {peer.name} of network {network.name} is named by ACL {acl.name}"
            raise BusyError(why, "remove its rules that do so first")


def groups(found: Iterable[Acl], look: Callable[[str], Acl]) -> list[Acl]:
    """ACLs that others name, and that are none of them: without rules, which hold for nobody."""
    there = {acl.name: acl for acl in found}
    named = dict.fromkeys(name for acl in there.values() for name in acl.named_acls if name not in there)
    return [replace(look(name), ingress=[], egress=[]) for name in named]
