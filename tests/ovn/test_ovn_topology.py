# SPDX-License-Identifier: Apache-2.0
"""Rows of networks and ports: made once, put back, changed where they differ, gone, and others' never touched."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysd.model.errors import FailedError, InvalidError
from sysd.model.forwards import Forward
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.ports import add_port, add_ports, iface_id, ports_of, remove_port
from sysd.network.ovn.rows import MANAGED, SETS, TOPOLOGY, Owner, View, settle
from sysd.network.ovn.topology import ensure, networks, remove, topology
from sysd.network.ovn.values import OvnPort
from tests.ovn.servers import Server
from tests.ovn.worlds import BLUE, MAIL, RED, WEB, address, subnet, use

OF_OTHER_PARTS = ("ACL", "Logical_Router_Policy", "Meter", "Meter_Band")
TABLES = [table for table in MANAGED if table not in OF_OTHER_PARTS]
PUBLIC = replace(WEB, published=(subnet("198.51.100.0/30"),), routes=(subnet("10.9.0.0/24"), subnet("fd09::/64")))


def content(server: Server) -> dict[str, list[str]]:
    """Rows as they are but for their UUIDs, which are what the rows are marked with."""
    rows = {table: server.rows(table) for table in TABLES}
    known = {row["_uuid"][1]: json.dumps(row["external_ids"]) for each in rows.values() for row in each}
    return {table: sorted(json.dumps(_plain(row, known)) for row in each) for table, each in rows.items()}


def _plain(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(value[key], known) for key in sorted(value) if key not in ("_uuid", "_version")}
    if not isinstance(value, list) or not value:
        return value
    if value[0] == "uuid":
        return known.get(value[1], "theirs")
    if value[0] == "set":
        return sorted(_plain(each, known) for each in value[1])
    return [_plain(each, known) for each in value]


def foreign(server: Server) -> None:
    """A network of somebody else, who uses the same words as we do, and one that is marked, but not as ours."""
    server.transact(
        {"op": "insert", "table": "Logical_Switch", "uuid-name": "a",
         "row": {"name": "theirs", "ports": ["named-uuid", "b"], "acls": ["named-uuid", "c"]}},
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "b",
         "row": {"name": "theirs", "external_ids": ["map", [["syscont-network", RED.uuid]]]}},
        {"op": "insert", "table": "ACL", "uuid-name": "c",
         "row": {"priority": 7, "direction": "to-lport", "match": "ip", "action": "drop"}},
        {"op": "insert", "table": "DHCP_Options",
         "row": {"cidr": "10.1.0.0/24", "external_ids": ["map", [["syscont-row", "topology:dhcp4"]]]}},
        {"op": "insert", "table": "Load_Balancer", "row": {"name": "theirs"}},
        {"op": "insert", "table": "DNS", "row": {"records": ["map", [["web.red.example", "10.66.0.1"]]]}},
    )  # fmt: skip


def everything(server: Server) -> list[Any]:
    return use(
        server, lambda north: ensure(north, RED), lambda north: ensure(north, BLUE),
        lambda north: add_ports(north, RED, [PUBLIC, MAIL]),
    )  # fmt: skip


def test_once_and_no_more(north: Server) -> None:
    assert everything(north) == [True, True, True]
    assert all(north.rows(table) for table in TABLES)
    once = north.dump()
    assert everything(north) == [False, False, False]
    assert north.dump() == once


def test_gone_and_others_stay(north: Server) -> None:
    foreign(north)
    before = north.dump()
    everything(north)
    assert north.dump() != before
    assert use(north, networks) == [[RED.uuid, BLUE.uuid]]
    assert use(north, lambda n: remove(n, RED.uuid), lambda n: remove(n, BLUE.uuid)) == [True, True]
    assert north.dump() == before
    assert use(north, lambda n: remove(n, RED.uuid)) == [False]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_in_which_rows_go_does_not_matter(
    north: Server, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    before = north.dump()
    everything(north)
    ordered = View.owned
    monkeypatch.setattr(View, "owned", lambda *a: dict(sorted(ordered(*a).items(), reverse=backwards)))
    use(north, lambda n: remove(n, RED.uuid), lambda n: remove(n, BLUE.uuid))
    assert north.dump() == before


@pytest.mark.parametrize("table", TABLES)
def test_what_is_taken_away_comes_back(north: Server, table: str) -> None:
    foreign(north)
    everything(north)
    whole = content(north)
    theirs = [row for row in north.rows(table) if not _is_ours(row)]
    for row in north.rows(table):
        if row not in theirs:
            _take_away(north, table, row["_uuid"])
    assert content(north) != whole
    assert any(everything(north))
    assert content(north) == whole
    assert everything(north) == [False, False, False]


def _is_ours(row: dict[str, Any]) -> bool:
    return len({"syscont-row", "syscont-network"} & dict(row["external_ids"][1]).keys()) == 2


def _take_away(server: Server, table: str, uuid: list[str]) -> None:
    """A row, out of all the sets where it is."""
    places = {
        "Logical_Router_Port": [("Logical_Router", "ports")], "NAT": [("Logical_Router", "nat")],
        "Logical_Router_Static_Route": [("Logical_Router", "static_routes")], "ACL": [("Port_Group", "acls")],
        "Logical_Switch_Port": [("Logical_Switch", "ports")], "HA_Chassis": [("HA_Chassis_Group", "ha_chassis")],
    }.get(table, [])  # fmt: skip
    for kind, column in places:
        server.transact({"op": "mutate", "table": kind, "where": [], "mutations": [[column, "delete", uuid]]})
    if table == "HA_Chassis_Group":
        empty = {"ha_chassis_group": ["set", []]}
        server.transact({"op": "update", "table": "Logical_Router_Port", "where": [], "row": empty})
    if not places:
        server.transact({"op": "delete", "table": table, "where": [["_uuid", "==", uuid]]})


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("Logical_Router", {"enabled": False, "options": ["map", []], "static_routes": ["set", []], "nat": ["set", []]}),
    ("Logical_Router_Port", {"mac": "02:00:00:00:00:01", "networks": "10.7.0.1/24", "enabled": False, "peer": "x"}),
    ("Logical_Router_Port", {"ipv6_ra_configs": ["map", [["address_mode", "slaac"]]], "ha_chassis_group": ["set", []]}),
    ("Logical_Router_Static_Route", {"nexthop": "192.0.2.66", "output_port": ["set", []], "route_table": "x"}),
    ("NAT", {"external_ip": "192.0.2.66", "type": "dnat_and_snat", "external_port_range": "1-2"}),
    ("Logical_Switch", {"other_config": ["map", []], "dns_records": ["set", []], "load_balancer": ["set", []]}),
    ("Logical_Switch_Port", {"port_security": ["set", []], "addresses": "unknown", "enabled": False, "tag": 9}),
    ("Logical_Switch_Port", {"type": "", "options": ["map", []], "dhcpv4_options": ["set", []]}),
    ("DHCP_Options", {"cidr": "10.66.0.0/24", "options": ["map", [["router", "10.1.0.66"]]]}),
    ("DNS", {"records": ["map", []]}),
    ("Load_Balancer", {"vips": ["map", [["192.0.2.100:80", "10.66.0.1:80"]]], "protocol": "sctp"}),
    ("HA_Chassis_Group", {"ha_chassis": ["set", []]}),
    ("HA_Chassis", {"priority": 1, "chassis_name": "else"}),
    ("Port_Group", {"ports": ["set", []]}),
]


@pytest.mark.parametrize(("table", "row"), CHANGES)
def test_what_is_changed_is_changed_back(north: Server, table: str, row: dict[str, Any]) -> None:
    everything(north)
    whole = content(north)
    north.transact({"op": "update", "table": table, "where": [], "row": row})
    assert content(north) != whole
    assert any(everything(north))
    assert content(north) == whole


def test_what_others_hang_on_ours_stays(north: Server) -> None:
    everything(north)
    whole = content(north)
    switch = north.rows("Logical_Switch", "_uuid", "name")[0]["_uuid"]
    north.transact(
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "p", "row": {"name": "theirs"}},
        {"op": "mutate", "table": "Logical_Switch", "where": [["_uuid", "==", switch]],
         "mutations": [["ports", "insert", ["named-uuid", "p"]],
                       ["external_ids", "insert", ["map", [["theirs", "1"]]]]]},
    )  # fmt: skip
    with_theirs = content(north)
    assert everything(north) == [False, False, False]
    use(north, lambda n: ensure(n, replace(RED, mtu=1300)), lambda n: ensure(n, replace(BLUE, mtu=1300)))
    use(north, lambda n: ensure(n, RED), lambda n: ensure(n, BLUE))
    assert content(north) == with_theirs != whole


def test_doubles_of_ours_go(north: Server) -> None:
    everything(north)
    whole = content(north)
    (row,) = [row for row in north.rows("DNS", "external_ids") if RED.uuid in json.dumps(row)]
    north.transact({"op": "insert", "table": "DNS", "row": row})
    assert len(north.rows("DNS")) == 3
    everything(north)
    assert len(north.rows("DNS")) == 2
    assert content(north) == whole


@pytest.mark.parametrize("wanted", [row for row in topology(RED) if row.columns.get("name")], ids=lambda row: row.key)
def test_names_of_others_are_refused(north: Server, wanted: Any) -> None:
    row = {"name": wanted.columns["name"]}
    insert = {"op": "insert", "table": wanted.table, "row": row, "uuid-name": "x"}
    if wanted.table == "Logical_Switch_Port":
        place = {"op": "insert", "table": "Logical_Switch", "row": {"name": "t", "ports": ["named-uuid", "x"]}}
    elif wanted.table == "Logical_Router_Port":
        row["networks"] = "10.0.0.1/8"
        place = {"op": "insert", "table": "Logical_Router", "row": {"name": "t", "ports": ["named-uuid", "x"]}}
    else:
        place = {"op": "comment", "comment": "none"}
    north.transact(insert, place)
    before = north.dump()
    with pytest.raises(FailedError, match=f"{wanted.columns['name']} that is not ours"):
        use(north, lambda n: ensure(n, RED))
    assert north.dump() == before


def test_only_what_differs_is_written(north: Server) -> None:
    everything(north)
    before = {row["_uuid"][1]: row["_version"] for table in TABLES for row in north.rows(table)}
    assert use(north, lambda n: ensure(n, replace(RED, domain="new.example"))) == [True]
    after = {row["_uuid"][1]: (table, row["_version"]) for table in TABLES for row in north.rows(table)}
    changed = {table for uuid, (table, version) in after.items() if before[uuid] != version}
    assert changed == {"DHCP_Options"}


def test_smaller_networks(north: Server) -> None:
    for version in (4, 6):
        one = replace(
            RED, addresses=tuple(each for each in RED.addresses if each.version == version), uplink=None, forwards=(),
            nameservers=(), search=(), domain="", dhcp4=False, dhcp6=False,
        )  # fmt: skip
        assert [use(north, partial(ensure, network=one)) for _ in range(2)] == [[True], [False]]
    assert not any(north.rows(table) for table in ("DHCP_Options", "NAT", "HA_Chassis_Group"))
    assert len(north.rows("Logical_Switch")) == 1


def test_too_many_ports_in_a_forward() -> None:
    port = {"protocol": "tcp", "listen": "1-2000", "address": "10.1.0.20"}
    (balancer,) = [row for row in topology(replace(RED, forwards=(Forward("192.0.2.100", ports=[port]),)))
                   if row.table == "Load_Balancer"]  # fmt: skip
    assert len(dict(balancer.columns["vips"])) == 2000  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="more than 2000 tcp ports"):
        topology(replace(RED, forwards=(Forward("192.0.2.100", ports=[port | {"listen": "1-2001"}]),)))


def test_two_hosts_at_once(north: Server) -> None:
    async def both() -> None:
        hosts = [Northbound(north.remote) for _ in range(4)]
        for host in hosts:
            await host.read(lambda view: None)
        await asyncio.gather(*(ensure(host, RED) for host in hosts))
        await asyncio.gather(*(add_ports(host, RED, [WEB, MAIL]) for host in hosts))
        await asyncio.gather(*(host.close() for host in hosts))

    asyncio.run(both())
    assert len(north.rows("Logical_Router")) == 1
    assert use(north, lambda n: ensure(n, RED), lambda n: add_ports(n, RED, [WEB, MAIL])) == [False, False]


@pytest.mark.parametrize("table", ["NAT", "Logical_Router_Static_Route", "HA_Chassis"])
def test_another_host_comes_first(north: Server, table: str) -> None:
    """It puts back the same between our look and our change."""
    everything(north)
    (place, column) = SETS[table][0]
    north.transact({"op": "update", "table": place, "where": [], "row": {column: ["set", []]}})
    assert not north.rows(table)
    looks = []

    def work(view: View) -> None:
        settle(view, Owner(RED.uuid, TOPOLOGY), topology(RED))
        looks.append(1)
        if len(looks) == 1:
            use(north, lambda n: ensure(n, RED))

    assert use(north, lambda n: n.change(work)) == [False]
    assert len(looks) == 2
    assert len(north.rows(table)) == 2


def test_two_guests_of_one_name(north: Server) -> None:
    twin = replace(MAIL, hostname="web")
    use(north, lambda n: ensure(n, RED), lambda n: add_port(n, RED, WEB), lambda n: add_port(n, RED, twin))
    use(north, lambda n: remove_port(n, RED.uuid, WEB.id))
    records = dict(north.rows("DNS", "records")[0]["records"][1])
    assert records["web.red.example"] == "10.1.0.21 fd01::73:63ff:fe00:102"
    assert "20.0.1.10.in-addr.arpa" not in records


def test_a_port_of_no_network(north: Server) -> None:
    with pytest.raises(FailedError, match="lacks the") as caught:
        use(north, lambda n: add_port(n, RED, WEB))
    assert caught.value.hint
    assert use(north, lambda n: remove_port(n, RED.uuid, WEB.id)) == [False]


@pytest.mark.parametrize(
    "bad", [
        replace(WEB, id="a b"), replace(WEB, id=""), replace(WEB, hostname='x"'), replace(WEB, mac="x"),
        replace(WEB, addresses=(address("10.7.0.1"),)), replace(WEB, addresses=(address("fd01::7"),)),
        replace(WEB, published=(subnet("198.51.100.0/24"),)),
    ],
)  # fmt: skip
def test_ports_that_can_not_be(north: Server, bad: OvnPort) -> None:
    use(north, lambda n: ensure(n, RED))
    before = north.dump()
    with pytest.raises(InvalidError):
        use(north, lambda n: add_port(n, RED, bad))
    assert north.dump() == before


def test_ports_come_and_go(north: Server) -> None:
    use(north, lambda n: ensure(n, RED))
    use(north, lambda n: add_port(n, RED, PUBLIC), lambda n: add_port(n, RED, MAIL))
    found = use(north, lambda n: ports_of(n, RED.uuid))[0]
    assert [(each.id, each.mac, each.up) for each in found] == [(WEB.id, WEB.mac, False), (MAIL.id, MAIL.mac, False)]
    assert [each.addresses for each in found] == [
        WEB.addresses, (*MAIL.addresses, address("fd01::73:63ff:fe00:102"))
    ]  # fmt: skip
    assert found[0].iface_id == iface_id(RED.uuid, WEB.id) == "sc-aaaaaaaaaaaa-nic-i1-eth0"
    records = dict(north.rows("DNS", "records")[0]["records"][1])
    assert records["web.red.example"] == "10.1.0.20 fd01::20"
    assert records["20.0.1.10.in-addr.arpa"] == "web.red.example"
    assert len(records) == 6
    use(north, lambda n: add_port(n, RED, replace(MAIL, hostname="post")))
    renamed = dict(north.rows("DNS", "records")[0]["records"][1])
    assert "mail.red.example" not in renamed
    assert renamed["21.0.1.10.in-addr.arpa"] == "post.red.example"
    use(north, lambda n: remove_port(n, RED.uuid, WEB.id), lambda n: remove_port(n, RED.uuid, MAIL.id))
    gone = content(north)
    use(north, lambda n: remove(n, RED.uuid), lambda n: ensure(n, RED))
    assert content(north) == gone


def test_five_hundred_ports(north: Server) -> None:
    """At most 20 ms each, of which this machine's ovsdb-server has the larger part."""
    ports = [
        OvnPort(f"i{n}-eth0", f"02:73:63:01:{n >> 8:02x}:{n & 255:02x}", (address(f"10.3.{n >> 8}.{n & 255}"),),
                hostname=f"h{n}")
        for n in range(10, 510)
    ]  # fmt: skip
    large = replace(RED, addresses=(BLUE.addresses[0].__class__("10.3.255.254/16"), RED.addresses[1]), forwards=())

    async def all_of_them(north: Northbound) -> float:
        await ensure(north, large)
        begun = time.process_time()
        for port in ports:
            assert await add_port(north, large, port)
        took = (time.process_time() - begun) / len(ports)
        assert not await add_ports(north, large, ports)
        assert len(await ports_of(north, large.uuid)) == len(ports)
        return took

    assert use(north, all_of_them)[0] < 0.02


