# SPDX-License-Identifier: Apache-2.0
"""Interfaces that are virtual functions of cards: their options and networks, and what these come to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sysd.manager.hosts import check_devices
from sysd.manager.interfaces import Uplink, links_of, sources
from sysd.model import kinds
from sysd.model.devices import check
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance, Kind
from sysd.model.network import SRIOV, Network, check_network, check_type
from sysd.network import nics
from sysd.network.nics import Nic
from sysd.runtime.sriov import loans
from sysd.runtime.sriov.loans import Wanted

UUID = "b6e9a2f4-1111-4222-8333-444455556666"
NIC = {"type": "nic", "nictype": "sriov", "parent": "eno1"}
ACCELERATED = {"type": "nic", "network": "blue", "acceleration": "sriov"}
WANTED = Wanted("eno1", "02:00:00:00:00:01", 12, True, "sc1", False)


@pytest.mark.parametrize(
    "options",
    [
        NIC,
        {**NIC, "name": "lan0", "hwaddr": "02:00:00:00:00:01", "mtu": "1400", "vlan": "4094", "boot.priority": "3"},
        {**NIC, "vlan": "none", "security.mac_filtering": "true"},
    ],
)
def test_good_options(options: dict[str, str]) -> None:
    assert check.check_device("lan", options) == options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"type": "nic", "nictype": "sriov"}, "parent is missing"),
        ({**NIC, "parent": "../eno1"}, "not the name of a link"),
        ({**NIC, "vlan": "4095"}, "vlan: out of range"),
        ({**NIC, "vlan": "0"}, "vlan: out of range"),
        ({**NIC, "vlan.tagged": "5"}, "not for nictype sriov"),
        ({**NIC, "host_name": "x"}, "not for nictype sriov"),
        ({**NIC, "security.ipv4_filtering": "true"}, "not for nictype sriov"),
        ({**NIC, "limits.max": "1Mbit"}, "not for nictype sriov"),
        ({**NIC, "hwaddr": "01:00:00:00:00:01"}, "not a hardware address"),
        ({**NIC, "network": "lan"}, "network says"),
    ],
)
def test_bad_options(options: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check.check_device("lan", options)


def test_networks() -> None:
    assert check_type(SRIOV) == SRIOV
    lan = Network("lan", SRIOV, config={"parent": "eno1", "vlan": "12", "mtu": "1400"})
    assert (lan.link, lan.vlan, lan.mtu, lan.address(4)) == ("eno1", 12, 1400, None)
    assert check_network(lan, {"parent": "eno2", "user.x": "y"}) == {"parent": "eno2", "user.x": "y"}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "parent is missing"),
        ({"parent": "a b"}, "parent: not the name of a link"),
        ({"parent": "eno1", "vlan": "4095"}, "vlan: out of range"),
        ({"parent": "eno1", "mtu": "9"}, "mtu: out of range"),
        ({"parent": "eno1", "gvrp": "true"}, "unknown sriov network key 'gvrp'"),
        ({"parent": "eno1", "ipv4.address": "10.0.0.1/24"}, "unknown sriov network key"),
    ],
)
def test_bad_networks(config: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check_network(Network("lan", SRIOV), config)


def test_maas_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"maas\.subnet\.ipv4"):
        check_network(Network("lan", SRIOV), {"parent": "eno1", "maas.subnet.ipv4": "x"})


def test_what_interfaces_have_in_such_a_network() -> None:
    lan = {"type": "nic", "network": "lan"}
    known = {"lan": Network("lan", SRIOV, config={"parent": "eno1"})}
    check_devices({"a": {**lan, "security.mac_filtering": "true", "mtu": "1400"}}, known.get)
    for key, value in (("vlan", "5"), ("ipv4.address", "10.0.0.2"), ("host_name", "x")):
        with pytest.raises(InvalidError, match=f"device a: {key} is not for networks of type sriov"):
            check_devices({"a": {**lan, key: value}}, known.get)


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.VM])
def test_links_of_an_instance(kind: Kind) -> None:
    config = {"volatile.lan.hwaddr": "02:00:00:00:00:01", "volatile.lan.name": "eth0"}
    options = {**NIC, "vlan": "12", "security.mac_filtering": "true"}
    one = Instance(UUID, "c1", "i", 65536, kind=kind, config=config, devices={"lan": options})

    async def no_network(name: str, accelerated: bool) -> Any:
        raise AssertionError(name)

    found = asyncio.run(links_of(one, no_network))
    wanted = found.virtual["lan"]
    assert replace(wanted, name="sc1") == replace(WANTED, machine=kind is Kind.VM)
    assert not found.put_back
    assert not sources(one)
    assert bool(found.nics["lan"].plug) is (kind is Kind.CONTAINER)
    # It is another when anything of it is.
    for key, value in (("vlan", "13"), ("hwaddr", "02:00:00:00:00:02"), ("parent", "eno2"), ("name", "lan0")):
        changed = replace(one, devices={"lan": {**options, key: value}})
        assert asyncio.run(links_of(changed, no_network)).virtual["lan"].name != wanted.name
    assert loans.parse(loans.words(found.virtual)) == found.virtual


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.VM])
def test_links_of_an_accelerated_interface(kind: Kind) -> None:
    """Which cards there are for it may change."""
    names = {"volatile.lan.name": "eth0", "volatile.lan.host_name": "vethsc01"}
    config = {"volatile.lan.hwaddr": "02:00:00:00:00:01", **names}
    one = Instance(UUID, "c1", "i", 65536, kind=kind, config=config, devices={"lan": ACCELERATED})
    known = set()
    for carriers in ("eno1,eno2", "eno2"):

        async def uplink(name: str, accelerated: bool, carriers: str = carriers) -> Uplink:
            assert (name, accelerated) == ("blue", True)
            return Uplink(SRIOV, carriers, 0, 1442)

        found = asyncio.run(links_of(one, uplink))
        wanted = found.virtual["lan"]
        assert replace(wanted, name="sc1") == Wanted(
            carriers, "02:00:00:00:00:01", 0, False, "sc1", kind is Kind.VM, "vethsc01"
        )
        assert wanted.parents == carriers.split(",")
        assert found.mtus == {"lan": 1442}
        known.add(wanted.name)
    assert len(known) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({**ACCELERATED, "acceleration": "vdpa"}, "acceleration: not acceptable: 'vdpa'"),
        ({"type": "nic", "nictype": "bridged", "parent": "br0", "acceleration": "sriov"}, "in networks of OVN"),
        ({**NIC, "acceleration": "sriov"}, "acceleration is not for nictype sriov"),
    ],
)
def test_what_is_not_accelerated(options: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check.check_device("lan", options)


def test_an_accelerated_interface_is_hardware() -> None:
    one = Instance(UUID, "v1", "i", 65536, kind=Kind.VM, devices={"lan": ACCELERATED})
    stateful = replace(one, config={"migration.stateful": "true"})
    with pytest.raises(InvalidError, match="device lan: the state of hardware can't be kept"):
        kinds.check(stateful, stateful)
    with pytest.raises(UnsupportedError, match="device lan: mtu is not for the hardware itself"):
        kinds.check(one, replace(one, devices={"lan": {**ACCELERATED, "mtu": "1400"}}))


def test_the_state_of_hardware_is_not_kept() -> None:
    config = {"migration.stateful": "true"}
    one = Instance(UUID, "v1", "i", 65536, kind=Kind.VM, config=config, devices={"lan": NIC})
    with pytest.raises(InvalidError, match="device lan: the state of hardware can't be kept"):
        kinds.check(one, one)
    # Of an interface in a network only who knows the network can tell.
    one = replace(one, devices={"lan": {"type": "nic", "network": "fast"}})
    kinds.check(one, one)
    with pytest.raises(InvalidError, match="device lan: the state of hardware can't be kept"):
        kinds.check_hardware(one, ["lan"])
    kinds.check_hardware(one, [])
    kinds.check_hardware(replace(one, config={}), ["lan"])


def test_a_link_that_a_guest_has_renamed_is_no_error() -> None:
    made = nics.requests(Nic("sriov", "lan0", parent_name="sc1"), 100, 101)
    assert all(request.startswith("-") for _, request in made.unplug)
    assert not any(request.startswith("-") for _, request in made.plug)
    assert nics.left_behind(Nic("sriov", "lan0"), made) == []
