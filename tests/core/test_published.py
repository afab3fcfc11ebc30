# SPDX-License-Identifier: Apache-2.0
"""Networks behind interfaces in networks of OVN, and those that are there on the uplink."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysd.manager import outside
from sysd.manager.hosts import check_networks_apart, check_routes
from sysd.manager.published import check_published
from sysd.model import forwards
from sysd.model.devices.check import check_device
from sysd.model.devices.nic import published, routes
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance
from sysd.model.network import BRIDGE, OVN, PHYSICAL, Network, check_network
from sysd.network.links import HostRoute

LAB = Network("lab0", BRIDGE, config={
    "ipv4.address": "10.1.0.1/24", "ipv4.dhcp.ranges": "10.1.0.2-10.1.0.99", "ipv4.ovn.ranges": "10.1.0.100-10.1.0.110",
    "ipv6.address": "fd00:1::1/64", "ipv4.routes": "198.51.100.0/24,10.1.0.0/16", "ipv6.routes": "2001:db8:1::/64",
})  # fmt: skip
LAN = Network("lan", PHYSICAL, config={
    "parent": "eno1", "ipv4.gateway": "192.0.2.1/24", "ipv4.ovn.ranges": "192.0.2.9-192.0.2.12",
    "ipv4.routes": "192.0.2.0/24",
})  # fmt: skip
FOUR, SIX = "ipv4.routes.external", "ipv6.routes.external"


def network(name: str, uplink: str = "lab0", address: str = "10.5.0.1/24") -> Network:
    config = {"network": uplink, "ipv4.address": address, "ipv6.address": "fd00:5::1/64"}
    made = Network(name, OVN)
    made = replace(made, config=outside.kept(made, config, [LAB, LAN]))
    return replace(made, config=check_network(made, config))


BLUE, EDGE, ALONE = network("blue"), network("edge", "lan", "10.6.0.1/24"), network("alone", "none", "10.7.0.1/24")
ALL = [LAB, LAN, BLUE, EDGE, ALONE]


def instance(name: str, where: str, **options: str) -> Instance:
    kept = {"volatile.eth0.hwaddr": "02:00:00:00:00:01"}
    own = {key.replace("__", "."): value for key, value in options.items()}
    device = check_device("eth0", {"type": "nic", "network": where, **own})
    return Instance(f"u-{name}", name, "f", 0, devices={"eth0": device}, config=kept)


def check(one: Instance, *others: Instance, networks: list[Network] = ALL) -> None:
    check_routes([one], others, networks, [HostRoute(one_subnet, "eth9", True) for one_subnet in HOST])
    check_published([one], networks)


HOST = routes({"ipv4.routes": "203.0.113.0/24"})


def test_both_versions() -> None:
    one = instance("c1", "blue", **{FOUR: "198.51.100.4/30,198.51.100.9/32", SIX: "2001:db8:1::/122"})
    check(one)
    assert [str(each) for each in published(one.devices["eth0"])] == [
        "198.51.100.4/30", "198.51.100.9/32", "2001:db8:1::/122",
    ]  # fmt: skip
    assert routes(one.devices["eth0"]) == ()
    check(instance("c1", "edge", **{FOUR: "192.0.2.16/28", "ipv4.routes": "10.9.0.0/24"}))
    check(instance("c1", "alone", **{"ipv4.routes": "10.9.0.0/24", "ipv6.routes": "fd00:9::/64"}))


@pytest.mark.parametrize(
    ("where", "key", "value", "why"),
    [
        ("blue", FOUR, "198.51.101.4/30", "198.51.101.4/30 is not in ipv4.routes of network lab0"),
        ("blue", SIX, "2001:db8:2::/126", "is not in ipv6.routes of network lab0"),
        ("edge", FOUR, "198.51.100.4/30", "is not in ipv4.routes of network lan"),
        ("edge", SIX, "2001:db8:1::/126", "network edge has no IPv6 address in network lan"),
        ("alone", FOUR, "198.51.100.4/30", "network alone leads nowhere"),
        ("blue", FOUR, "10.1.0.108/30", "overlaps 10.1.0.0/24"),
        ("blue", FOUR, "10.5.0.4/30", "overlaps 10.5.0.0/24"),
        ("edge", FOUR, "192.0.2.8/30", "overlaps ipv4.ovn.ranges of network lan"),
        ("edge", FOUR, "192.0.2.0/30", "has 192.0.2.1/24"),
        ("edge", FOUR, "203.0.113.4/30", "the host has it by eth9"),
        ("blue", FOUR, "198.51.100.128/30", "overlaps 198.51.100.128/30"),
        ("blue", FOUR, "198.51.100.132/32", "overlaps 198.51.100.132/30"),
        ("blue", FOUR, "198.51.100.200/30", "has 198.51.100.201"),
        ("blue", "ipv4.routes", "10.1.0.0/24", "overlaps 10.1.0.0/24"),
        ("blue", "ipv4.routes", "198.51.100.4/30", "overlaps 198.51.100.0/24"),
    ],
)  # fmt: skip
def test_what_can_not_be(where: str, key: str, value: str, why: str) -> None:
    other = instance("c2", "edge", **{"ipv4.routes": "198.51.100.128/30", FOUR: "192.0.2.128/32"})
    third = instance("c3", "blue", **{FOUR: "198.51.100.132/30"})
    listening = replace(ALONE, forwards=[*forwards.with_forward(ALONE, "198.51.100.201", "", "")])
    with pytest.raises(InvalidError) as caught:
        check(instance("c1", where, **{key: value}), other, third, networks=[*ALL[:-1], listening])
    assert f"device eth0 of c1: {key}: " in caught.value.message
    assert why in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("value", ["198.51.100.0/25", "198.51.100.1/24", "2001:db8:1::/126", "198.51.100.4"])
def test_bad_values(value: str) -> None:
    with pytest.raises(InvalidError, match=r"device eth0: ipv4.routes.external: "):
        instance("c1", "blue", **{FOUR: value})


def test_of_a_version_that_the_network_has_not() -> None:
    bare = replace(ALONE, config={key: value for key, value in ALONE.config.items() if key != "ipv6.address"})
    with pytest.raises(InvalidError, match="network alone has no IPv6"):
        check_published([instance("c1", "alone", **{"ipv6.routes": "fd00:9::/64"})], [bare])


def test_networks_that_change_beneath_it() -> None:
    one = instance("c1", "blue", **{FOUR: "198.51.100.4/30"})
    for gone in ({"ipv4.routes": "198.51.100.8/29"}, {"ipv4.address": "198.51.100.1/24"}):
        with pytest.raises(InvalidError, match=r"device eth0 of c1: ipv4.routes.external: 198.51.100.4/30 "):
            check_published([one], [replace(LAB, config=LAB.config | gone), BLUE])
    with pytest.raises(InvalidError, match=r"overlaps 198.51.100.0/24"):
        check_networks_apart([network("red", "lab0", "198.51.100.1/24")], [one])