_TEXT = st.characters(codec="ascii", exclude_characters="\0")
"""What a database takes in texts."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.sampled_from(["{]", "[1]", '{"a": {}}']) | st.text(_TEXT, max_size=9),
    own=st.lists(st.sampled_from(["dynamic", "unknown", "", " ", "1.2.3.4", "x y", "1 fe80::1%0"]), max_size=3),
)  # fmt: skip
def test_nonsense_in_rows_of_ours(north: Server, records: str, own: list[str]) -> None:
    """Whoever may write to the database may write anything."""
    use(north, lambda n: ensure(n, RED), lambda n: add_port(n, RED, WEB))
    ids = ["map", [["syscont-network", RED.uuid], ["syscont-row", f"port/{WEB.id}:nic"], ["syscont-records", records]]]
    row = {"external_ids": ids, "addresses": ["set", sorted(set(own))]}
    where = [["name", "==", iface_id(RED.uuid, WEB.id)]]
    north.transact({"op": "update", "table": "Logical_Switch_Port", "where": where, "row": row})
    assert [each.id for each in use(north, lambda n: ports_of(n, RED.uuid))[0]] == [WEB.id]
    assert use(north, lambda n: add_port(n, RED, WEB), lambda n: add_port(n, RED, WEB)) == [True, False]
    assert use(north, lambda n: remove_port(n, RED.uuid, WEB.id)) == [True]
