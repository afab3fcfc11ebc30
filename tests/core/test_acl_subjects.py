# SPDX-License-Identifier: Apache-2.0
"""Whom rules of ACLs name: it is there and stays, and networks can tell who it is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from sysd.manager.acls import Acls, AclUpdate
from sysd.manager.catalog import Catalog
from sysd.manager.events import EventBus
from sysd.manager.kept import Kept
from sysd.manager.networks import Networks
from sysd.manager.operations import Operations
from sysd.manager.subjects import groups
from sysd.manager.table import Table
from sysd.manager.uplinks import Uplinks
from sysd.model import acls, ovn, peers
from sysd.model.acls import Acl
from sysd.model.errors import BusyError, InvalidError, NotFoundError, SyscontError
from sysd.model.instance import Instance, Phase
from sysd.model.network import BRIDGE, OVN, PHYSICAL, Network
from sysd.store.database import Store


class NoUplinks:
    """Nothing is on the host."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    async def apply_rules(self, network: Network) -> None:
        self.applied.append(network.name)

    async def bring_up(self, network: Network) -> None: ...

    async def take_down(self, network: Network) -> None: ...

    async def change(self, before: Network, after: Network) -> None: ...


class NothingKept:
    def renew(self, instances: list[Instance]) -> None: ...


class House:
    def __init__(self, folder: Path) -> None:
        store, events = Store(folder / "db"), EventBus()
        self.catalog = Catalog(store)
        self.table = Table(events, self.catalog.expand)
        self.uplinks = NoUplinks()
        operations, uplinks = Operations(store, events), cast(Uplinks, self.uplinks)

        async def after(instances: list[Instance]) -> None: ...

        self.networks = Networks(
            store, self.catalog, events, operations, self.table, uplinks, after, cast(Kept, NothingKept())
        )
        self.acls = Acls(self.catalog, events, operations, self.table, self.networks, uplinks)

    def made(self, name: str, *sources: str) -> Coroutine[Any, Any, Acl]:
        return self.acls.create(name, AclUpdate(ingress=[{"action": "allow", "source": each} for each in sources]))

    def added(self, name: str, direction: str = "ingress", **rule: str) -> Coroutine[Any, Any, None]:
        said = {"action": "allow", **rule}
        return self.acls.change_rules(name, direction, lambda acl: acls.with_rule(acl, direction, said), 0)

    def removed(self, name: str) -> Coroutine[Any, Any, None]:
        def change(acl: Acl) -> list[dict[str, str]]:
            return acls.without_rule(acl, "ingress", {}, all_of_them=True)

        return self.acls.change_rules(name, "ingress", change, 0)

    def without_peer(self) -> Coroutine[Any, Any, None]:
        return self.networks.change_peers("blue", lambda network: peers.without(network, "to-red"), 0)


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    for number, name in enumerate(("blue", "red")):
        config = {"network": "none", "ipv4.address": f"10.{number}.0.1/24", ovn.UUID: f"{number}"}
        there = [{"name": "to-red", "target": "red", "description": ""}] if name == "blue" else []
        made.catalog.remember(Network(name, OVN, config=config, peers=there))
    made.catalog.remember(Network("br0", BRIDGE, config={"ipv4.address": "10.9.0.1/24"}))
    return made


def test_what_is_named_is_there(house: House) -> None:
    async def steps() -> None:
        for word, error in (("web", NotFoundError), ("@green/x", NotFoundError), ("@blue/x", NotFoundError),
                            ("@br0/x", InvalidError), ("@elsewhere", InvalidError)):  # fmt: skip
            with pytest.raises(error):
                await house.made("db", word)
        assert not house.catalog.has_acl("db")
        await house.made("db", "db,10.0.0.1", "@internal,@blue/to-red")
        for word in ("web", "@red/to-blue"):
            with pytest.raises(NotFoundError):
                await house.added("db", source=word)
            with pytest.raises(NotFoundError):
                await house.added("db", "egress", destination=word)
        await house.made("web")
        await house.added("db", source="web")
        assert house.catalog.acl("db").named == ["db", "@internal", "@blue/to-red", "web"]
        assert house.catalog.acl("db").named_acls == ["db", "web"]

    asyncio.run(steps())


