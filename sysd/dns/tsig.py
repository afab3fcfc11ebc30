# SPDX-License-Identifier: Apache-2.0
"""Signatures of messages by a shared secret (RFC 8945)."""

from __future__ import annotations

import struct
import time
from typing import Any

import dns.exception
import dns.name
import dns.rcode
import dns.tsig
from dns.rdtypes.ANY.TSIG import TSIG

from sysd.dns.message import ANY, HEADER, T_TSIG, Signature

FUDGE = 300
"""Seconds that clocks may differ."""
ALGORITHMS = frozenset(dns.tsig.HMACTSig._hashes)
DEFAULT = dns.tsig.HMAC_SHA256
ROOM = 20
"""Bytes of a signature besides names and MAC."""


class BadSignature(Exception):
    """Says why; for the log only, never for the client."""


def check(wire: bytes, signature: Signature, secret: bytes) -> None:
    """Raises BadSignature unless a query was signed with the secret, by any of ALGORITHMS."""
    algorithm = signature.rdata.algorithm
    if algorithm not in ALGORITHMS:
        raise BadSignature(f"algorithm {str(algorithm)[:80]!r} is not known")
    if signature.rdata.original_id != int.from_bytes(wire[:2], "big"):
        wire = struct.pack("!H", signature.rdata.original_id) + wire[2:]
    key = dns.tsig.Key(signature.key, secret, algorithm)
    try:
        dns.tsig.validate(wire, key, signature.key, signature.rdata, int(time.time()), b"", signature.start)
    except dns.tsig.BadTime:
        raise BadSignature("the clocks differ") from None
    except (dns.exception.DNSException, NotImplementedError, ValueError):
        raise BadSignature("the key is another") from None


class Signer:
    """Signs messages that answer one query, in their order, or a query of ours."""

    def __init__(self, name: dns.name.Name, secret: bytes, algorithm: dns.name.Name = DEFAULT,
                 request_mac: bytes = b"") -> None:  # fmt: skip
        self._key = dns.tsig.Key(name, secret, algorithm)
        self._mac = request_mac
        self._context: Any = None
        self._first = True

    @property
    def size(self) -> int:
        """Most bytes that a signature takes."""
        names: int = len(self._key.name.to_wire()) + len(self._key.algorithm.to_wire())
        return names + ROOM + 64 + 10

    def sign(self, wire: bytes, *, more: bool = False) -> bytes:
        """The message with its signature; more: it is one of several."""
        number, count = struct.unpack("!H8xH", wire[:HEADER])
        blank = TSIG(ANY, T_TSIG, self._key.algorithm, 0, FUDGE, b"", number, dns.rcode.NOERROR, b"")
        multi = more or not self._first
        rdata, self._context = dns.tsig.sign(wire, self._key, blank, int(time.time()), self._mac, self._context, multi)
        self._first = False
        data: bytes = rdata.to_wire()
        name: bytes = self._key.name.to_wire()
        record = name + struct.pack("!HHIH", T_TSIG, ANY, 0, len(data)) + data
        return wire[: HEADER - 2] + struct.pack("!H", count + 1) + wire[HEADER:] + record
