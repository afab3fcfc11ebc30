# SPDX-License-Identifier: Apache-2.0
"""Zones and records as people write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sysd.model import rdata
from sysd.model.errors import InvalidError, SyscontError
from sysd.model.zones import SCHEMA, Entry, Record, Zone, check_name, check_record_name, is_within, public

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.mark.parametrize(("text", "name"), [("Lab.Example.", "lab.example"), ("a", "a"), ("_x.1-2", "_x.1-2")])
def test_names_of_zones(text: str, name: str) -> None:
    assert check_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", "-a", "a b", "a\n", "a/b", "é", "a" * 64, ".".join(["a" * 60] * 5), "*", "a.*", "a\0", "a.."],
)
def test_what_is_no_name_of_a_zone(text: str) -> None:
    with pytest.raises(InvalidError):
        check_name(text)


@pytest.mark.parametrize("text", ["", "a b", "a.", "a.*", "**", "é", "a\n", "a" * 64, "x." * 126 + "x", "@.a"])
def test_what_is_no_name_of_a_record(text: str) -> None:
    with pytest.raises(InvalidError):
        check_record_name("lab.example", text)


BAD = [
    ("peers.a.address", "ns1"), ("peers.a.address", "10.0.0.1/8"), ("peers.a.address", ""), ("peers.a.key", "x y"),
    ("peers.a.key", ""), ("peers.a.key", "AAA"), ("peers.a.key", "A" * 600), ("peers.a.port", "53"),
    ("peers.a", "x"), ("peers..key", KEY), ("peers.a b.key", KEY), ("peers.a\nb.key", KEY), ("peers.a.b.key", KEY),
    ("dns.nameservers", "a b"), ("dns.nameservers", "a,b\n"), ("dns.contact", "a"), ("dns.contact", "a b@c"),
    ("dns.contact", "a@b c"), ("dns.contact", "a@"), ("network.nat", "perhaps"), ("x", "y"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_values_name_their_key(key: str, value: str) -> None:
    with pytest.raises(SyscontError) as raised:
        SCHEMA.check({key: value})
    assert key.splitlines()[0] in raised.value.message.replace("\\n", "\n")


def test_peers() -> None:
    config = {"peers.b.address": "2001:db8::/32", "peers.a.key": KEY, "peers.a.address": "192.0.2.1", "user.x": "y"}
    zone = Zone("lab.example", config=SCHEMA.check(config))
    one, other = zone.peers
    assert (one.name, str(one.address), one.secret) == ("a", "192.0.2.1", b"0123456789abcdef")
    assert (other.name, other.address, other.secret) == ("b", None, None)
    assert set(public(zone.config)) == {"peers.b.address", "peers.a.address"}
    assert (zone.nameservers, zone.contact) == (["lab.example"], "hostmaster@lab.example")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("CNAME", "web1"), ("MX", "10 mail.example."),
        ("SRV", "0 5 5060 sip"), ("TXT", '"v=spf1 -all"'), ("CAA", '0 issue "ca.example"'), ("PTR", "a.example."),
        ("SSHFP", "1 1 " + "00" * 20), ("TLSA", "3 1 1 " + "00" * 32), ("NAPTR", '1 2 "s" "x" "" a.'),
        ("HTTPS", "1 . alpn=h2"), ("LOC", "42 21 54 N 71 06 18 W -24m 30m"), ("NS", "ns.sub"),
    ],
)  # fmt: skip
def test_types_that_are_taken(kind: str, value: str) -> None:
    assert rdata.check_entry("lab.example", "sub", Entry(kind.lower(), f" {value} ")).type == kind


@pytest.mark.parametrize(
    ("name", "kind", "value", "ttl"),
    [
        ("a", "A", "1.2.3", 300), ("a", "A", "", 300), ("a", "A", "1.2.3.4 5", 300), ("a", "A", "1.2.3.4\n", 300),
        ("a", "A", "192.0.2.1", -1), ("a", "A", "192.0.2.1", 1 << 31), ("a", "AAAA", "::ffff", -1),
        ("a", "CNAME", "a b", 300), ("a", "CNAME", "x" * 64, 300), ("a", "TXT", "x" * 5000, 300),
        ("a", "TXT", "\ud800", 300), ("a", "TXT", "a\0b", 300), ("a", "A", "\\# 4 01020304", 300),
        ("a", "SOA", "a b 1 2 3 4 5", 300), ("a", "RRSIG", "x", 300), ("a", "TYPE65000", "\\# 0", 300),
        ("a", "AXFR", "x", 300), ("a", "ANY", "x", 300), ("a", "OPT", "x", 300), ("a", "X\nY", "x", 300),
        ("a", "DNAME", "b", 300), ("@", "NS", "b", 300), ("@", "CNAME", "b", 300), ("a", "", "b", 300),
    ],
)  # fmt: skip
def test_entries_that_are_not_taken(name: str, kind: str, value: str, ttl: int) -> None:
    with pytest.raises(SyscontError):
        rdata.check_entry("lab.example", name, Entry(kind, value, ttl))


def entries(*each: tuple[str, str]) -> Record:
    return Record("lab.example", "a", entries=[rdata.remembered("lab.example", "a", Entry(*one)) for one in each])


@pytest.mark.parametrize(
    "record",
    [
        entries(("CNAME", "b"), ("A", "192.0.2.1")),
        entries(("CNAME", "b"), ("CNAME", "c")),
        entries(("A", "192.0.2.1"), ("A", "192.0.2.1")),
        entries(("CNAME", "b"), ("CNAME", "B.lab.example.")),
    ],
)
def test_entries_that_do_not_go_together(record: Record) -> None:
    with pytest.raises(InvalidError):
        rdata.check_together(record)


def test_zones_below_others() -> None:
    assert is_within("a.lab.example", "x.example, lab.example")
    assert is_within("lab.example", "LAB.example.")
    assert not is_within("alab.example", "lab.example")
    assert not is_within("lab.example", "")


def test_hosts_without_zones_load_no_dnspython() -> None:
    program = "import sys, sysd.daemon; sys.exit('dns' in sys.modules or 'sysd.dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
