# SPDX-License-Identifier: Apache-2.0
"""What OVN makes of our rows, by ovn-northd's flows and ovn-trace's packets."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from sysd.network.ovn.northbound import Northbound, name
from sysd.network.ovn.ports import add_port, add_ports, addresses_of, iface_id, ports_of
from sysd.network.ovn.topology import ensure
from sysd.network.ovn.values import OvnNetwork, OvnPort
from tests.ovn.servers import Northd
from tests.ovn.worlds import CHASSIS, MAIL, RED, UPLINK, WEB, address, subnet, use

GATEWAY = "02:00:00:00:00:fe"
DYNAMIC = OvnPort("i9-eth0", "02:73:63:00:01:09", hostname="dyn")
OUT = f"eth.dst=={RED.mac} && ip.ttl==64 && "
SIX = f"eth.dst=={MAIL.mac} && ip6.dst==fd01::73:63ff:fe00:102 && ip.ttl==64 && icmp6.type==128"
ARP = "eth.dst==ff:ff:ff:ff:ff:ff && arp.op==2"
WORLD = name(RED.uuid, "ext-net")


@pytest.fixture
def red(northd: Northd) -> Northd:
    return made(northd, RED)


def made(northd: Northd, network: OvnNetwork, *ports: OvnPort) -> Northd:
    for number, (chassis, _) in enumerate(UPLINK.chassis):
        northd.chassis(chassis, f"127.0.0.{number + 1}")

    def steps(north: Northbound) -> Coroutine[Any, Any, bool]:
        return ensure(north, network)

    use(northd.north, steps, lambda north: add_ports(north, network, ports or (WEB, MAIL), settled=True))
    for port in ports or (WEB, MAIL):
        northd.bind(iface_id(network.uuid, port.id), CHASSIS)
    return northd


def sent(northd: Northd, port: OvnPort, packet: str, *options: str, network: OvnNetwork = RED) -> str:
    own = iface_id(network.uuid, port.id)
    flow = f'inport=="{own}" && eth.src=={port.mac} && {packet}'
    return northd.trace(name(network.uuid, "int"), flow, *options)


def arrived(trace: str) -> list[str]:
    """At which ends of OVN's world."""
    return re.findall(r'output to "([^"]*)", type "(?:localnet)?"', trace)


def to_mail(source: str = "10.1.0.20", mac: str = MAIL.mac) -> str:
    return f"eth.dst=={mac} && ip4.src=={source} && ip4.dst==10.1.0.21 && ip.ttl==64 && icmp4.type==8"


def test_guests_reach_each_other(red: Northd) -> None:
    assert arrived(sent(red, WEB, to_mail())) == [iface_id(RED.uuid, MAIL.id)]
    assert arrived(sent(red, WEB, f"{SIX} && ip6.src==fd01::20")) == [iface_id(RED.uuid, MAIL.id)]


@pytest.mark.parametrize(
    "packet", [
        to_mail("10.1.0.99"), to_mail("192.0.2.1"),
        f"{SIX} && ip6.src==fd01::66",
        f"{ARP} && arp.sha==02:73:63:00:01:01 && arp.spa==10.1.0.1 && arp.tpa==10.1.0.21",
        f"{ARP} && arp.sha==02:73:63:00:01:66 && arp.spa==10.1.0.20 && arp.tpa==10.1.0.21",
    ],
)  # fmt: skip
def test_nobody_says_he_is_another(red: Northd, packet: str) -> None:
    assert arrived(sent(red, WEB, packet)) == []


def test_nobody_has_anothers_hardware_address(red: Northd) -> None:
    assert arrived(sent(red, replace(WEB, mac="02:73:63:00:01:66"), to_mail())) == []


def test_unsecured_and_privacy(northd: Northd) -> None:
    port = replace(WEB, secured=False)
    made(northd, RED, port, MAIL)
    assert arrived(sent(northd, port, to_mail("10.1.0.99"))) == [iface_id(RED.uuid, MAIL.id)]
    use(northd.north, lambda north: add_port(north, RED, replace(WEB, privacy=True), settled=True))
    # The ovn-trace of 23.03 knows no masks here, as ovn-controller does.
    assert security(northd, WEB) == f"{WEB.mac} 10.1.0.20 fd01::20 fd01::/64 fe80::/10"


