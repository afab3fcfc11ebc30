# SPDX-License-Identifier: Apache-2.0
"""Answers to ordinary questions, read by dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest

from sysd.dns import lookup
from sysd.dns.message import compose, parse
from tests.zones.loopback import ZONE, content, record

RECORDS = (
    record("web1", "A", "192.0.2.1"),
    record("web1", "AAAA", "2001:db8::1"),
    record("www", "CNAME", "web1"),
    record("far", "CNAME", "elsewhere.example."),
    record("loop", "CNAME", "pool"),
    record("pool", "CNAME", "loop"),
    record("lost", "CNAME", "nobody"),
    record("a.b", "TXT", '"x"'),
    record("*.wild", "A", "192.0.2.9"),
    record("here.wild", "TXT", '"y"'),
    record("sub", "NS", "ns.sub"),
    record("sub", "DS", "1 8 2 " + "00" * 32),
    record("ns.sub", "A", "192.0.2.53"),
    record("*.alias", "CNAME", "web1"),
)


def ask(name: str, kind: str = "A") -> dns.message.Message:
    zone = content(*RECORDS)
    query = parse(dns.message.make_query(name, kind).to_wire())
    owner = lookup.wire_labels(query.labels[: len(query.labels) - 2])
    return dns.message.from_wire(compose(query, lookup.answer(zone, owner, query.kind)))


def texts(answer: dns.message.Message) -> list[str]:
    return [f"{rrset.name.to_text()} {item.to_text()}" for rrset in answer.answer for item in rrset]


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "found"),
    [
        ("web1", "A", "NOERROR", [f"web1.{ZONE}. 192.0.2.1"]),
        ("WEB1", "AAAA", "NOERROR", [f"WEB1.{ZONE}. 2001:db8::1"]),
        ("web1", "MX", "NOERROR", []),
        ("nobody", "A", "NXDOMAIN", []),
        ("b", "A", "NOERROR", []),
        ("x.b", "A", "NXDOMAIN", []),
        ("x.web1", "A", "NXDOMAIN", []),
        ("www", "A", "NOERROR", [f"www.{ZONE}. web1.{ZONE}.", f"web1.{ZONE}. 192.0.2.1"]),
        ("www", "CNAME", "NOERROR", [f"www.{ZONE}. web1.{ZONE}."]),
        ("www", "MX", "NOERROR", [f"www.{ZONE}. web1.{ZONE}."]),
        ("far", "A", "NOERROR", [f"far.{ZONE}. elsewhere.example."]),
        ("lost", "A", "NXDOMAIN", [f"lost.{ZONE}. nobody.{ZONE}."]),
        ("x.wild", "A", "NOERROR", [f"x.wild.{ZONE}. 192.0.2.9"]),
        ("y.x.wild", "A", "NOERROR", [f"y.x.wild.{ZONE}. 192.0.2.9"]),
        ("x.wild", "TXT", "NOERROR", []),
        ("here.wild", "A", "NOERROR", []),
        ("q.alias", "A", "NOERROR", [f"q.alias.{ZONE}. web1.{ZONE}.", f"web1.{ZONE}. 192.0.2.1"]),
        ("sub", "DS", "NOERROR", [f"sub.{ZONE}. 1 8 2 " + "00" * 32]),
    ],
)
def test_answers(name: str, kind: str, rcode: str, found: list[str]) -> None:
    answer = ask(f"{name}.{ZONE}", kind)
    assert dns.rcode.to_text(answer.rcode()) == rcode
    assert texts(answer) == found
    assert answer.flags & dns.flags.AA
    says_nothing = rcode == "NXDOMAIN" or not found or (name, kind) == ("www", "MX")
    assert [rrset.rdtype for rrset in answer.authority] == ([dns.rdatatype.SOA] if says_nothing else [])
    if says_nothing:
        assert answer.authority[0].ttl == 30
        assert answer.authority[0].name.to_text().lower() == f"{ZONE}."


def test_a_chain_in_a_circle_ends() -> None:
    assert len(texts(ask(f"loop.{ZONE}"))) == 2


@pytest.mark.parametrize("name", ["sub", "x.sub", "y.x.sub"])
def test_another_server_is_named_for_what_is_delegated(name: str) -> None:
    answer = ask(f"{name}.{ZONE}")
    assert not answer.flags & dns.flags.AA
    assert not answer.answer
    assert [rrset.to_text() for rrset in answer.authority] == [f"sub.{ZONE}. 300 IN NS ns.sub.{ZONE}."]
    assert [rrset.to_text() for rrset in answer.additional] == [f"ns.sub.{ZONE}. 300 IN A 192.0.2.53"]
