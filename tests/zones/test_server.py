# SPDX-License-Identifier: Apache-2.0
"""The server over sockets: who gets what, transfers, and what is hostile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import resource
import socket
import struct
import time
import unittest.mock

import dns.asyncquery
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.versioned
import dns.xfr
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.dns import server as server_module
from sysd.dns import transfer, tsig
from sysd.dns.access import Directory, Served
from sysd.dns.message import parse
from sysd.dns.server import Responder
from sysd.model.zones import Peer, peer_network
from tests.zones.loopback import KEY, SECRET, ZONE, change, content, no_errors, record, served, with_server

SIGNED = Peer("sec", peer_network("127.0.0.1"), SECRET)


@pytest.fixture
def zone() -> Served:
    return served(content(record("web1", "A", "10.0.0.2"), record("*.wild", "TXT", '"any"')))


def question(name: str, kind: str = "A", **options: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **options)


def keyring(secret: bytes = SECRET, name: str = KEY) -> dict[dns.name.Name, bytes]:
    return dict(dns.tsigkeyring.from_text({name: base64.b64encode(secret).decode()}))


def ask(zones: list[Served], query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
    async def talk(port: int) -> dns.message.Message:
        send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await send(query, "127.0.0.1", port=port, timeout=5)

    return with_server(zones, talk)


def transferred(zone: Served, **options: object) -> dns.zone.Zone:
    """By dnspython's own client, which is one that blocks."""

    async def talk(port: int) -> dns.zone.Zone:
        def run() -> dns.zone.Zone:
            found = dns.zone.Zone(ZONE, relativize=False)
            dns.query.inbound_xfr("127.0.0.1", found, port=port, timeout=10, lifetime=20, **options)
            return found

        return await asyncio.to_thread(run)

    return with_server([zone], talk)


@pytest.mark.parametrize("tcp", [False, True])
def test_questions_are_answered(zone: Served, tcp: bool) -> None:
    answer = ask([zone], question("WEB1.lab.Example"), tcp=tcp)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AA
    assert [item.to_text() for item in answer.answer[0]] == ["10.0.0.2"]


def test_a_transfer_is_the_zone(zone: Served) -> None:
    found = transferred(zone)
    assert {name.to_text() for name in found.nodes} == {f"{ZONE}.", f"web1.{ZONE}.", f"*.wild.{ZONE}."}


@pytest.mark.parametrize("algorithm", [str(one) for one in dns.tsig.HMACTSig._hashes])
def test_all_algorithms_sign(algorithm: str) -> None:
    records = [record(f"h{number}", "TXT", '"' + "x" * 200 + '"') for number in range(300)]
    zone = served(content(*records), SIGNED)
    key = dns.tsig.Key(KEY, SECRET, algorithm)
    request = dns.message.make_query(ZONE, "AXFR")
    request.use_tsig(key)
    found = transferred(zone, query=request)
    assert len(found.nodes) == 301
    answer = ask([zone], with_key(question(f"h1.{ZONE}", "TXT"), key))
    assert answer.had_tsig


def with_key(query: dns.message.Message, key: dns.tsig.Key) -> dns.message.Message:
    query.use_tsig(key)
    return query


# what is no peer's


@pytest.mark.parametrize("kind", ["A", "SOA", "AXFR", "IXFR"])
@pytest.mark.parametrize(
    "peers",
    [[Peer("far", peer_network("192.0.2.1"), None)], [SIGNED], [Peer("far", peer_network("192.0.2.1"), SECRET)], None],
)
def test_who_is_no_peer_gets_what_there_is_of_no_zone(kind: str, peers: list[Peer] | None) -> None:
    found = content(record("web1", "A", "10.0.0.2"))
    zones = [Served(ZONE, (b"lab", b"example"), found, peers)] if peers else []
    for query in (question(ZONE, kind), with_key(question(ZONE, kind), dns.tsig.Key(KEY, b"another" * 5))):
        answer = raw(zones, query.to_wire())
        assert answer[3] & 15 == dns.rcode.REFUSED
        assert struct.unpack("!HHH", answer[6:12])[:2] == (0, 0)
        # One bit and the rest of the question: nothing of the zone's.
        assert answer[4:12] in (b"\0\1" + bytes(6), b"\0\1" + bytes(4) + b"\0\1")


def raw(zones: list[Served], *wires: bytes) -> bytes:
    """What comes back for the last of messages by UDP; nothing when nothing comes."""

    async def talk(port: int) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(("127.0.0.1", port))
            for wire in wires:
                await loop.sock_sendall(sock, wire)
                try:
                    answer = await asyncio.wait_for(loop.sock_recv(sock, 65535), 0.5)
                except TimeoutError:
                    answer = b""
        return answer

    return with_server(zones, talk)