def security(northd: Northd, port: OvnPort) -> str:
    own = iface_id(RED.uuid, port.id)
    (row,) = [row for row in northd.south.rows("Port_Binding") if row["logical_port"] == own]
    return str(row["port_security"])


def test_disabled(northd: Northd) -> None:
    port = replace(WEB, enabled=False)
    made(northd, RED, port, MAIL)
    assert arrived(sent(northd, port, to_mail())) == []


def test_dhcp(red: Northd) -> None:
    asked = "eth.dst==ff:ff:ff:ff:ff:ff && ip4.src==0.0.0.0 && ip4.dst==255.255.255.255 && udp.src==68 && udp.dst==67"
    answer = sent(red, WEB, asked)
    assert arrived(answer) == [iface_id(RED.uuid, WEB.id)]
    for option in (
        "offerip = 10.1.0.20,", "dns_server = {192.0.2.53, 192.0.2.54},", 'domain_name = "red.example",', "mtu = 1442,",
        'domain_search_list = "red.example,example",', "lease_time = 3600,", "netmask = 255.255.255.0,",
        "router = 10.1.0.1,", "server_id = 10.1.0.1)",
    ):  # fmt: skip
        assert option in answer


def test_dhcp6_and_router_advertisements(northd: Northd) -> None:
    asked = "ip6.src==fe80::73:63ff:fe00:101 && ip6.dst==ff02::1:2 && udp.src==546 && udp.dst==547"
    made(northd, RED)
    answer = sent(northd, WEB, f"eth.dst==33:33:00:01:00:02 && {asked}")
    assert arrived(answer) == [iface_id(RED.uuid, WEB.id)]
    assert 'domain_search = "red.example,example"' in answer
    assert "ia_addr" not in answer
    answer = advertised(northd)
    for option in (
        'addr_mode = "dhcpv6_stateless"', "mtu = 1442", "prefix = fd01::/64", "rdnss = 2001:db8::53",
        f"slla = {RED.mac}",
    ):  # fmt: skip
        assert option in answer
    use(northd.north, lambda north: ensure(north, replace(RED, stateful6=True), settled=True))
    assert "ia_addr = fd01::20" in sent(northd, WEB, f"eth.dst==33:33:00:01:00:02 && {asked}")
    assert 'addr_mode = "dhcpv6_stateful"' in advertised(northd)


def advertised(northd: Northd) -> str:
    """The ovn-trace of 23.03 fails an assertion where a router is solicited."""
    flows = [row["actions"] for row in northd.south.rows("Logical_Flow", "actions")]
    (found,) = [each for each in flows if "put_nd_ra_opts" in each]
    return str(found)


def test_dns(red: Northd) -> None:
    """ovn-trace looks nothing up; what ovn-controller would is there, for the guests' switch."""
    asked = sent(red, WEB, OUT + "ip4.src==10.1.0.20 && ip4.dst==192.0.2.53 && udp.src==5000 && udp.dst==53")
    assert "dns_lookup()" in asked
    (row,) = red.south.rows("DNS")
    records = dict(row["records"][1])
    assert records["web.red.example"] == "10.1.0.20 fd01::20"
    assert records["mail.red.example"] == "10.1.0.21 fd01::73:63ff:fe00:102"
    assert records["20.0.1.10.in-addr.arpa"] == "web.red.example"
    (switch,) = [each for each in red.south.rows("Datapath_Binding") if name(RED.uuid, "int") in str(each)]
    assert row["datapaths"] == switch["_uuid"]


