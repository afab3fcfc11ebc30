# SPDX-License-Identifier: Apache-2.0
"""What the manager tells OVN of ACLs that are named, of peers, and of what is behind interfaces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sysd.manager.catalog import Catalog
from sysd.manager.events import EventBus
from sysd.manager.hosts import ports_of
from sysd.manager.overlay_ports import OverlayPorts
from sysd.manager.overlays import Overlays
from sysd.manager.table import Table
from sysd.model import ovn, server
from sysd.model.acls import Acl
from sysd.model.instance import Instance, Phase
from sysd.model.network import OVN, Network
from sysd.network.ovn import chassis
from sysd.network.ovn.chassis import Chassis
from sysd.network.ovn.database import Database
from sysd.network.ovn.northbound import digest
from sysd.store.database import Store
from tests.ovn.servers import Northd, Server

BLUE = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
RED = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
PREFIX = {"blue": "sc_bbbbbbbbbbbb", "red": "sc_aaaaaaaaaaaa"}


class World:
    """Two networks, of which Open vSwitch has nothing."""

    def __init__(self, server_: Server, folder: Path) -> None:
        self.server = server_
        self.store = store = Store(folder / "db")
        self.catalog = Catalog(store)
        self.catalog.remember_server_config({server.OVN_NORTHBOUND: server_.remote})
        self.table = Table(EventBus(), self.catalog.expand)
        self.overlays = Overlays(store, self.catalog, ports_of(self.table))
        for number, (name, uuid) in enumerate((("blue", BLUE), ("red", RED)), 1):
            config = {"network": "none", "ipv4.address": f"10.{number}.0.1/24", ovn.UUID: uuid,
                      ovn.HWADDR: f"02:00:00:00:00:0{number}"}  # fmt: skip
            self.catalog.remember(Network(name, OVN, config=config))

    def network(self, name: str) -> Network:
        return self.catalog.network(name)

    def guest(self, name: str, where: str, **options: str) -> None:
        said = {key.replace("__", "."): value for key, value in options.items()}
        nic = {"type": "nic", "network": where, "ipv4.address": f"10.{1 if where == 'blue' else 2}.0.9", **said}
        config = {"volatile.eth0.hwaddr": "02:00:00:00:01:01", "volatile.eth0.host_name": f"veth{name}"}
        self.table.add(Instance(f"u-{name}", name, "f", 0, phase=Phase.READY, devices={"eth0": nic}, config=config))

    def peered(self, name: str, target: str, *, named: bool = True) -> None:
        """named: whether it names the other one at all."""
        there = [{"name": f"to-{target}", "target": target, "description": ""}] if named else []
        self.catalog.remember(replace(self.network(name), peers=there))

    async def up(self, *names: str) -> None:
        for name in names:
            await self.overlays.bring_up(self.network(name))

    def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """All on one loop, which the connection to the database belongs to."""

        async def work() -> None:
            try:
                await steps()
            finally:
                await (await self.overlays._database()).close()
                self.store.close()

        asyncio.run(work())

    def matches(self) -> list[str]:
        return sorted(row["match"] for row in self.server.rows("ACL") if row["priority"] >= 300)

    def groups(self) -> set[str]:
        return {row["name"] for row in self.server.rows("Port_Group")}


@pytest.fixture
def world(north: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    async def nothing(*args: object, **options: object) -> list[object]:
        return []

    for name in ("attached", "attach", "detach"):
        monkeypatch.setattr(chassis, name, nothing)
    monkeypatch.setattr(Overlays, "hosts_changed", lambda self: None)
    return World(north, tmp_path)


def group(network: str, acl: str) -> str:
    return f"{PREFIX[network]}_acl_{digest(acl)}"


def allow(source: str) -> list[dict[str, str]]:
    return [{"action": "allow", "source": source}]


def test_who_is_only_named_has_a_group(world: World) -> None:
    async def steps() -> None:
        await world.up("blue")

    world.catalog.remember(Acl("web", ingress=allow("db,@external")))
    world.catalog.remember(Acl("db", ingress=allow("10.99.0.1,other")))
    world.guest("c1", "blue", **{"security.acls": "web"})
    world.run(steps)
    assert world.groups() >= {group("blue", "web"), group("blue", "db")}
    db = group("blue", "db")
    assert world.matches() == [
        f"outport == @{group('blue', 'web')} && "
        f"(((ip4.src == {{${db}_ip4}} || (ip4 && inport == @{db}) || "
        "ip4.src != {10.1.0.0/24, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255/32})) || "
        f"((ip6.src == {{${db}_ip6}} || (ip6 && inport == @{db}) || ip6.src != {{fe80::/10, ff00::/8}})))"
    ]


def test_peers_are_who_they_are_now(world: World) -> None:
    async def steps() -> None:
        await world.up("blue", "red")
        assert world.matches() == []
        world.peered("red", "blue")
        await world.up("red")
        assert world.matches() == [f"outport == @{group('blue', 'web')} && ip4.src == {{10.2.0.0/24, 10.77.0.0/24}}"]
        ways = {row["ip_prefix"] for row in world.server.rows("Logical_Router_Static_Route")}
        assert ways == {"10.1.0.0/24", "10.2.0.0/24", "10.77.0.0/24"}
        world.peered("red", "blue", named=False)
        await world.up("red")
        assert world.matches() == []

    world.catalog.remember(Acl("web", ingress=allow("@blue/to-red")))
    world.guest("c1", "blue", **{"security.acls": "web"})
    world.guest("c2", "red", **{"ipv4.routes": "10.77.0.0/24"})
    world.peered("blue", "red")
    world.run(steps)


def test_peers_learn_what_is_behind_a_guest_when_it_starts(world: World) -> None:
    async def steps() -> None:
        await world.up("blue", "red")
        world.guest("c2", "red", **{"ipv4.routes": "10.77.0.0/24"})
        await world.overlays.ready(world.network("red"))

    world.peered("blue", "red")
    world.peered("red", "blue")
    world.run(steps)
    ways = [row["ip_prefix"] for row in world.server.rows("Logical_Router_Static_Route")]
    assert ways.count("10.77.0.0/24") == 2
    allowed = [str(row["port_security"]) for row in world.server.rows("Logical_Switch_Port")]
    assert [each for each in allowed if "10.2.0.9 " in each and "10.77.0.0/24" in each]


def test_one_more_is_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many: the others are not looked at again, and when nothing is new, nothing is asked."""
    asked: list[str] = []

    def count(name: str) -> None:
        original = getattr(Database, name)

        async def counted(self: Database, work: Any, **options: Any) -> Any:
            asked.append(name)
            return await original(self, work, **options)

        monkeypatch.setattr(Database, name, counted)

    def there() -> int:
        return len(world.server.rows("Logical_Switch_Port"))

    async def steps() -> None:
        for number in range(20, 60):
            world.guest(f"g{number}", "blue", **{"ipv4.address": f"10.1.0.{number}"})
        await world.up("blue")
        before = there()
        asked.clear()
        await world.overlays.ready(world.network("blue"))
        assert asked == []
        world.guest("more", "blue", **{"ipv4.address": "10.1.0.60"})
        await world.overlays.ready(world.network("blue"))
        assert (asked, there()) == (["change"], before + 1)
        world.table.remove(world.table.by_uuid("u-g30"))
        await world.overlays.ready(world.network("blue"))
        assert (asked, there()) == (["change"] * 2, before)

    count("change")
    count("read")
    world.run(steps)


