# SPDX-License-Identifier: Apache-2.0
"""What a zone answers to ordinary questions (RFC 1034, section 4.3.2; wildcards: RFC 4592)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sysd.dns.content import APEX, CNAME, NS, POINTER, Content, body_of, parents, rdata_of
from sysd.dns.message import HEADER, NXDOMAIN, T_ANY, Answer

A, AAAA, DS = 1, 28, 43
STAR = b"\x01*"
MAX_CHAIN = 16
"""CNAMEs that are followed for one question."""


def wire_labels(labels: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels)


def below(name: bytes, origin: bytes) -> bytes | None:
    """The labels of a name, in wire form, that come before those of a zone; None when it is not in the zone."""
    name = name.lower()  # no length byte is a letter: those end at 63
    at = 0
    while len(name) - at > len(origin):
        at += 1 + name[at]
    return name[:at] if name[at:] == origin else None


def answer(content: Content, owner: bytes, kind: int) -> Answer:
    """owner: the question's name below the zone, in lower case."""
    return _Lookup(content, owner).run(kind)


class _Lookup:
    def __init__(self, content: Content, asked: bytes) -> None:
        self._content = content
        self._asked = asked
        # The zone's name is the end of the question's.
        self._origin = struct.pack("!H", 0xC000 | HEADER + len(asked))
        self._found: list[bytes] = []

    def run(self, kind: int) -> Answer:
        owner, seen = self._asked, set[bytes]()
        while owner not in seen and len(seen) < MAX_CHAIN:
            seen.add(owner)
            if cut := self._cut(owner, kind):
                return self._referral(cut)
            source = self._source(owner)
            if source is None:
                return Answer(NXDOMAIN, answers=tuple(self._found), authorities=(self._negative(),))
            if records := self._records(source, kind):
                self._found += self._placed(records, owner)
                break
            alias = self._content.sets.get((source, CNAME))
            if not alias:
                return Answer(answers=tuple(self._found), authorities=(self._negative(),))
            self._found += self._placed(alias, owner)
            target = below(rdata_of(alias[0]), self._content.origin)
            if target is None:
                break
            owner = target
        return Answer(answers=tuple(self._found))

    def _cut(self, owner: bytes, kind: int) -> bytes | None:
        """The name at or above owner, nearest to the apex, from which on another zone is served."""
        names = [owner, *parents(owner)]
        for name in reversed(names):
            if name != APEX and (name, NS) in self._content.sets and not (name == owner and kind == DS):
                return name
        return None

    def _source(self, owner: bytes) -> bytes | None:
        """The name whose records are owner's: itself, or a wildcard."""
        if self._content.exists(owner):
            return owner
        encloser = next(name for name in parents(owner) if name == APEX or self._content.exists(name))
        wildcard = STAR + encloser
        return wildcard if wildcard in self._content.types else None

    def _records(self, owner: bytes, kind: int) -> tuple[bytes, ...]:
        if kind == T_ANY:  # one set of all is enough (RFC 8482, section 4.1)
            kind = next(iter(self._content.types.get(owner, (T_ANY,))))
        return self._content.sets.get((owner, kind), ())

    def _placed(self, records: Iterable[bytes], owner: bytes) -> list[bytes]:
        """Records under a name, which need not be the one that they are kept under."""
        name = POINTER if owner == self._asked else owner + self._origin
        return [name + body_of(record) for record in records]

    def _negative(self) -> bytes:
        """The SOA, with the time for which that there is nothing may be remembered (RFC 2308, section 3)."""
        body = body_of(self._content.soa)
        least = min(body[4:8], body[-4:])
        name = POINTER if self._asked == APEX else self._origin
        return name + body[:4] + least + body[8:]

    def _referral(self, cut: bytes) -> Answer:
        servers = self._content.sets[cut, NS]
        glue: list[bytes] = []
        for record in servers:
            target = below(rdata_of(record), self._content.origin)
            for kind in (A, AAAA):
                if target is not None and (found := self._content.sets.get((target, kind))):
                    glue += self._placed(found, target)
        return Answer(
            authoritative=bool(self._found),
            answers=tuple(self._found),
            authorities=tuple(self._placed(servers, cut)),
            additionals=tuple(glue),
        )