def test_a_signature_of_long_ago_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = served(content(), SIGNED)
    query = with_key(question(ZONE, "SOA"), dns.tsig.Key(KEY, SECRET))
    wire = query.to_wire()
    assert raw([zone], wire)[3] & 15 == dns.rcode.NOERROR
    later = unittest.mock.Mock(time=lambda: time.time() + 1000)
    monkeypatch.setattr(tsig, "time", later)
    assert raw([zone], wire)[3] & 15 == dns.rcode.REFUSED
    assert raw([zone], wire[:-1] + bytes([wire[-1] ^ 1]))[3] & 15 != dns.rcode.NOERROR


def test_a_peer_may_be_known_by_its_key_alone_or_be_a_network() -> None:
    key_alone = Peer("sec", None, SECRET)
    query = with_key(question(ZONE, "SOA"), dns.tsig.Key(KEY, SECRET))
    assert ask([served(content(), key_alone)], query).rcode() == dns.rcode.NOERROR
    network = Peer("lan", peer_network("127.0.0.0/8"), None)
    assert ask([served(content(), network)], question(ZONE, "SOA")).rcode() == dns.rcode.NOERROR


# transfers


def test_a_large_zone_goes_in_small_messages() -> None:
    zone = content(*(record(f"h{number}", "A", "10.0.0.1") for number in range(5000)))
    query = parse(question(ZONE, "AXFR").to_wire())
    wires = list(transfer.messages(query, transfer.records(zone, query), None))
    assert len(wires) > 5
    assert all(len(wire) < 16384 for wire in wires)
    assert len(transferred(served(zone)).nodes) == 5001


def test_changes_alone_are_sent_where_the_client_was_there() -> None:
    zone = content(*(record(f"h{number}", "A", "10.0.0.1") for number in range(100)))
    names = {f"h{number}" for number in range(100)}
    for number in range(3):
        change(zone, *(record(name, "A", f"10.0.0.{number + 2}" if name == "h1" else "10.0.0.1") for name in names))
    for serial, expected in ((1, 3 * 4 + 2), (3, 4 + 2), (4, 1), (5, 1), (77, 1), ((1 << 31) + 9, 100 + 3)):
        query = parse(ixfr(serial).to_wire())
        assert len(transfer.records(zone, query)) == expected, serial
    (wire,) = transfer.messages(query := parse(ixfr(3).to_wire()), transfer.records(zone, query), None)
    assert len(wire) < 1024


def ixfr(serial: int) -> dns.message.Message:
    query = question(ZONE, "IXFR")
    query.authority.append(dns.rrset.from_text(f"{ZONE}.", 0, "IN", "SOA", f"a. b. {serial} 0 0 0 0"))
    return query


def test_dnspython_follows_by_ixfr() -> None:
    zone = content(record("a", "A", "10.0.0.1"), record("b", "A", "10.0.0.2"))
    change(zone, record("b", "A", "10.0.0.3"), record("c", "A", "10.0.0.4"))

    async def talk(port: int) -> dns.zone.Zone:
        def run() -> dns.zone.Zone:
            found = dns.zone.from_text(
                "@ 3600 SOA ns hostmaster 1 120 60 86400 30\n@ 300 NS ns\na 300 A 10.0.0.1\nb 300 A 10.0.0.2\n",
                ZONE, relativize=False, zone_factory=dns.versioned.Zone,
            )  # fmt: skip
            query, _ = dns.xfr.make_query(found)
            dns.query.inbound_xfr("127.0.0.1", found, query, port=port, timeout=10, lifetime=20)
            return found

        return await asyncio.to_thread(run)

    found = with_server([served(zone)], talk)
    assert {name.to_text().split(".")[0] for name in found.nodes} == {"lab", "b", "c"}
    assert found.get_soa().serial == 2


def test_a_transfer_by_udp_is_told_to_come_by_tcp(zone: Served) -> None:
    assert raw([zone], question(ZONE, "AXFR").to_wire())[3] & 15 == dns.rcode.REFUSED
    answer = ask([zone], ixfr(0))
    assert len(answer.answer) == 1


def test_what_is_too_long_for_udp_is_cut() -> None:
    zone = served(content(*(record("many", "A", f"10.0.{number // 250}.{number % 250}") for number in range(400))))
    query = question(f"many.{ZONE}")
    for most in (512, 1232):
        query.use_edns(0, payload=most)
        answer = ask([zone], query)
        assert answer.flags & dns.flags.TC
        assert not answer.answer
    assert len(ask([zone], query, tcp=True).answer[0]) == 400


