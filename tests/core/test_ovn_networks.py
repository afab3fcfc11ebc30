# SPDX-License-Identifier: Apache-2.0
"""Networks of OVN: their keys, what uplinks set apart for them, and who is whose peer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysd.manager import outside, subnets
from sysd.manager.hosts import check_devices, check_kept
from sysd.model import forwards, ovn, peers, server
from sysd.model.acls import Acl
from sysd.model.devices.check import check_device
from sysd.model.errors import BusyError, ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.instance import Instance
from sysd.model.network import BRIDGE, MACVLAN, OVN, PHYSICAL, Network, check_network

ACLS = {
    name: Acl(name, ingress=[{"action": "allow", "source": source}] if source else [])
    for name, source in (("web", ""), ("naming", "web,@external,@blue/to-red"), ("foreign", "@green/to-red"))
}
APART = "10.1.0.100-10.1.0.102"
LAB = Network("lab0", BRIDGE, config={
    "ipv4.address": "10.1.0.1/24", "ipv4.dhcp.ranges": "10.1.0.2-10.1.0.99", "ipv4.ovn.ranges": APART,
    "ipv6.address": "fd00:1::1/64",
})  # fmt: skip
LAN = Network("lan", PHYSICAL, config={
    "parent": "eno1", "ipv4.gateway": "192.0.2.1/24", "ipv4.ovn.ranges": "192.0.2.9-192.0.2.9",
    "dns.nameservers": "192.0.2.53",
})  # fmt: skip
OWN = {"network": "lab0", "ipv4.address": "10.5.0.1/24", "ipv6.address": "fd00:5::1/64"}


def network(name: str = "blue", others: list[Network] | None = None, **config: str) -> Network:
    """As it is when it was made beside others."""
    wanted = OWN | {key.replace("__", "."): value for key, value in config.items()}
    made = Network(name, OVN)
    made = replace(made, config=outside.kept(made, wanted, others or [LAB, LAN]))
    return replace(made, config=check_network(made, wanted))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "network is missing"),
        ({"network": "none"}, "nothing to route"),
        (OWN | {"network": "../x"}, "network"),
        (OWN | {"bridge.mtu": "1279"}, "too small for IPv6"),
        (OWN | {"ipv6.address": "fd00:5::1/80"}, "make addresses up in a /64"),
        (OWN | {"network": "none", "ipv4.nat": "true"}, "leads nowhere"),
        (OWN | {"ipv4.routes": "10.9.0.0/24"}, "unknown"),
        (OWN | {ovn.UUID: "x"}, "kept by syscontd"),
        (OWN | {"security.acls": "a b"}, "not the name of an ACL"),
    ],
)
def test_bad_keys(config: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check_network(Network("blue", OVN), config)


@pytest.mark.parametrize(
    ("base", "config", "why"),
    [
        (LAB, {"ipv4.ovn.ranges": "10.2.0.1-10.2.0.9"}, "not in 10.1.0.0/24"),
        (LAB, {"ipv4.ovn.ranges": "10.1.0.1-10.1.0.1"}, "the way out itself"),
        (LAB, {"ipv4.ovn.ranges": "10.1.0.90-10.1.0.110"}, "some of these are leased"),
        (LAB, {"ipv6.ovn.ranges": "fd00:2::1-fd00:2::9"}, "not in fd00:1::/64"),
        (LAN, {"ipv4.ovn.ranges": "192.0.3.1-192.0.3.9"}, "not in 192.0.2.0/24"),
        (LAN, {"ipv6.ovn.ranges": "fd00:2::1-fd00:2::9"}, "set ipv6.gateway"),
    ],
)
def test_bad_ranges(base: Network, config: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_network(base, base.config | config)
    assert why in f"{caught.value.message} {caught.value.hint}"


def test_ranges_of_a_bridge_that_leases_all() -> None:
    rest = {key: value for key, value in LAB.config.items() if key != "ipv4.dhcp.ranges"}
    with pytest.raises(InvalidError, match="all addresses are leased"):
        check_network(LAB, rest)
    check_network(LAB, rest | {"ipv4.dhcp": "false"})


def test_each_has_an_address_of_its_own_outside() -> None:
    there = [LAB, LAN]
    for number in range(100, 103):
        there.append(network(f"n{number}", there))
        found = outside.outside(there[-1], there)
        assert found
        assert str(found.addresses[0]) == f"10.1.0.{number}/24"
        assert [str(each) for each in (*found.gateways, *found.nameservers)] == ["10.1.0.1", "fd00:1::1"] * 2
    with pytest.raises(FailedError, match="no IPv4 address left"):
        network("more", there)


def test_it_keeps_what_it_has() -> None:
    one = network()
    again = outside.kept(one, OWN | {"ipv4.nat": "true"}, [LAB, LAN, one])
    assert again == {key: value for key, value in one.config.items() if key.startswith("volatile.")}
    other = outside.kept(one, OWN | {"network": "lan"}, [LAB, LAN, one])
    assert (other[ovn.UUID], other[ovn.outside_key(4)]) == (one.config[ovn.UUID], "192.0.2.9")
    assert ovn.outside_key(4) not in outside.kept(one, OWN | {"network": "none"}, [LAB, LAN, one])


def test_what_is_forwarded_is_no_router_s() -> None:
    one = network()
    listening = replace(one, forwards=forwards.with_forward(one, "10.1.0.101", "", ""))
    assert network("red", [LAB, listening]).config[ovn.outside_key(4)] == "10.1.0.102"


def test_of_another_host_s_network() -> None:
    found = outside.outside(network(network="lan"), [LAB, LAN])
    assert found
    assert [str(each) for each in (*found.addresses, *found.gateways, *found.nameservers)] == [
        "192.0.2.9/24", "192.0.2.1", "192.0.2.53",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "error"),
    [("nothing", NotFoundError), ("blue", InvalidError), ("side", InvalidError), ("bare", InvalidError)],
)
def test_what_is_no_uplink(name: str, error: type[SyscontError]) -> None:
    others = [network(), Network("side", MACVLAN, config={"parent": "eno1"}), replace(LAB, name="bare", config={})]
    with pytest.raises(error, match="network: "):
        network("red", [LAB, *others], network=name)


def test_an_uplink_keeps_what_it_has_given() -> None:
    one = network()
    outside.check_uplink(LAB, [one])
    for key, value in (("ipv4.ovn.ranges", "10.1.0.101-10.1.0.102"), ("ipv4.address", "10.7.0.1/24"),
                       ("ipv6.address", "fd00:7::1/64")):  # fmt: skip
        with pytest.raises(BusyError, match="network blue of OVN has"):
            outside.check_uplink(replace(LAB, config=LAB.config | {key: value}), [one])


@pytest.mark.parametrize(("listen", "why"), [("10.1.0.100", "the router's of network"), ("10.1.0.9", "set it apart")])
def test_forwards_from_elsewhere(listen: str, why: str) -> None:
    one = network()
    wrong = replace(one, forwards=forwards.with_forward(one, listen, "", ""))
    with pytest.raises(InvalidError, match=why):
        outside.check_forwards(wrong, [LAB, wrong])
    nowhere = replace(wrong, config=wrong.config | {"network": "none"})
    with pytest.raises(InvalidError, match="leads nowhere"):
        outside.check_forwards(nowhere, [LAB, nowhere])


def test_made_up_addresses_come_with_nat_where_there_is_a_way_out() -> None:
    assert subnets.fill({"network": "lab0", "ipv6.address": "none"}, [LAB], new=True)["ipv4.nat"] == "true"
    alone = subnets.fill({"network": "none", "ipv6.address": "none"}, [LAB], new=True)
    assert "ipv4.nat" not in alone
    check_network(Network("red", OVN), alone)


def test_peers() -> None:
    blue, red = network(), network("red", ipv4__address="10.6.0.1/24", ipv6__address="fd00:6::1/64")
    blue = replace(blue, peers=peers.with_peer(blue, "to-red", "red", ""))
    (peer,) = blue.peered
    assert peers.status(blue, peer, [blue, red]) == "pending"
    red = replace(red, peers=peers.with_peer(red, "to-blue", "blue", ""))
    assert peers.status(blue, peer, [blue, red]) == "created"
    assert (peers.mutual(blue, [blue, red]), peers.mutual(red, [blue, red])) == ([red], [blue])
    with pytest.raises(ExistsError, match="named to-red"):
        peers.with_peer(blue, "to-red", "green", "")
    with pytest.raises(ExistsError, match="network red is a peer"):
        peers.with_peer(blue, "again", "red", "")
    with pytest.raises(InvalidError, match="its own peer"):
        peers.with_peer(blue, "me", "blue", "")
    for name in ("", "-a", "a b", "../a", "a" * 64):
        with pytest.raises(InvalidError):
            peers.with_peer(blue, name, "green", "")
    with pytest.raises(NotFoundError):
        peers.check(blue, [blue])
    with pytest.raises(InvalidError, match="of type bridge"):
        peers.check(replace(blue, peers=[{"name": "a", "target": "lab0"}]), [blue, LAB])
    with pytest.raises(NotFoundError):
        peers.without(blue, "to-blue")
    assert peers.without(blue, "to-red") == []


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({}, True), ({"ipv4.address": "10.5.0.9"}, True), ({"security.acls": "web"}, True),
        ({"security.acls": "other"}, False), ({"ipv6.address": "fd00:5::9"}, False), ({"vlan": "5"}, False),
        ({"limits.max": "1Mbit"}, False), ({"security.mac_filtering": "true"}, False),
        ({"ipv4.routes": "10.8.0.0/24"}, True), ({"ipv4.routes.external": "198.51.100.4/30"}, True),
        ({"security.acls": "naming"}, True), ({"security.acls": "foreign"}, False),
    ],
)  # fmt: skip
def test_interfaces_in_one(options: dict[str, str], good: bool) -> None:
    device = {"eth0": {"type": "nic", "network": "blue", **options}}
    if good:
        check_devices(device, lambda name: network(), ACLS.get)
        return
    with pytest.raises((InvalidError, NotFoundError), match="device eth0: "):
        check_devices(device, lambda name: network(), ACLS.get)


def test_what_is_set_apart_is_no_guest_s() -> None:
    for address, good in (("10.1.0.99", True), ("10.1.0.100", False), ("10.1.0.102", False), ("10.1.0.103", True)):
        device = {"type": "nic", "network": "lab0", "ipv4.address": address}
        kept = {"volatile.eth0.hwaddr": "02:00:00:00:00:01"}
        one = Instance("u", "c1", "f", 0, devices={"eth0": device}, config=kept)
        if good:
            check_kept(LAB, [one])
            continue
        with pytest.raises(InvalidError, match="is for routers of OVN networks"):
            check_kept(LAB, [one])


@pytest.mark.parametrize("option", [{"security.acls": "web"}, {"ipv6.routes.external": "2001:db8:1::/126"}])
def test_what_interfaces_have_in_networks_of_ovn_only(option: dict[str, str]) -> None:
    with pytest.raises(InvalidError, match="not for networks of type bridge"):
        check_devices({"eth0": {"type": "nic", "network": "lab0", **option}}, lambda name: LAB)
    with pytest.raises(InvalidError, match="is for interfaces in networks of OVN"):
        check_device("eth0", {"type": "nic", "nictype": "bridged", "parent": "br0", **option})


@pytest.mark.parametrize("good", ["unix:/run/nb.sock", "tcp:127.0.0.1:6641", "ssl:[2001:db8::1]:6641,tcp:192.0.2.1:1"])
def test_where_the_database_is(good: str) -> None:
    assert server.SCHEMA.check({server.OVN_NORTHBOUND: good})


@pytest.mark.parametrize(
    "bad",
    ["", "unix:nb.sock", "tcp:nb.example:6641", "tcp:127.0.0.1", "tcp::6641", "tcp:127.0.0.1:0", "ftp:1.2.3.4:5", "x"],
)
def test_where_no_database_is(bad: str) -> None:
    with pytest.raises(InvalidError, match="not a connection to OVSDB"):
        server.SCHEMA.check({server.OVN_NORTHBOUND: bad})


def test_keys_are_named_by_file() -> None:
    assert server.SCHEMA.check({"network.ovn.client_key": "/etc/ovn/key.pem"})
    with pytest.raises(InvalidError, match="not the path of a file"):
        server.SCHEMA.check({"network.ovn.client_key": "-----BEGIN PRIVATE KEY-----"})
