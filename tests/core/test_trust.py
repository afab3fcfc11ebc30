# SPDX-License-Identifier: Apache-2.0
"""Whom a host trusts: what it remembers, what it refuses, and that no secret is told twice."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sysd.dbus.polkit import Polkit
from sysd.manager.actions import Action, invited, trusted_remote
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus
from sysd.manager.server import Server
from sysd.manager.trust import MAX_INVITATIONS, Trust
from sysd.model.errors import BusyError, DeniedError, ExistsError, FailedError, InvalidError, NotFoundError
from sysd.model.network import Network
from sysd.model.server import DNS_ADDRESS, HTTPS_ADDRESS, TOKEN_EXPIRY
from sysd.network import links
from sysd.remote import certificate
from sysd.store.database import Store
from sysd.varlink.trust import TrustMethods

CONFIG = {HTTPS_ADDRESS: "192.0.2.1:8443"}


class World:
    def __init__(self, folder: Path, config: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.store = Store(folder / "db")
        self.catalog = Catalog(self.store)
        if config is not None:
            self.catalog.remember_server_config(config)
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.changes = 0
        self.trust = Trust(self.store, self.catalog, bus, folder)
        self.trust.on_change(self._changed)

    def _changed(self) -> None:
        self.changes += 1


def pem() -> str:
    return certificate.pem(certificate.make(os.urandom(32)))


def in_loop(work: Callable[[], None]) -> None:
    async def run() -> None:
        work()

    asyncio.run(run())


def test_it_is_remembered(tmp_path: Path) -> None:
    def work() -> None:
        world = World(tmp_path, CONFIG)
        made = world.trust.add(pem(), "alice")
        token = world.trust.invite("bob")
        assert world.changes == 2
        assert [event.changed for event in world.events] == [("Trusted",)] * 2
        world.store.close()
        again = World(tmp_path)
        assert again.trust.trusted() == [made]
        assert [one.name for one in again.trust.invitations()] == ["bob"]
        assert again.trust.identity().fingerprint == token.fingerprint == world.trust.fingerprint
        again.trust.remove("bob")
        again.trust.remove(made.fingerprint[:12])
        again.store.close()
        third = World(tmp_path)
        assert (third.trust.trusted(), third.trust.invitations()) == ([], [])

    in_loop(work)


def test_what_is_refused(tmp_path: Path) -> None:
    def work() -> None:
        world = World(tmp_path, CONFIG)
        alice = pem()
        world.trust.add(alice, "alice")
        for text, name, error in (
            (pem(), "alice", ExistsError),
            (alice, "other", ExistsError),
            (pem(), "../x", InvalidError),
            (pem(), "", InvalidError),
            (pem(), "a" * 65, InvalidError),
            ("rubbish", "x", InvalidError),
            (certificate.pem(b"0\x82\x01\x00" + bytes(256)), "x", InvalidError),
        ):
            with pytest.raises(error):
                world.trust.add(text, name)
        world.trust.invite("bob")
        with pytest.raises(ExistsError):
            world.trust.invite("bob")
        with pytest.raises(ExistsError):
            world.trust.add(pem(), "bob")
        assert [one.name for one in world.trust.trusted()] == ["alice"]

    in_loop(work)


def test_who_is_meant(tmp_path: Path) -> None:
    def work() -> None:
        world = World(tmp_path, CONFIG)
        made = [world.trust.add(pem(), name) for name in ("a", "b", "c")]
        for bad in ("", "nobody", made[0].fingerprint[:5], "g" * 64):
            with pytest.raises(NotFoundError):
                world.trust.remove(bad)
        world.trust.remove(made[0].fingerprint.upper()[:20])
        world.trust.remove("b")
        assert world.trust.trusted() == [made[2]]

    in_loop(work)


def test_no_address_no_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=HTTPS_ADDRESS):
        World(tmp_path, {}).trust.invite()


@pytest.mark.parametrize(
    ("where", "found"),
    [("192.0.2.1", ["192.0.2.1:8443"]), ("[2001:db8::1]:99", ["[2001:db8::1]:99"]), ("192.0.2.1:5", ["192.0.2.1:5"])],
)
def test_where_a_token_leads(tmp_path: Path, where: str, found: list[str]) -> None:
    in_loop(lambda: _equal(World(tmp_path, {HTTPS_ADDRESS: where}).trust.invite().addresses, found))


def _equal(one: object, other: object) -> None:
    assert one == other


def test_all_addresses_but_those_for_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {1: "lo", 2: "eth0", 3: "syscontbr0"}
    found = [(1, "127.0.0.1/8"), (2, "2001:db8::5/64"), (2, "192.0.2.5/24"), (2, "fe80::1/64"), (3, "10.0.0.1/24")]
    monkeypatch.setattr(links, "own_addresses", lambda: [(index, ip_interface(one)) for index, one in found])
    monkeypatch.setattr(socket, "if_indextoname", names.get)
    world = World(tmp_path, {HTTPS_ADDRESS: ":8443"})
    world.catalog.remember(Network("syscontbr0"))
    in_loop(lambda: _equal(world.trust.invite().addresses, ["192.0.2.5:8443", "[2001:db8::5]:8443"]))


def test_how_long_a_token_holds(tmp_path: Path) -> None:
    def work() -> None:
        world = World(tmp_path, CONFIG | {TOKEN_EXPIRY: "2d 1H"})
        assert abs(world.trust.invite().expires - time.time() - 49 * 3600) < 5
        world.catalog.remember_server_config(CONFIG)
        assert abs(world.trust.invite().expires - time.time() - 3600) < 5

    in_loop(work)


def test_there_are_not_too_many_tokens(tmp_path: Path) -> None:
    def work() -> None:
        world = World(tmp_path, CONFIG)
        for _ in range(MAX_INVITATIONS):
            world.trust.invite()
        with pytest.raises(BusyError):
            world.trust.invite()

    in_loop(work)


def test_tokens_that_are_over_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(tmp_path, CONFIG)
        token = world.trust.invite("bob")
        known = world.trust.invitations()[0]
        assert world.trust.find_invitation(known.fingerprint)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3601)
        assert world.trust.find_invitation(known.fingerprint) is None
        with pytest.raises(DeniedError):
            world.trust.join(known.fingerprint, pem(), "bob")
        world.trust.start()
        assert list(world.store.invitations()) == []
        assert world.trust.add(pem(), "bob")
        assert token

    asyncio.run(run())


def test_a_secret_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To whoever asked: not to events, the log, or the disk."""


    async def run() -> None:
        world = World(tmp_path, CONFIG)
        caplog.set_level("DEBUG")
        token = world.trust.invite("bob")
        call = MagicMock()
        await TrustMethods(world.trust).list(call)
        listed = json.dumps(call.reply.call_args.args[0])
        assert "bob" in listed
        said = repr(world.events) + caplog.text + listed + repr(world.trust.invitations())
        world.store.close()
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        for form in (token.secret.hex(), str(token)):
            assert form not in said
            assert form.encode() not in stored
        assert token.secret not in stored

    asyncio.run(run())


def test_all_is_permitted_to_who_is_trusted_and_nothing_to_others() -> None:
    bus = MagicMock()
    for action in Action:
        asyncio.run(Polkit(bus).check(trusted_remote("alice"), action, {}))
        with pytest.raises(DeniedError):
            asyncio.run(Polkit(bus).check(invited("f" * 64), action, {}))
    bus.call_people.assert_not_called()


def test_a_change_that_one_refuses_is_taken_back_by_others(tmp_path: Path) -> None:
    catalog = Catalog(Store(tmp_path / "db"))
    server = Server(catalog, EventBus(), MagicMock(), MagicMock(), MagicMock())
    seen: list[tuple[str, str]] = []
    server.before_change(lambda before, after: seen.append((before.get(DNS_ADDRESS, ""), after.get(DNS_ADDRESS, ""))))

    def refuse(before: object, after: object) -> None:
        raise FailedError("no")

    server.before_change(refuse)
    with pytest.raises(FailedError):
        asyncio.run(server.change({DNS_ADDRESS: ":53"}, (), 0))
    assert seen == [("", ":53"), (":53", "")]
    assert catalog.server_config == {}
