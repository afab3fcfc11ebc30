# SPDX-License-Identifier: Apache-2.0
"""Messages of DNS (RFC 1035, section 4): strangers' are taken apart, ours are put together."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype
import dns.wire
from dns.rdtypes.ANY.TSIG import TSIG

HEADER = 12
QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
QUERY, NOTIFY = 0, 4
NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 3, 4, 5, 16
T_SOA, T_OPT, T_TSIG, T_IXFR, T_AXFR, T_ANY = 6, 41, 250, 251, 252, 255
IN, ANY = 1, 255
MIN_UDP = 512
MAX_UDP = 1232
"""Bytes that pass without fragments nearly everywhere (DNS flag day 2020)."""
MAX_RECORDS = 64
"""In a query: it needs three at most."""


class BadMessage(Exception):
    """One that is answered with an error. rcode: which."""

    def __init__(self, rcode: int) -> None:
        super().__init__(rcode)
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Signature:
    """A TSIG record: the key's name, and where it begins in the message."""

    key: dns.name.Name
    rdata: TSIG
    start: int


@dataclass(frozen=True, slots=True)
class Query:
    """labels: of the name, in lower case, without the root's. question: as it came. serial: the client's, of IXFR.
    payload: the most bytes that a client takes by UDP, 0 when it does not speak EDNS."""

    id: int
    flags: int
    labels: tuple[bytes, ...]
    kind: int
    question: bytes
    wire: bytes
    serial: int | None = None
    payload: int = 0
    edns_version: int = 0
    signature: Signature | None = None


def identity(wire: bytes) -> tuple[int, int] | None:
    """Id and flags; None for what is no message, or an answer, and so gets none."""
    if len(wire) < HEADER:
        return None
    number, flags = struct.unpack("!HH", wire[:4])
    return None if flags & QR else (number, flags)


def parse(wire: bytes) -> Query:
    """Raises BadMessage."""
    number, flags, questions, answers, authorities, others = struct.unpack("!HHHHHH", wire[:HEADER])
    if (flags >> 11) & 15 != QUERY:
        raise BadMessage(NOTIMP)
    if questions != 1 or answers or authorities + others > MAX_RECORDS:
        raise BadMessage(FORMERR)
    try:
        return _Reader(wire, number, flags).query(authorities, others)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error, OverflowError):
        raise BadMessage(FORMERR) from None


class _Reader:
    def __init__(self, wire: bytes, number: int, flags: int) -> None:
        self._parser = dns.wire.Parser(wire, HEADER)
        self._wire, self._id, self._flags = wire, number, flags
        self._serial: int | None = None
        self._edns: tuple[int, int] | None = None
        self._signature: Signature | None = None

    def query(self, authorities: int, others: int) -> Query:
        name = self._parser.get_name()
        kind, kind_class = self._parser.get_struct("!HH")
        question = self._wire[HEADER : self._parser.current]
        if len(question) != sum(1 + len(label) for label in name.labels) + 4:
            raise BadMessage(FORMERR)  # with pointers, of which none can mean anything here
        if kind_class != IN:
            raise BadMessage(REFUSED)
        for _ in range(authorities):
            self._authority(name)
        for left in reversed(range(others)):
            self._additional(last=not left)
        if self._parser.remaining():
            raise BadMessage(FORMERR)
        payload, version = self._edns or (0, 0)
        labels = tuple(label.lower() for label in name.labels[:-1])
        return Query(self._id, self._flags, labels, kind, question, self._wire, self._serial, payload, version,
                     self._signature)  # fmt: skip

    def _authority(self, name: dns.name.Name) -> None:
        """Of an IXFR: the SOA that the client has."""
        owner = self._parser.get_name()
        kind, _, _, length = self._parser.get_struct("!HHIH")
        with self._parser.restrict_to(length):
            if kind == T_SOA and owner == name:
                self._parser.get_name()
                self._parser.get_name()
                self._serial = self._parser.get_struct("!IIIII")[0]
            else:
                self._parser.get_remaining()

    def _additional(self, *, last: bool) -> None:
        start = self._parser.current
        owner = self._parser.get_name()
        kind, kind_class, ttl, length = self._parser.get_struct("!HHIH")
        with self._parser.restrict_to(length):
            if kind == T_TSIG:
                if not last or kind_class != ANY or ttl:
                    raise BadMessage(FORMERR)
                rdata = dns.rdata.from_wire_parser(ANY, dns.rdatatype.TSIG, self._parser)
                self._signature = Signature(owner, rdata, start)
                return
            self._parser.get_remaining()
        if kind == T_OPT:
            if self._edns or owner != dns.name.root:
                raise BadMessage(FORMERR)
            self._edns = (kind_class, (ttl >> 16) & 255)


@dataclass(frozen=True, slots=True)
class Answer:
    """Sections hold records in wire form, whose owners may point to the question."""

    rcode: int = NOERROR
    authoritative: bool = True
    answers: tuple[bytes, ...] = ()
    authorities: tuple[bytes, ...] = ()
    additionals: tuple[bytes, ...] = ()


def compose(query: Query, answer: Answer, *, truncated: bool = False) -> bytes:
    """The message; truncated leaves all records out and says so."""
    flags = QR | query.flags & RD | (AA if answer.authoritative else 0) | (TC if truncated else 0)
    sections = ((), (), ()) if truncated else (answer.answers, answer.authorities, answer.additionals)
    counts = [len(section) for section in sections]
    tail = b""
    if query.payload or query.edns_version:
        tail = opt(answer.rcode)
        counts[2] += 1
    head = struct.pack("!HHHHHH", query.id, flags | answer.rcode & 15, 1, *counts)
    return head + query.question + b"".join(record for section in sections for record in section) + tail


def opt(rcode: int) -> bytes:
    """An OPT record of ours (RFC 6891, section 6.1.2)."""
    return b"\0" + struct.pack("!HHBBHH", T_OPT, MAX_UDP, rcode >> 4, 0, 0, 0)


def error(number: int, flags: int, rcode: int) -> bytes:
    """An answer that says nothing but that."""
    return struct.pack("!HHHHHH", number, QR | flags & (RD | 0x7800) | rcode, 0, 0, 0, 0)
