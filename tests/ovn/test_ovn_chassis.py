# SPDX-License-Identifier: Apache-2.0
"""Ports, bridges and mappings in the local Open vSwitch, and others' that stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sysd.manager import acceleration
from sysd.manager.acceleration import Accelerator
from sysd.model.errors import FailedError
from sysd.network.ovn import chassis as driver
from sysd.network.ovn.chassis import Attached, Chassis, Facts
from sysd.runtime.sriov import cards, loans, representors
from sysd.runtime.sriov.loans import Found
from tests.ovn.servers import Server

NETWORK = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"


@pytest.fixture
def host(vswitch: Server) -> Server:
    """With an integration bridge, a port of someone else in it, and what OVN is told of the host."""
    ids = [["system-id", "host1"], ["ovn-encap-ip", "192.0.2.1"], ["ovn-bridge-mappings", "theirs:br-theirs"]]
    inside = {"name": "theirs0", "interfaces": ["named-uuid", "i"]}
    vswitch.transact(
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "theirs0"}},
        {"op": "insert", "table": "Port", "uuid-name": "p", "row": inside},
        {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": "br-int", "ports": ["named-uuid", "p"]}},
        {"op": "insert", "table": "Bridge", "uuid-name": "c", "row": {"name": "br-ex"}},
        {"op": "insert", "table": "Open_vSwitch",
         "row": {"bridges": ["set", [["named-uuid", "b"], ["named-uuid", "c"]]], "external_ids": ["map", ids],
                 "other_config": ["map", [["hw-offload", "true"]]]}},
    )  # fmt: skip
    return vswitch


def use(server: Server, *steps: Callable[[Chassis], Coroutine[Any, Any, Any]]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        chassis = Chassis(server.remote)
        try:
            return [await step(chassis) for step in steps]
        finally:
            await chassis.close()

    return asyncio.run(all_of_them())


def attach(link: str, iface_id: str = "", bridge: str = "br-int") -> Callable[[Chassis], Coroutine[Any, Any, bool]]:
    return lambda chassis: driver.attach(chassis, link, network=NETWORK, iface_id=iface_id, bridge=bridge)


def iface_ids(server: Server) -> dict[str, str]:
    rows = server.rows("Interface", "name", "external_ids")
    return {row["name"]: dict(row["external_ids"][1]).get("iface-id", "") for row in rows}


def test_attach_and_detach(host: Server) -> None:
    before = host.dump()
    assert use(host, attach("vethsc1", "sc-x-nic-1")) == [True]
    once = host.dump()
    assert use(host, attach("vethsc1", "sc-x-nic-1"), driver.attached) == [
        False, [Attached("vethsc1", "br-int", NETWORK, "sc-x-nic-1", "")]
    ]  # fmt: skip
    assert host.dump() == once
    assert iface_ids(host) == {"theirs0": "", "vethsc1": "sc-x-nic-1"}
    # A link that another network has taken meanwhile is not the former one's to take away.
    assert use(host, lambda c: driver.detach(c, "vethsc1", network="another")) == [False]
    assert host.dump() == once
    for found in (True, False):
        assert use(host, lambda c: driver.detach(c, "vethsc1", network=NETWORK)) == [found]
    after = host.dump()
    assert len(after) == len(before)
    assert iface_ids(host) == {"theirs0": ""}


def test_what_others_changed_is_put_back(host: Server) -> None:
    use(host, attach("vethsc1", "sc-x-nic-1"))
    empty = ["map", [["iface-id", "else"]]]
    where = [["name", "==", "vethsc1"]]
    host.transact({"op": "mutate", "table": "Interface", "where": where,
                   "mutations": [["external_ids", "delete", ["set", ["iface-id"]]],
                                 ["external_ids", "insert", empty]]})  # fmt: skip
    assert use(host, attach("vethsc1", "sc-x-nic-1")) == [True]
    assert iface_ids(host)["vethsc1"] == "sc-x-nic-1"
    use(host, attach("vethsc1", "sc-x-nic-1", "br-ex"))
    assert use(host, driver.attached)[0][0].bridge == "br-ex"
    use(host, attach("vethsc1", "sc-x-nic-1"))
    assert use(host, driver.attached)[0][0].bridge == "br-int"


def test_a_name_is_one_links(host: Server) -> None:
    use(host, attach("vethsc1", "one"), attach("vethsc2", "one"))
    assert iface_ids(host) == {"theirs0": "", "vethsc1": "", "vethsc2": "one"}


def test_ports_of_others(host: Server) -> None:
    before = host.dump()
    with pytest.raises(FailedError, match="theirs0 that is not ours"):
        use(host, attach("theirs0", "x"))
    assert use(host, lambda c: driver.detach(c, "theirs0", network=NETWORK), driver.attached) == [False, []]
    assert host.dump() == before


def test_no_bridge(host: Server) -> None:
    with pytest.raises(FailedError, match="no bridge br-none"):
        use(host, attach("vethsc1", "x", "br-none"))


def test_not_set_up(vswitch: Server) -> None:
    with pytest.raises(FailedError, match="not set up"):
        use(vswitch, driver.facts)
    with pytest.raises(FailedError, match="no bridge") as caught:
        use(vswitch, attach("vethsc1", "x"))
    assert "ovn-host" in caught.value.hint


def test_bridges(host: Server) -> None:
    ensure: Any = lambda c: driver.ensure_bridge(c, "br-sc1", network=NETWORK)  # noqa: E731
    assert use(host, ensure, ensure) == [True, False]
    assert {row["name"]: row["type"] for row in host.rows("Interface")} == {"theirs0": "", "br-sc1": "internal"}
    use(host, attach("vethsc1", bridge="br-sc1"))
    assert use(host, driver.attached)[0] == [Attached("vethsc1", "br-sc1", NETWORK, "", "")]
    assert use(host, lambda c: driver.remove_bridge(c, "br-sc1")) == [True]
    assert [row["name"] for row in host.rows("Interface")] == ["theirs0"]
    with pytest.raises(FailedError, match="bridge br-ex that is not ours"):
        use(host, lambda c: driver.ensure_bridge(c, "br-ex", network=NETWORK))
    assert use(host, lambda c: driver.remove_bridge(c, "br-ex")) == [False]
    assert len(host.rows("Bridge")) == 2


def test_mappings(host: Server) -> None:
    found = use(
        host, lambda c: driver.map_uplink(c, "sc1", "br-sc1"), lambda c: driver.map_uplink(c, "sc1", "br-sc1"),
        lambda c: driver.map_uplink(c, "sc2", "br-sc2"), lambda c: driver.map_uplink(c, "sc2", "br-sc3"), driver.facts,
    )  # fmt: skip
    assert found[:4] == [True, False, True, True]
    mappings = {"theirs": "br-theirs", "sc1": "br-sc1", "sc2": "br-sc3"}
    assert found[4] == Facts("host1", "192.0.2.1", True, ("br-ex", "br-int"), mappings)
    with pytest.raises(FailedError, match="maps theirs to br-theirs"):
        use(host, lambda c: driver.map_uplink(c, "theirs", "br-sc1"))
    assert use(
        host, lambda c: driver.unmap_uplink(c, "sc1"), lambda c: driver.unmap_uplink(c, "theirs"),
        lambda c: driver.unmap_uplink(c, "sc2"),
    ) == [True, False, True]  # fmt: skip
    ids = dict(host.rows("Open_vSwitch")[0]["external_ids"][1])
    assert ids == {"system-id": "host1", "ovn-encap-ip": "192.0.2.1", "ovn-bridge-mappings": "theirs:br-theirs"}


def test_two_at_once_map_both(host: Server) -> None:
    async def both() -> None:
        hosts = [Chassis(host.remote) for _ in range(5)]
        for each in hosts:
            await driver.facts(each)
        await asyncio.gather(*(driver.map_uplink(each, f"sc{n}", f"br{n}") for n, each in enumerate(hosts)))
        await asyncio.gather(*(each.close() for each in hosts))

    asyncio.run(both())
    assert len(use(host, driver.facts)[0].mappings) == 6


def test_ports_of_all(host: Server) -> None:
    found = use(host, attach("vethsc1", bridge="br-ex"), driver.ports)[1]
    assert found == {"theirs0": "br-int", "vethsc1": "br-ex"}


# what cards lack that could carry interfaces

GOOD = Found("eno1", "pci/0000:03:00.0", "mlx5_core", "switchdev", 8, 8, 5, 8)


@pytest.mark.parametrize(
    ("changed", "bridge", "missing"),
    [
        ({}, "br-int", []),
        ({"free": 0}, "br-int", ["a virtual function that nobody has"]),
        ({"enabled": 0, "free": 0, "representors": 0}, "br-int", ["virtual functions: 'echo 8 >/sys/class/net/eno1/"]),
        ({"mode": "legacy", "representors": 0}, "br-int", ["'devlink dev eswitch set pci/0000:03:00.0 mode sw"]),
        ({"representors": 0}, "br-int", ["representors: none"]),
        ({}, "", ["a port in br-int: 'ovs-vsctl add-port br-int eno1'"]),
        ({}, "br-ex", ["a port in br-int, which has it in br-ex: "]),
        ({"mode": "legacy"}, "", ["mode switchdev", "a port in br-int"]),
    ],
)
def test_what_a_card_lacks(
    host: Server, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], bridge: str, missing: list[str]
) -> None:
    one = replace(GOOD, **changed)
    monkeypatch.setattr(loans, "everything", lambda: [one])
    monkeypatch.setattr(cards, "named", lambda: [one.link])
    monkeypatch.setattr(representors, "mode", lambda link: one.mode)
    if bridge:
        use(host, attach("eno1", bridge=bridge))
    (found,) = use(host, lambda chassis: acceleration.look(chassis, "br-int"))
    assert (found.bridge, found.offload) == ("br-int", True)
    assert found.cards == (Accelerator(**asdict(one), bridge=bridge, missing=found.cards[0].missing),)
    assert len(found.cards[0].missing) == len(missing)
    assert all(expected in said for expected, said in zip(missing, found.cards[0].missing, strict=True))
    carries = one.mode == "switchdev" and bridge == "br-int"
    if carries:
        assert use(host, lambda chassis: acceleration.carriers(chassis, "br-int")) == [["eno1"]]
    else:
        with pytest.raises(FailedError, match="no network card of this host can carry"):
            use(host, lambda chassis: acceleration.carriers(chassis, "br-int"))


def test_without_offload_no_card_carries(host: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loans, "everything", lambda: [GOOD])
    monkeypatch.setattr(cards, "named", lambda: [GOOD.link])
    monkeypatch.setattr(representors, "mode", lambda link: GOOD.mode)
    use(host, attach("eno1"))
    host.transact({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"other_config": ["map", []]}})
    (found,) = use(host, lambda chassis: acceleration.look(chassis, "br-int"))
    assert [said.split(":")[0] for said in found.cards[0].missing] == ["hw-offload"]
    with pytest.raises(FailedError, match="no network card of this host can carry"):
        use(host, lambda chassis: acceleration.carriers(chassis, "br-int"))


def test_what_is_news_of_a_host(host: Server) -> None:
    """What ovs-vswitchd and ovn-controller say of a port is none; what OVN knows it by is, and where uplinks are."""

    async def work() -> None:
        heard: asyncio.Queue[bool] = asyncio.Queue()
        chassis = Chassis(host.remote, news=heard.put_nowait)
        ids = {"syscont-network": NETWORK, "syscont-row": "link:vethsc1", "iface-id": "sc-x-nic-1"}

        def change(table: str, **row: Any) -> None:
            where = [["name", "==", "vethsc1"]] if table == "Interface" else []
            host.transact({"op": "update", "table": table, "where": where, "row": row})

        try:
            await driver.attach(chassis, "vethsc1", network=NETWORK, iface_id="sc-x-nic-1")
            said = {**ids, "ovn-installed": "true"}
            change("Interface", ofport=3, external_ids=["map", list(map(list, said.items()))])
            change("Interface", error="no such device")
            await asyncio.sleep(0.3)
            assert heard.empty()
            said["iface-id"] = "other"
            change("Interface", external_ids=["map", list(map(list, said.items()))])
            assert await asyncio.wait_for(heard.get(), 5) is True
            change("Open_vSwitch", external_ids=["map", []])
            assert await asyncio.wait_for(heard.get(), 5) is True
        finally:
            await chassis.close()

    asyncio.run(work())


def test_an_open_vswitch_that_is_away_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loans, "everything", lambda: [GOOD])

    async def work() -> Accelerator:
        nobody = Chassis(f"unix:{tmp_path}/nobody", patience=0.2)
        try:
            return (await acceleration.look(nobody, "br-int")).cards[0]
        finally:
            await nobody.close()

    missing = asyncio.run(work()).missing
    assert missing[0].startswith("Open vSwitch: the local Open vSwitch at unix:")
    assert len(missing) == 3