def test_out_by_the_routers_address(red: Northd) -> None:
    red.neighbour(name(RED.uuid, "lr-ext"), "192.0.2.1", GATEWAY)
    out = sent(red, WEB, OUT + "ip4.src==10.1.0.20 && ip4.dst==203.0.113.1 && tcp.dst==80")
    assert "ct_snat(192.0.2.10)" in out or "ct_snat_in_czone(192.0.2.10)" in out
    assert arrived(out) == [WORLD]
    assert f"check_pkt_larger({RED.mtu + 14})" in out
    (told,) = [row for row in red.south.rows("Port_Binding") if row["logical_port"] == name(RED.uuid, "ext-lr")]
    assert "192.0.2.100" in str(told["nat_addresses"])
    use(red.north, lambda north: ensure(north, replace(RED, nat=()), settled=True))
    out = sent(red, WEB, OUT + "ip4.src==10.1.0.20 && ip4.dst==203.0.113.1 && tcp.dst==80")
    assert "ct_snat" not in out
    assert arrived(out) == [WORLD]


def test_the_uplinks_vlan_and_hosts(red: Northd) -> None:
    (world,) = [row for row in red.south.rows("Port_Binding") if row["logical_port"] == WORLD]
    assert (world["tag"], dict(world["options"][1])["network_name"]) == (7, "uplink1")
    hosts = {row["_uuid"][1]: row["name"] for row in red.south.rows("Chassis", "_uuid", "name")}
    found = {hosts[row["chassis"][1]]: row["priority"] for row in red.south.rows("HA_Chassis")}
    assert found == dict(UPLINK.chassis)


@pytest.mark.parametrize(
    ("packet", "target"), [
        ("ip4.dst==192.0.2.100 && tcp.dst==80", "10.1.0.20:8080"),
        ("ip4.dst==192.0.2.100 && tcp.dst==8001", "10.1.0.20:8080"),
        ("ip4.dst==192.0.2.100 && udp.dst==53", "10.1.0.20:53"),
        ("ip4.dst==192.0.2.100 && tcp.dst==22", "10.1.0.21"),
        ("ip6.dst==2001:db8::100 && tcp.dst==80", "[fd01::20]:80"),
    ],
)  # fmt: skip
def test_forwards(red: Northd, packet: str, target: str) -> None:
    source = "ip6.src==2001:db8::99" if "ip6" in packet else "ip4.src==203.0.113.1"
    flow = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst=={RED.mac} && ip.ttl==64 && {source} && {packet}'
    trace = red.trace(name(RED.uuid, "ext"), flow, "--ct", "new", "--ct", "new", "--ct", "new")
    assert f"backends={target})" in trace
    end = iface_id(RED.uuid, MAIL.id if target == "10.1.0.21" else WEB.id)
    assert arrived(trace) == [end]


@pytest.mark.parametrize(("version", "stranger", "inside", "target"), [
    (4, "203.0.113.1", "10.1.0.21", "10.1.0.20"), (6, "2001:db8:7::1", "fd01::21", "fd01::20"),
])  # fmt: skip
def test_nobody_outside_is_inside(red: Northd, version: int, stranger: str, inside: str, target: str) -> None:
    flow = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst=={RED.mac} && ip.ttl==64'
    for source, ends in ((stranger, [iface_id(RED.uuid, WEB.id)]), (inside, [])):
        packet = f"{flow} && ip{version}.src=={source} && ip{version}.dst=={target} && tcp.dst==80"
        assert arrived(red.trace(name(RED.uuid, "ext"), packet)) == ends


def test_routes_to_guests(northd: Northd) -> None:
    port = replace(WEB, routes=(subnet("10.9.0.0/24"),), published=(subnet("198.51.100.4/31"),))
    made(northd, RED, port, MAIL)
    assert security(northd, port) == f"{WEB.mac} 10.1.0.20 fd01::20 10.9.0.0/24 198.51.100.4/31"
    use(northd.north, lambda north: add_port(north, RED, replace(port, secured=False), settled=True))
    for target in ("10.9.0.7", "198.51.100.5"):
        flow = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst=={RED.mac} && ip.ttl==64 && ip4.src==203.0.113.1'
        trace = northd.trace(name(RED.uuid, "ext"), f"{flow} && ip4.dst=={target} && tcp.dst==80")
        assert arrived(trace) == [iface_id(RED.uuid, WEB.id)]
    asked = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst==ff:ff:ff:ff:ff:ff && arp.op==1 && arp.sha=={GATEWAY}'
    trace = northd.trace(name(RED.uuid, "ext"), f"{asked} && arp.spa==192.0.2.1 && arp.tpa==198.51.100.5")
    assert "arp.op = 2" in trace


