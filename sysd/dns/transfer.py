# SPDX-License-Identifier: Apache-2.0
"""Transfers of whole zones (AXFR, RFC 5936) and of what has changed (IXFR, RFC 1995)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from sysd.dns.content import Content, is_newer
from sysd.dns.message import AA, HEADER, QR, T_IXFR, Query, opt
from sysd.dns.tsig import Signer

MAX_MESSAGE = 16000
"""Bytes, with all that is in it: compression can point no further than 16 KiB."""


def records(content: Content, query: Query) -> Sequence[bytes]:
    """What answers a transfer. Of an IXFR, a single SOA says that the client has all, or is ahead of us."""
    soa = content.soa
    if query.kind == T_IXFR and query.serial is not None:
        if query.serial == content.serial or is_newer(query.serial, content.serial):
            return [soa]
        changes = content.journal.since(query.serial)
        if changes is not None and sum(change.size for change in changes) <= max(len(content.sets), 16):
            return [soa, *(one for change in changes for each in (change.removed, change.added) for one in each), soa]
    return [soa, *content.records(), soa]


def messages(query: Query, found: Sequence[bytes], signer: Signer | None) -> Iterator[bytes]:
    """As many as it takes; each has the question, which owners of records point to."""
    tail = opt(0) if query.payload else b""
    room = MAX_MESSAGE - HEADER - len(query.question) - len(tail) - (signer.size if signer else 0)
    at = 0
    while at < len(found):
        end, size = at, 0
        while end < len(found) and (end == at or size + len(found[end]) <= room):
            size += len(found[end])
            end += 1
        head = struct.pack("!HHHHHH", query.id, QR | AA, 1, end - at, 0, bool(tail))
        wire = head + query.question + b"".join(found[at:end]) + tail
        yield signer.sign(wire, more=end < len(found)) if signer else wire
        at = end