def test_what_is_named_stays(house: House) -> None:
    async def steps() -> None:
        await house.made("web")
        await house.made("db", "web,db", "@blue/to-red")
        assert (house.acls.users("web"), house.acls.users("db")) == (["db"], [])
        for refused in (house.acls.delete("web"), house.acls.rename("web", "front")):
            with pytest.raises(BusyError, match="ACL web is in use by ACL db"):
                await refused
        for refused in (house.without_peer(), house.networks.delete("blue", 0),
                        house.networks.rename("blue", "green", 0)):  # fmt: skip
            with pytest.raises(BusyError, match="peer to-red of network blue is named by ACL db"):
                await refused
        await house.acls.rename("db", "sql")
        assert house.catalog.acl("sql").ingress[0]["source"] == "web,sql"
        await house.removed("sql")
        await house.without_peer()
        await house.acls.delete("web")

    asyncio.run(steps())


@pytest.mark.parametrize("word", ["web", "@internal", "@external", "@blue/to-red"])
def test_bridges_know_addresses_alone(house: House, word: str) -> None:
    async def steps() -> None:
        await house.made("web")
        await house.made("named", word)
        with pytest.raises(InvalidError, match=rf"security.acls: ACL named names {word}, and network br0 is"):
            await house.networks.change("br0", {"security.acls": "web,named"}, (), 0)
        br0 = house.catalog.network("br0")
        house.catalog.remember(Network("br0", BRIDGE, config=br0.config | {"security.acls": "plain"}))
        await house.made("plain")
        await house.added("plain", source="10.0.0.1")
        with pytest.raises(InvalidError, match=f"ACL plain names {word}, and network br0"):
            await house.added("plain", source=word)
        with pytest.raises(InvalidError, match=f"ACL plain names {word}, and network br0"):
            await house.acls.update("plain", AclUpdate(egress=[{"action": "drop", "destination": word}]), 0)
        assert house.catalog.acl("plain").named == []
        assert house.uplinks.applied == ["br0"]

    asyncio.run(steps())


def test_each_network_knows_its_own_peers(house: House) -> None:
    async def steps() -> None:
        await house.made("named", "@blue/to-red")
        await house.networks.change("blue", {"security.acls": "named"}, (), 0)
        with pytest.raises(InvalidError, match=r"security.acls: ACL named names @blue/to-red, and holds in"):
            await house.networks.change("red", {"security.acls": "named"}, (), 0)
        await house.made("plain")
        nic = {"type": "nic", "network": "red", "security.acls": "plain"}
        house.table.add(Instance("u1", "c1", "f", 0, phase=Phase.READY, devices={"eth0": nic}))
        with pytest.raises(InvalidError, match="ACL plain names @blue/to-red, and holds in network red"):
            await house.added("plain", source="@blue/to-red")
        await house.added("plain", source="named,@external")
        assert house.uplinks.applied == ["red"]

    asyncio.run(steps())


def test_who_is_only_named_has_no_rules() -> None:
    one = Acl("a", ingress=[{"action": "allow", "source": "a,b,c,@internal"}])
    other = Acl("b", ingress=[{"action": "allow", "source": "d"}])
    found = {each.name: each for each in (one, other, Acl("c", egress=[{"action": "drop"}]), Acl("d"))}
    assert groups([one], found.__getitem__) == [Acl("b"), Acl("c")]
    assert groups([one, other], found.__getitem__) == [Acl("c"), Acl("d")]
    assert groups([], found.__getitem__) == []


def test_errors_name_what_is_wrong(house: House) -> None:
    async def steps() -> str:
        try:
            await house.made("db", "10.0.0.1,web")
        except SyscontError as error:
            return error.text
        return ""

    assert "no ACL 'web'" in asyncio.run(steps())


def test_uplinks_keep_what_interfaces_have_there(house: House) -> None:
    async def steps() -> None:
        routes = {"ipv4.routes": "198.51.100.0/24,203.0.113.0/24"}
        lan = {"parent": "eth9", "ipv4.gateway": "192.0.2.1/24", "ipv4.ovn.ranges": "192.0.2.9-192.0.2.20"}
        house.catalog.remember(Network("lan", PHYSICAL, config=lan | routes))
        await house.networks.change("blue", {"network": "lan"}, (), 0)
        nic = {"type": "nic", "network": "blue", "ipv4.routes.external": "198.51.100.4/30"}
        house.table.add(Instance("u1", "c1", "f", 0, phase=Phase.READY, devices={"eth0": nic}))
        await house.networks.change("lan", {"ipv4.routes": "198.51.100.0/24"}, (), 0)
        for name, values in (("lan", {"ipv4.routes": "203.0.113.0/24"}), ("blue", {"network": "none"}),
                             ("red", {"ipv4.address": "198.51.100.1/24"})):  # fmt: skip
            with pytest.raises(InvalidError, match=r"device eth0 of c1: ipv4.routes.external: 198.51.100.4/30"):
                await house.networks.change(name, values, (), 0)

    asyncio.run(steps())