# what is hostile


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise(wire: bytes) -> None:
    check_harmless(wire)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_broken_query_raises(data: st.DataObject) -> None:
    """Real queries with bytes changed, cut off or put in."""
    kind = data.draw(st.sampled_from(["A", "AXFR", "IXFR", "TSIG"]))
    query = ixfr(3) if kind == "IXFR" else question(f"www.{ZONE}", "A" if kind == "TSIG" else kind)
    if kind == "TSIG":
        with_key(query, dns.tsig.Key(KEY, SECRET))
    query.use_edns(0)
    wire = bytearray(query.to_wire())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(wire) - 1))
        match data.draw(st.sampled_from(["set", "cut", "add"])):
            case "set":
                wire[at] = data.draw(st.integers(0, 255))
            case "cut":
                del wire[at : at + data.draw(st.integers(1, 4))]
            case "add":
                wire[at:at] = data.draw(st.binary(max_size=4))
        if not wire:
            break
    check_harmless(bytes(wire))


def check_harmless(wire: bytes) -> None:
    """No exception is logged, and who is no peer gets FORMERR, NOTIMP or REFUSED at most."""
    directory = Directory()
    directory.put(served(content(record("www", "A", "10.0.0.2")), Peer("sec", peer_network("192.0.2.1"), SECRET)))
    responder = Responder(directory)
    for udp in (True, False):
        with no_errors():
            reply = responder.reply(wire, ipaddress.ip_address("127.0.0.1"), udp=udp)
        if reply:
            (answer,) = reply.wires
            assert answer[:2] == wire[:2]
            assert answer[3] & 15 in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.REFUSED)
            assert not reply.granted


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (b"", None), (bytes(11), None), (b"\0\1\x80\0" + bytes(8), None),
        (b"\0\1\x28\0\0\1" + bytes(6), dns.rcode.NOTIMP), (b"\0\1\x20\0\0\1" + bytes(6), dns.rcode.NOTIMP),
        (b"\0\1\0\0\0\0" + bytes(6), dns.rcode.FORMERR), (b"\0\1\0\0\0\2" + bytes(6), dns.rcode.FORMERR),
        (b"\0\1\0\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),
        (b"\0\1\0\0\0\1" + bytes(6) + b"\x3f", dns.rcode.FORMERR),
    ],
)  # fmt: skip
def test_malformed(zone: Served, wire: bytes, rcode: int | None) -> None:
    answer = raw([zone], wire)
    assert (answer[3] & 15 if answer else None) == rcode


def test_strangers_have_a_rate(zone: Served) -> None:
    wire = question("elsewhere.example").to_wire()

    async def talk(port: int) -> int:
        loop = asyncio.get_running_loop()
        answers = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(("127.0.0.1", port))
            for _ in range(200):
                sock.send(wire)
                await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                while await asyncio.wait_for(loop.sock_recv(sock, 512), 0.3):
                    answers += 1
        return answers

    assert 40 <= with_server([zone], talk) < 80


def test_segments_may_be_cut_anywhere(zone: Served) -> None:
    wire = question(f"web1.{ZONE}").to_wire()
    whole = struct.pack("!H", len(wire)) + wire

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(1, len(whole)):
            writer.write(whole[:at])
            await asyncio.sleep(0.001)
            writer.write(whole[at:])
            length = int.from_bytes(await reader.readexactly(2), "big")
            answer = dns.message.from_wire(await reader.readexactly(length))
            assert answer.answer
        writer.close()

    with_server([zone], talk)


def test_idle_and_slow_connections_are_closed(zone: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE", 0.2)
    monkeypatch.setattr(server_module, "WHOLE", 0.2)

    async def talk(port: int) -> None:
        for begun in (b"", b"\0", b"\0\x20abc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()

    with_server([zone], talk)


def test_many_idle_strangers_keep_no_peer_out() -> None:
    """The one address of the loopback is a peer's by its key only, so a stranger's until it signs."""
    zone = served(content(record("web1", "A", "10.0.0.2")), Peer("sec", None, SECRET))
    query = with_key(question(f"web1.{ZONE}"), dns.tsig.Key(KEY, SECRET))

    # Both ends of each are this process's.
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    async def talk(port: int) -> dns.message.Message:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        answer = await dns.asyncquery.tcp(query, "127.0.0.1", port=port, timeout=5)
        for _, writer in idle:
            writer.close()
        return answer

    assert with_server([zone], talk).answer