def test_what_ovn_gives_is_learned(world: World, northd: Northd) -> None:
    """Without a look at all the rest, which somebody may have changed."""

    def routes() -> list[str]:
        return [row["ip_prefix"] for row in world.server.rows("Logical_Router_Static_Route")]

    async def steps() -> None:
        await world.up("blue")
        assert routes() == []
        world.server.transact({"op": "update", "table": "Port_Group", "where": [], "row": {"name": "another"}})
        for _ in range(100):
            assert await world.overlays._put_right("blue", whole=False)
            if routes():
                break
            await asyncio.sleep(0.05)
        assert routes() == ["10.77.0.0/24"]
        assert world.groups() == {"another"}
        assert await world.overlays._put_right("blue", whole=True)
        assert f"{PREFIX['blue']}_guests" in world.groups()

    world.guest("c1", "blue", **{"ipv4.address": "", "ipv4.routes": "10.77.0.0/24"})
    world.run(steps)


def test_a_link_that_goes_to_another_network_stays_its_port(
    north: Server, vswitch: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former one is looked at later, and knows it as its own still."""
    monkeypatch.setattr(Overlays, "hosts_changed", lambda self: None)
    vswitch.transact(
        {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": "br-int"}},
        {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}},
    )
    world = World(north, tmp_path)

    def iface_id() -> str:
        (row,) = [row for row in vswitch.rows("Interface", "name", "external_ids") if row["name"] == "vethc1"]
        return str(dict(row["external_ids"][1])["iface-id"])

    async def steps() -> None:
        world.overlays._switch = Chassis(vswitch.remote)
        world.overlays._ports = OverlayPorts(ports_of(world.table), world.overlays._switch)
        try:
            await world.up("blue", "red")
            assert iface_id().startswith("sc-bbbbbbbbbbbb-nic-")
            world.table.remove(world.table.by_uuid("u-c1"))
            world.guest("c1", "red")
            await world.overlays.ready(world.network("red"))
            assert await world.overlays._put_right("blue", whole=False)
            assert iface_id().startswith("sc-aaaaaaaaaaaa-nic-")
        finally:
            await world.overlays._switch.close()

    world.guest("c1", "blue")
    world.run(steps)
