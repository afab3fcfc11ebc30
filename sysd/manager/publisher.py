# SPDX-License-Identifier: Apache-2.0
"""Zones as they are published: what becomes of changes, and when.

Loads dnspython, so it is made with the first zone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sysd.dns.access import Directory, Served, labels_of
from sysd.dns.content import (
    APEX,
    CNAME,
    NS,
    SOA,
    Change,
    Content,
    Key,
    Sets,
    body_of,
    pack,
    render,
    unpack,
)
from sysd.dns.notify import Notifier
from sysd.dns.server import Responder, Server
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.zone_hosts import AAAA, PTR, A, HostRecords, wire_name
from sysd.model.errors import FailedError
from sysd.model.server import dns_address
from sysd.model.zones import APEX as APEX_NAME
from sysd.model.zones import Record, Zone
from sysd.store.database import Store

log = logging.getLogger(__name__)

SETTLE = 0.02
"""Seconds in which changes are gathered."""
PACE = 0.5
"""Seconds between two serials of a zone, however much changes."""
REST = 9
"""How much longer than looking at all instances, and finding nothing new, the time is until the next look."""
RETRY_LISTEN = 10.0
AFTER_START = 1.5
"""Seconds until what could not be bound is tried again, and until guests that run have told their addresses again."""
SOA_TTL, NS_TTL = 3600, 300
REFRESH, RETRY, EXPIRE, MINIMUM = 120, 60, 86400, 30
"""Seconds, as LXD has them."""


@dataclass(slots=True)
class Held:
    """One zone. own, user, hosts: what it consists of, by where that comes from; dirty: what may have changed."""

    zone: Zone
    content: Content
    own: Sets
    user: dict[Key, tuple[bytes, ...]]
    hosts: Sets = field(default_factory=dict)
    dirty: set[Key] = field(default_factory=set)
    due: float = 0.0

    def wanted(self, key: Key) -> tuple[bytes, ...]:
        owner, kind = key
        if kind != CNAME and (owner, CNAME) in self.user:
            return ()  # what its owner says goes before what an instance is called
        found = {*self.own.get(key, ()), *self.user.get(key, ()), *self.hosts.get(key, ())}
        return one_ttl(key, found)

    def unlike_user(self) -> Iterator[Key]:
        """What is published otherwise than the owner's records alone would have it. The rest need not be looked at
        again when there are very many; what instances add to it is looked at anyway."""
        published = self.content.sets
        yield from (key for key, records in self.user.items() if published.get(key) != records)
        yield from (key for key in published if key not in self.user)

    def served(self) -> Served:
        return Served(self.zone.name, labels_of(self.zone.name), self.content, self.zone.peers)


def one_ttl(key: Key, records: Iterable[bytes]) -> tuple[bytes, ...]:
    """Records of one name and type have one TTL (RFC 2181, section 5.2): the least."""
    found = sorted(records)
    ttls = {body_of(record)[4:8] for record in found}
    if len(ttls) <= 1:
        return tuple(found)
    owner, kind = key
    least = int.from_bytes(min(ttls), "big")
    return tuple(sorted({render(owner, kind, least, body_of(record)[10:]) for record in found}))


class Publisher:
    def __init__(self, store: Store, events: EventBus, hosts: HostRecords) -> None:
        self._store = store
        self._events = events
        self._hosts = hosts
        self._zones: dict[str, Held] = {}
        self._directory = Directory()
        self._responder = Responder(self._directory)
        self._notifier = Notifier()
        self._server: Server | None = None
        self._where = ""
        self._retry: asyncio.TimerHandle | None = None
        self._hosts_stale = False
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    # zones

    def load(self, zones: Iterable[Zone]) -> None:
        """At start: what was published is served at once, and compared with what there is a little later."""
        for zone in zones:
            self._not_before = time.monotonic() + AFTER_START
            held = self._add(zone)
            self._notifier.changed(held.served())  # a crash may have come before peers had heard
        self.hosts_changed()

    def add(self, zone: Zone) -> None:
        """A new one."""
        self._add(zone)
        self.hosts_changed()

    def _add(self, zone: Zone) -> Held:
        content = Content(wire_name(zone.name) + b"\0")
        changes = [Change(unpack(before), unpack(after)) for before, after in self._store.zone_changes(zone.name)]
        content.load(self._store.zone_content(zone.name), changes)
        held = Held(zone, content, own_records(zone), {})
        if content.empty:
            content.load(start_of(held.own), ())
        for record in self._store.zone_records(zone.name):
            held.user.update(user_records(record))
        held.dirty.update(held.own, held.unlike_user())
        self._zones[zone.name] = held
        self._directory.put(held.served())
        return held

    def change(self, zone: Zone) -> None:
        """Of configuration."""
        held = self._zones[zone.name]
        held.dirty.update((*held.own, *own_records(zone)))
        held.zone, held.own = zone, own_records(zone)
        self._directory.put(held.served())
        self.hosts_changed()

    def drop(self, name: str) -> None:
        del self._zones[name]
        self._directory.drop(name)

    def serial(self, name: str) -> int:
        return self._zones[name].content.serial

    def record_changed(self, before: Record, after: Record) -> None:
        """What an owner has under a name, and had; without entries where there is none."""
        held = self._zones[before.zone]
        old, new = user_records(before), user_records(after)
        for key in old:
            held.user.pop(key, None)
        held.user.update(new)
        # A CNAME takes the name from an instance, and gives it back.
        held.dirty.update((*old, *new, *((_owner(after.name), kind) for kind in (A, AAAA, PTR))))
        self._soon()

    def hosts_changed(self) -> None:
        """Instances, networks, or what projects allow."""
        self._hosts_stale = True
        self._soon()

    # publishing

    def _soon(self) -> None:
        if self._timer is None:
            wait = max(SETTLE, self._not_before - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._publish_all)

    def _publish_all(self) -> None:
        self._timer = None
        begin, published = time.monotonic(), False
        if self._hosts_stale:
            self._hosts_stale = False
            self._take_hosts()
        for held in self._zones.values():
            if held.dirty:
                try:
                    published |= self._publish(held)
                except Exception:
                    log.exception("zone %s can't be published", held.zone.name)
        end = time.monotonic()
        # To have looked for nothing delays nobody's name; but what instances do must not make us look all the time.
        self._not_before = end + (PACE if published else REST * (end - begin))

    def _take_hosts(self) -> None:
        found = self._hosts.of_zones()
        for held in self._zones.values():
            after = found.get(held.zone.name, {})
            held.dirty.update(key for key in held.hosts.keys() | after.keys() if held.hosts.get(key) != after.get(key))
            held.hosts = after

    def _publish(self, held: Held) -> bool:
        """Whether there was anything new."""
        dirty, held.dirty = held.dirty, set()
        change = held.content.compare({key: held.wanted(key) for key in dirty})
        if change is None:
            return False
        packed = (pack(change.removed), pack(change.added))
        self._store.publish_zone(held.zone.name, change.removed, change.added, packed)
        if held.content.apply(change):
            self._store.forget_zone_changes(held.zone.name, len(held.content.journal.changes))
        log.info("zone %s: serial %d, %d records", held.zone.name, change.after, change.size - 2)
        self._notifier.changed(held.served())
        self._events.publish(Event(Kind.ZONE_CHANGED, held.zone.name, "", ("Serial",)))
        return True

    # the server

    def listen(self, where: str) -> None:
        """Serve at an address as core.dns_address has it, ``""`` for nowhere, in place of that of now. Raises
        FailedError, and goes on as before."""
        if self._retry:
            self._retry.cancel()
        if self._server:
            self._server.close()  # first: all addresses cannot be bound while one is
        try:
            self._server = self._opened(where) if where else None
        except FailedError:
            self._server = self._opened(self._where) if self._where else None
            raise
        self._where = where

    def listen_sometime(self, where: str) -> None:
        """The same as soon as it can be."""
        try:
            self.listen(where)
        except FailedError as error:
            log.error("%s", error)
            self._retry = asyncio.get_running_loop().call_later(RETRY_LISTEN, self.listen_sometime, where)

    def _opened(self, where: str) -> Server:
        address, port = dns_address(where)
        server = Server(self._responder, self._directory)
        try:
            server.open(address, port)
        except OSError as error:
            raise FailedError(f"core.dns_address: {where} can't be served at: {error.strerror}") from None
        self._notifier.source = address
        return server


def _owner(name: str) -> bytes:
    return APEX if name == APEX_NAME else wire_name(name)


def user_records(record: Record) -> dict[Key, tuple[bytes, ...]]:
    owner = _owner(record.name)
    found: dict[Key, list[bytes]] = {}
    for each in record.entries:
        kind, data = int(each["kind"]), bytes.fromhex(each["data"])
        found.setdefault((owner, kind), []).append(render(owner, kind, int(each["ttl"]), data))
    return {key: one_ttl(key, records) for key, records in found.items()}


def own_records(zone: Zone) -> Sets:
    """SOA and NS of a zone; the serial is none."""
    servers = [wire_name(name) + b"\0" for name in zone.nameservers]
    user, _, domain = zone.contact.rpartition("@")
    contact = bytes([len(user)]) + user.encode() + wire_name(domain) + b"\0"
    numbers = b"".join(number.to_bytes(4, "big") for number in (0, REFRESH, RETRY, EXPIRE, MINIMUM))
    return {
        (APEX, SOA): (render(APEX, SOA, SOA_TTL, servers[0] + contact + numbers),),
        (APEX, NS): tuple(sorted({render(APEX, NS, NS_TTL, server) for server in servers})),
    }


def start_of(own: Sets) -> list[bytes]:
    """What a zone begins with: an SOA whose serial is the time, so that one that is made anew goes on from where
    secondaries are."""
    (soa,) = own[APEX, SOA]
    return [soa[:-20] + (int(time.time()) % (1 << 32)).to_bytes(4, "big") + soa[-16:]]
