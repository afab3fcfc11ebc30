# SPDX-License-Identifier: Apache-2.0
"""What a zone holds, as it goes over the wire, and how it became that.

A record is kept rendered: its owner's labels below the zone, a pointer to the question (whose name is the zone's in
all transfers), type, class, TTL and data. A transfer is then nothing but a concatenation of records.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

POINTER = b"\xc0\x0c"
"""To the name of the question, which follows the header."""
APEX = b""
IN = 1
SOA, NS, CNAME = 6, 2, 5
SERIALS = 1 << 32
MAX_JOURNAL = 1000
"""Most changes that are remembered of a zone."""
MAX_JOURNAL_RECORDS = 20_000
"""Most records in them all: a full transfer costs less then."""

Key = tuple[bytes, int]
"""Owner, as labels in lower case below the zone, and type."""
Sets = Mapping[Key, tuple[bytes, ...]]
"""Rendered records, sorted, each once."""


def render(owner: bytes, kind: int, ttl: int, rdata: bytes) -> bytes:
    return owner + POINTER + struct.pack("!HHIH", kind, IN, ttl, len(rdata)) + rdata


def owner_of(record: bytes) -> bytes:
    return record[: _labels(record)]


def body_of(record: bytes) -> bytes:
    """Type, class, TTL and data."""
    return record[_labels(record) + len(POINTER) :]


def kind_of(record: bytes) -> int:
    return int.from_bytes(body_of(record)[:2], "big")


def rdata_of(record: bytes) -> bytes:
    return body_of(record)[10:]


def _labels(record: bytes) -> int:
    at = 0
    while record[at] < 0x40:
        at += 1 + record[at]
    return at


def parents(owner: bytes) -> Iterator[bytes]:
    """The names above one, up to the apex."""
    while owner:
        owner = owner[1 + owner[0] :]
        yield owner


# serials (RFC 1982)


def next_serial(serial: int) -> int:
    """0 is left out: some take it for none."""
    return (serial + 1) % SERIALS or 1


def is_newer(one: int, other: int) -> bool:
    """Whether serial one comes after the other; never so for two that are half of all serials apart."""
    return 0 < (one - other) % SERIALS < SERIALS // 2


def serial_of(soa: bytes) -> int:
    """Of a rendered SOA record; its five numbers are last (RFC 1035, section 3.3.13)."""
    return int.from_bytes(soa[-20:-16], "big")


def with_serial(soa: bytes, serial: int) -> bytes:
    return soa[:-20] + struct.pack("!I", serial) + soa[-16:]


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a zone. The old SOA is the first of removed, the new one the first of added, as IXFR sends them."""

    removed: tuple[bytes, ...]
    added: tuple[bytes, ...]

    @property
    def before(self) -> int:
        return serial_of(self.removed[0])

    @property
    def after(self) -> int:
        return serial_of(self.added[0])

    @property
    def size(self) -> int:
        return len(self.removed) + len(self.added)


@dataclass(slots=True)
class Journal:
    """The newest changes, each from where the one before it led to."""

    changes: deque[Change] = field(default_factory=deque)
    size: int = 0

    def append(self, change: Change) -> int:
        """Returns how many of the oldest had to go."""
        if self.changes and self.changes[-1].after != change.before:
            self.changes.clear()
            self.size = 0
        self.changes.append(change)
        self.size += change.size
        gone = 0
        while self.changes and (len(self.changes) > MAX_JOURNAL or self.size > MAX_JOURNAL_RECORDS):
            self.size -= self.changes.popleft().size
            gone += 1
        return gone

    def since(self, serial: int) -> list[Change] | None:
        """The changes from a serial to now; None when they do not reach back so far."""
        found: list[Change] = []
        for change in reversed(self.changes):
            found.append(change)
            if change.before == serial:
                return found[::-1]
        return None


class Content:
    """The records of a zone as they are published. origin is its name in wire form, in lower case."""

    def __init__(self, origin: bytes) -> None:
        self.origin = origin
        self.sets: dict[Key, tuple[bytes, ...]] = {}
        self.types: dict[bytes, tuple[int, ...]] = {}
        self._above: Counter[bytes] = Counter()
        self.journal = Journal()

    @property
    def soa(self) -> bytes:
        return self.sets[APEX, SOA][0]

    @property
    def serial(self) -> int:
        return serial_of(self.soa)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever published."""
        return not self.sets

    def exists(self, owner: bytes) -> bool:
        """Whether there is a name, be it only because there are others below it (RFC 4592, section 2.2.2)."""
        return owner in self.types or owner in self._above

    def load(self, records: Iterable[bytes], changes: Iterable[Change]) -> None:
        """Take what was published before a restart."""
        found: dict[Key, list[bytes]] = {}
        for record in records:
            found.setdefault((owner_of(record), kind_of(record)), []).append(record)
        for key, each in found.items():
            self._put(key, tuple(sorted(each)))
        for change in changes:
            self.journal.append(change)

    def compare(self, wanted: Sets) -> Change | None:
        """What would change with sets of records in place of those of the same keys (none: the set goes); None when
        nothing would. The new serial is the next one; in wanted, that of the SOA does not matter."""
        soa = wanted.get((APEX, SOA), (self.soa,))[0]
        removed: list[bytes] = []
        added: list[bytes] = []
        for key, records in wanted.items():
            if key == (APEX, SOA):
                continue
            before = self.sets.get(key, ())
            if before != records:
                removed += [record for record in before if record not in records]
                added += [record for record in records if record not in before]
        if not removed and not added and with_serial(soa, self.serial) == self.soa:
            return None
        after = with_serial(soa, next_serial(self.serial))
        return Change((self.soa, *removed), (after, *added))

    def apply(self, change: Change) -> int:
        """Returns how many of the oldest changes are forgotten for it."""
        touched: dict[Key, set[bytes]] = {}
        for records, take in ((change.removed, set.discard), (change.added, set.add)):
            for record in records:
                key = (owner_of(record), kind_of(record))
                if key not in touched:
                    touched[key] = set(self.sets.get(key, ()))
                take(touched[key], record)
        for key, found in touched.items():
            self._put(key, tuple(sorted(found)))
        return self.journal.append(change)

    def _put(self, key: Key, records: tuple[bytes, ...]) -> None:
        owner, kind = key
        before = self.types.get(owner, ())
        if records:
            self.sets[key] = records
            after = tuple(sorted({*before, kind}))
        else:
            self.sets.pop(key, None)
            after = tuple(one for one in before if one != kind)
        if after:
            self.types[owner] = after
        else:
            self.types.pop(owner, None)
        if bool(before) != bool(after):
            step = 1 if after else -1
            for parent in parents(owner):
                self._above[parent] += step
                if not self._above[parent]:
                    del self._above[parent]

    def records(self) -> list[bytes]:
        """All but the SOA."""
        return [record for key, each in self.sets.items() if key != (APEX, SOA) for record in each]


def pack(records: Iterable[bytes]) -> bytes:
    """Records one after the other, each after its length (two bytes)."""
    return b"".join(struct.pack("!H", len(record)) + record for record in records)


def unpack(data: bytes) -> tuple[bytes, ...]:
    found = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : end])
        at = end
    return tuple(found)
