# SPDX-License-Identifier: Apache-2.0
"""Real queries, mutated, for FUZZ_SECONDS (`make fuzz`: ten minutes), from peers and strangers."""

from __future__ import annotations

import ipaddress
import os
import random
import time

import dns.message
import dns.rrset
import dns.tsig

from sysd.dns.access import Directory
from sysd.dns.server import Responder
from sysd.model.zones import Peer
from tests.zones.loopback import KEY, SECRET, ZONE, content, no_errors, record, served

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SLOWEST = 0.5
"""Seconds for one message; noise of a busy machine is well below, a decoder that goes in circles is not."""
NAMES = [ZONE, f"web1.{ZONE}", f"x.wild.{ZONE}", f"al.{ZONE}", "nope.example", "."]
TYPES = ["A", "AAAA", "SOA", "NS", "AXFR", "IXFR", "TXT", "ANY", "PTR"]
ALGORITHMS = [dns.tsig.HMAC_SHA256, dns.tsig.HMAC_SHA512, dns.tsig.HMAC_MD5]
CLIENTS = [ipaddress.ip_address(one) for one in ("127.0.0.1", "10.1.2.3", "192.0.2.9", "::1")]


def query(choice: random.Random) -> bytearray:
    kind = choice.choice(TYPES)
    edns = choice.choice([-1, 0])
    made = dns.message.make_query(choice.choice(NAMES), kind, use_edns=edns, payload=choice.choice([512, 1232, 4096]))
    if kind == "IXFR":
        serial = choice.randrange(1 << 32)
        made.authority.append(dns.rrset.from_text(f"{ZONE}.", 0, "IN", "SOA", f"a. b. {serial} 1 1 1 1"))
    if choice.random() < 0.5:
        secret = SECRET if choice.random() < 0.8 else bytes(32)
        made.use_tsig(dns.tsig.Key(KEY, secret, choice.choice(ALGORITHMS)))
    return bytearray(made.to_wire())


def mutate(wire: bytearray, choice: random.Random) -> None:
    """Some of it set, turned, cut out, put in, made a pointer or a number of records, or cut off."""
    for _ in range(choice.choice([0, 1, 1, 2, 3, 8])):
        if not wire:
            return
        at = choice.randrange(len(wire))
        match choice.randrange(7):
            case 0:
                wire[at] = choice.randrange(256)
            case 1:
                wire[at] ^= 1 << choice.randrange(8)
            case 2:
                del wire[at : at + choice.randrange(1, 9)]
            case 3:
                wire[at:at] = choice.randbytes(choice.randrange(1, 20))
            case 4:
                wire[at : at + 2] = (0xC000 | choice.randrange(64)).to_bytes(2, "big")
            case 5:
                wire[min(choice.randrange(4, 12), len(wire) - 1)] = choice.choice([0, 1, 2, 255])
            case 6:
                del wire[at:]


def test_no_message_is_too_much() -> None:
    seed = random.randrange(1 << 32)
    choice = random.Random(seed)
    records = [record("web1", "A", "10.0.0.2"), record("*.wild", "TXT", '"any"'), record("al", "CNAME", "web1")]
    directory = Directory()
    peers = [Peer("sec", None, SECRET), Peer("lan", ipaddress.ip_network("10.0.0.0/8"), None)]
    directory.put(served(content(*records), *peers))
    responder, count, answers, slowest = Responder(directory), 0, 0, 0.0
    end = time.monotonic() + SECONDS
    while (begin := time.monotonic()) < end:
        wire = query(choice)
        mutate(wire, choice)
        with no_errors():
            reply = responder.reply(bytes(wire), choice.choice(CLIENTS), udp=choice.random() < 0.5)
            answers += sum(1 for _ in reply.wires) if reply else 0
        spent = time.monotonic() - begin
        assert spent < SLOWEST, f"{wire.hex()} (seed {seed})"
        slowest, count = max(slowest, spent), count + 1
    print(f"{count} messages, {answers} answers, slowest {slowest * 1000:.1f} ms, seed {seed}")
    assert answers
