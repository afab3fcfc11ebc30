# SPDX-License-Identifier: Apache-2.0
"""Two hosts that meet: only these two, once, and for what they were told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sysd.manager import lines, meetings
from sysd.manager.lines import Line
from sysd.manager.meetings import Awaited
from sysd.manager.talks import talking
from sysd.model.errors import (
    BusyError,
    CancelledError,
    DeniedError,
    FailedError,
    InvalidError,
    SyscontError,
    UnreachableError,
)
from sysd.model.transfer import Move, Offer
from sysd.remote import certificate
from sysd.remote.certificate import Identity
from sysd.varlink import remote as door
from tests.remote.lab import WAIT, Host, Talk, free_port, handshake, stranger, until
from tests.remote.test_door import context

SETTLED = 0.2


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "other", {})
    yield made
    made.close()


def pem(host: Host) -> str:
    return certificate.pem(host.certificate)


def own(host: Host) -> Identity:
    return host.do(host.trust.identity)


def offered(host: Host, peer: Host) -> tuple[Offer, Awaited]:
    return host.do(lambda: host.meetings.offer(pem(peer)))


def refusal(offer: Offer, who: Identity) -> str:
    """What one is told who shakes hands; empty when nothing is wrong with that."""
    try:
        handshake(offer.addresses[0], context(who))
    except ssl.SSLError as error:
        return str(error.reason)
    return ""


async def greet(host: Host, way: Offer | Awaited, word: str) -> tuple[str, bytes]:
    """Say a word, give some bytes, and return what the other one says and gives."""
    async with host.meetings.line(way) as line, talking(line) as talk:
        talk.say("word", word=word)
        said = await talk.hear("word")
        give, line.give = line.give, -1
        take, line.take = line.take, -1
        await asyncio.to_thread(_send, give, word.encode() * 100_000)
        got = await asyncio.to_thread(_all, take)
        talk.say("bye")
        await talk.hear("bye")
    return str(said["word"]), got


def _send(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)


def _all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def both(host: Host, other: Host, offer: Offer, awaited: Awaited) -> list[tuple[str, bytes]]:
    one = asyncio.run_coroutine_threadsafe(greet(host, awaited, "one"), host._loop)
    two = asyncio.run_coroutine_threadsafe(greet(other, offer, "two"), other._loop)
    return [one.result(WAIT), two.result(WAIT)]


def test_two_that_meet(host: Host, other: Host) -> None:
    assert both(host, other, *offered(host, other)) == [("two", b"two" * 100_000), ("one", b"one" * 100_000)]
    assert host.do(host.meetings.certificates) == []
    until(lambda: host.do(lambda: not host.door._visitors))


def test_a_secret_is_good_once(host: Host, other: Host) -> None:
    offer, awaited = offered(host, other)
    assert refusal(offer, own(other)) == ""
    both(host, other, offer, awaited)
    assert refusal(offer, own(other)) == "TLSV1_ALERT_UNKNOWN_CA"
    with pytest.raises(DeniedError):
        other.wait(greet(other, offer, "x"))


def test_another_secret(host: Host, other: Host) -> None:
    """Whoever says it is the host that is awaited, and so are its next words."""
    offer, awaited = offered(host, other)
    for secret in ("", "x", offer.secret[:-1], offer.secret[1:] + "A", "A" * 43, "ü" * 43, "A" * 20_000):
        with pytest.raises(SyscontError):
            other.wait(greet(other, replace(offer, secret=secret), "x"))
    assert not host.do(awaited.line.done)
    assert both(host, other, offer, awaited)[0][0] == "two"


def test_nobody_else_shakes_hands(host: Host, other: Host, tmp_path: Path) -> None:
    offer, _ = offered(host, other)
    assert refusal(offer, stranger(tmp_path, "eve")) == "TLSV1_ALERT_UNKNOWN_CA"


def test_one_who_is_trusted_is_not_who_is_awaited(host: Host, other: Host) -> None:
    """The secret alone is worth nothing."""
    alice = host.trust_client("alice")
    offer, _ = offered(host, other)
    with pytest.raises(DeniedError):
        host.wait(_meet(offer, alice, host.certificate))


async def _meet(offer: Offer, who: Identity, server: bytes) -> None:
    line = await lines.dial(offer.addresses, who, server, offer.secret)
    try:
        raise await asyncio.wait_for(asyncio.shield(line.lost), WAIT)
    finally:
        await line.close()


def test_who_is_awaited_may_do_nothing_else(host: Host, other: Host) -> None:
    offered(host, other)
    talk = Talk(host.call(own(other)))
    for method in ("Echo", "ListInstances", "Exec", "Join", "OfferTransfer"):
        assert talk.ask(method, text="x")["error"] == "org.varlink.service.MethodNotFound"
    assert talk.ask("Meet", secret="x")["error"].endswith("InvalidArgument")  # without streams
    assert talk.ask("Meet")["error"].endswith("InvalidArgument")
    talk.close()
    assert host.callers == []


def test_its_time_is_over(host: Host, other: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "PATIENCE", 0.3)
    offer, awaited = offered(host, other)
    with pytest.raises(FailedError, match="did not come"):
        host.wait(greet(host, awaited, "x"))
    assert refusal(offer, own(other)) == "TLSV1_ALERT_UNKNOWN_CA"


def test_one_who_says_nothing_is_seen_off(host: Host, other: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "JOIN", 0.3)
    offered(host, other)
    link = host.call(own(other))
    link.local.settimeout(WAIT)
    assert link.local.recv(1) == b""


def test_it_is_given_up(host: Host, other: Host) -> None:
    offer, awaited = offered(host, other)
    host.do(lambda: host.meetings.give_up(awaited))
    assert refusal(offer, own(other)) == "TLSV1_ALERT_UNKNOWN_CA"


def test_another_host_at_the_address(host: Host, other: Host, tmp_path: Path) -> None:
    offer, _ = offered(host, other)
    eve = certificate.pem(stranger(tmp_path, "eve").certificate)
    with pytest.raises(UnreachableError, match="certificate is another one"):
        other.wait(greet(other, replace(offer, certificate=eve), "x"))


def test_nobody_at_the_address(host: Host, other: Host) -> None:
    offer, _ = offered(host, other)
    with pytest.raises(UnreachableError):
        other.wait(greet(other, replace(offer, addresses=[f"127.0.0.1:{free_port()}"]), "x"))


BAD: dict[str, Callable[[Offer], Offer]] = {
    "no address": lambda offer: replace(offer, addresses=[]),
    "many addresses": lambda offer: replace(offer, addresses=["127.0.0.1:1"] * 100),
    "no port": lambda offer: replace(offer, addresses=["127.0.0.1"]),
    "no certificate": lambda offer: replace(offer, certificate="x"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_offers(host: Host, other: Host, name: str) -> None:
    with pytest.raises(InvalidError):
        other.wait(greet(other, BAD[name](offered(host, other)[0]), "x"))


def test_a_peer_without_a_certificate(host: Host) -> None:
    for peer in ("", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InvalidError):
            host.do(lambda peer=peer: host.meetings.offer(peer))  # type: ignore[misc]


def test_not_too_many_are_awaited(host: Host, other: Host) -> None:
    for _ in range(meetings.MOST_AWAITED):
        offered(host, other)
    with pytest.raises(BusyError):
        offered(host, other)


def test_the_secret_is_kept_nowhere(host: Host, other: Host) -> None:
    offer, awaited = offered(host, other)
    assert offer.secret not in repr(awaited)
    held = b"".join(path.read_bytes() for path in host.folder.rglob("*") if path.is_file())
    assert offer.secret.encode() not in held


@pytest.mark.parametrize("who", ["waits", "dials"])
def test_the_other_one_hangs_up(host: Host, other: Host, who: str) -> None:
    """Whoever is left is told so at once, whatever it was doing."""
    offer, awaited = offered(host, other)

    async def stay(one: Host, way: Offer | Awaited) -> None:
        async with one.meetings.line(way) as line, talking(line) as talk:
            await talk.run(_read(line))

    async def leave(one: Host, way: Offer | Awaited) -> None:
        async with one.meetings.line(way):
            await asyncio.sleep(SETTLED)

    stays, leaves = ((host, awaited), (other, offer)) if who == "dials" else ((other, offer), (host, awaited))
    staying = asyncio.run_coroutine_threadsafe(stay(*stays), stays[0]._loop)
    leaving = asyncio.run_coroutine_threadsafe(leave(*leaves), leaves[0]._loop)
    leaving.result(WAIT)
    with pytest.raises(FailedError, match=r"lost|hung up"):
        staying.result(WAIT)


async def _read(line: Line) -> None:
    await asyncio.sleep(WAIT)
    os.fstat(line.take)


# what becomes of a move


def move(host: Host, peer: Host, **changes: Any) -> Move:
    made = replace(Move("a" * 64, True, "u1", "x", pem(peer)), **changes)

    def keep() -> None:
        host.store.put_move(made)
        host.settlements._keep(made)

    host.do(keep)
    return made


def settle(host: Host, peer: Host, known_as: str = "a" * 64, *, decided: bool = False) -> dict[str, Any]:
    """As the daemon of peer asks host."""
    asking = lines.ask([host.address], own(peer), host.certificate, "Settle", id=known_as, decided=decided)
    return peer.wait(asking)


def rows(host: Host) -> list[Move]:
    return host.do(lambda: list(host.store.moves()))


def test_what_a_source_says(host: Host, other: Host) -> None:
    with pytest.raises(DeniedError):
        settle(host, other)
    move(host, other, decided=True)
    assert settle(host, other, "b" * 64) == {"decided": False}
    assert settle(host, other) == {"decided": True}
    assert rows(host)
    assert settle(host, other, decided=True) == {"decided": True}
    assert rows(host) == []
    with pytest.raises(DeniedError):
        settle(host, other)


def test_a_source_that_has_yet_to_decide(host: Host, other: Host) -> None:
    made = move(host, other)
    host.do(lambda: host.settlements._under_way.add(made.id))
    with pytest.raises(BusyError):
        settle(host, other)
    host.do(lambda: host.settlements.settle(made))
    assert settle(host, other) == {"decided": False}
    host.wait(host.settlements.start())  # as after a crash
    assert rows(host) == []


def test_what_is_given_up_does_not_arrive_later(host: Host, other: Host) -> None:
    """The source has forgotten it when it has heard that it is not known."""
    offered(host, other)
    made = Move("a" * 64, False, "u1", "x", pem(other))
    assert settle(host, other) == {"decided": False}
    with pytest.raises(CancelledError):
        host.do(lambda: host.settlements.arrived(made))
    assert rows(host) == []
    host.do(lambda: host.settlements.arrived(replace(made, id="b" * 64)))
    with pytest.raises(BusyError):
        settle(host, other, "b" * 64)


def test_only_so_many_are_remembered(host: Host, other: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysd.manager.settlements.MOST_REFUSED", 2)
    offered(host, other)
    for known_as in ("a", "b", "a"):
        assert settle(host, other, known_as * 64) == {"decided": False}
    with pytest.raises(BusyError):
        settle(host, other, "c" * 64)


def test_one_who_has_nothing_to_do_with_it(host: Host, other: Host, tmp_path: Path) -> None:
    third = Host(tmp_path / "third", {})
    try:
        move(host, other, decided=True)
        with pytest.raises(DeniedError):
            settle(host, third)
        offered(host, third)  # who is awaited for something else is told no more
        assert settle(host, third, decided=True) == {"decided": False}
        assert rows(host)
    finally:
        third.close()


@pytest.mark.parametrize("decided", [False, True])
def test_a_source_tells_its_target(host: Host, other: Host, decided: bool) -> None:
    """It had called, so it calls again."""
    move(other, host, source=False)
    told = move(host, other, addresses=[other.address], decided=decided)
    host.do(lambda: host.settlements.settle(told))
    until(lambda: not rows(host))
    assert rows(other) == []


@pytest.mark.parametrize("decided", [False, True])
def test_a_target_asks_its_source(host: Host, other: Host, decided: bool) -> None:
    move(other, host, decided=decided)
    asks = move(host, other, source=False, addresses=[other.address])
    host.do(lambda: host.settlements.settle(asks))
    until(lambda: not rows(host))
    assert bool(rows(other)) is not decided  # one that was not is forgotten at its next start


def test_a_source_that_is_not_there_for_a_while(
    host: Host, other: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is another host, which is at its address meanwhile, taken for it."""
    monkeypatch.setattr("sysd.manager.settlements.AT_FIRST", 0.05)
    move(other, host, decided=True)
    real, wrong = other.address, Host(tmp_path / "wrong", {})
    try:
        asks = move(host, other, source=False, addresses=[wrong.address])
        host.do(lambda: host.settlements.settle(asks))
        with contextlib.suppress(TimeoutError):
            host.wait(asyncio.wait_for(asyncio.sleep(WAIT), 0.5))
        assert rows(host)
        move(host, other, source=False, addresses=[real])
        until(lambda: not rows(host))
    finally:
        wrong.close()