def test_what_is_published_goes_out_as_it_is(northd: Northd) -> None:
    port = replace(WEB, published=(subnet("198.51.100.4/31"), subnet("2001:db8:9::4/127")), secured=False)
    made(northd, RED, port, MAIL)
    for gateway in ("192.0.2.1", "2001:db8::1"):
        northd.neighbour(name(RED.uuid, "lr-ext"), gateway, GATEWAY)
    for version, source, target in ((4, "198.51.100.5", "203.0.113.1"), (6, "2001:db8:9::5", "2001:db8:7::1")):
        out = sent(northd, port, f"{OUT}ip{version}.src=={source} && ip{version}.dst=={target} && tcp.dst==80")
        assert arrived(out) == [WORLD]
        assert set(re.findall(r"ip[46]\.src = ([0-9a-f.:]+)", out)) <= {source}
        assert not re.search(r"ct_snat(_in_czone)?\([0-9a-f]", out)
    own = sent(northd, port, OUT + "ip4.src==10.1.0.20 && ip4.dst==203.0.113.1 && tcp.dst==80")
    assert "(192.0.2.10)" in own
    asked = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst==33:33:ff:00:00:05 && nd_ns && ip.ttl==255'
    where = "ip6.src==2001:db8::1 && ip6.dst==ff02::1:ff00:5 && nd.target==2001:db8:9::5"
    trace = northd.trace(name(RED.uuid, "ext"), f"{asked} && {where} && nd.sll=={GATEWAY}")
    assert "nd_na" in trace
    inside = sent(northd, MAIL, OUT + "ip4.src==10.1.0.21 && ip4.dst==198.51.100.5 && udp")
    assert arrived(inside) == [iface_id(RED.uuid, WEB.id)]


def test_what_is_behind_who_has_no_address_yet(northd: Northd) -> None:
    port = replace(DYNAMIC, routes=(subnet("10.9.0.0/24"),), published=(subnet("198.51.100.4/31"),))
    made(northd, RED, port, MAIL)
    ways = {row["ip_prefix"] for row in northd.north.rows("Logical_Router_Static_Route")}
    assert not ways & {"10.9.0.0/24", "198.51.100.4/31"}
    (found,) = use(northd.north, lambda north: addresses_of(north, RED.uuid, DYNAMIC.id))
    use(northd.north, lambda north: add_port(north, RED, replace(port, known=found)))
    hops = {row["ip_prefix"]: row["nexthop"] for row in northd.north.rows("Logical_Router_Static_Route")}
    assert (hops["10.9.0.0/24"], hops["198.51.100.4/31"]) == ("10.1.0.10", "10.1.0.10")


def test_addresses_that_ovn_gives(northd: Northd) -> None:
    made(northd, RED, DYNAMIC, MAIL)
    (found,) = use(northd.north, lambda north: addresses_of(north, RED.uuid, DYNAMIC.id))
    assert found == (address("10.1.0.10"), address("fd01::73:63ff:fe00:109"))
    known = replace(DYNAMIC, known=found)
    assert use(northd.north, lambda n: add_port(n, RED, known, settled=True), lambda n: add_port(n, RED, known)) == [
        True, False
    ]  # fmt: skip
    state = next(each for each in use(northd.north, lambda n: ports_of(n, RED.uuid))[0] if each.id == DYNAMIC.id)
    assert (state.mac, state.addresses, state.up) == (DYNAMIC.mac, found, True)
    assert arrived(sent(northd, known, to_mail("10.1.0.10"))) == [iface_id(RED.uuid, MAIL.id)]
    assert arrived(sent(northd, known, to_mail("10.1.0.11"))) == []
    records = dict(northd.north.rows("DNS", "records")[0]["records"][1])
    assert records["dyn.red.example"] == "10.1.0.10 fd01::73:63ff:fe00:109"
