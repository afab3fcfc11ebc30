# SPDX-License-Identifier: Apache-2.0
"""Networks: what their keys take, and what becomes of them for nft, dnsmasq and the kernel."""

from __future__ import annotations

import ipaddress
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from sysd.manager import hosts, subnets
from sysd.manager.subnets import choose_ipv4, choose_ipv6
from sysd.model import names
from sysd.model.addresses import Interface, Subnet
from sysd.model.errors import InvalidError, NotFoundError, UnsupportedError
from sysd.model.instance import Instance
from sysd.model.network import MACVLAN, MADE_LINK, SCHEMAS, Network, check_network, check_type
from sysd.network import dnsmasq, firewall, leases, links, netlink, nics, ruleset
from sysd.network.dnsmasq import Host

NAT = {"ipv4.nat": "true", "ipv6.nat": "true"}
NETWORK = Network("my-br.0", config={"ipv4.address": "10.9.8.1/24", "ipv6.address": "fd42:1::1/64", **NAT})


def network(**config: str) -> Network:
    """Of NETWORK's, with keys set; ``_`` stands for the dot of keys."""
    return replace(NETWORK, config=NETWORK.config | {key.replace("_", "."): value for key, value in config.items()})


GOOD = [
    {"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.2.5-10.1.2.9, 10.1.2.20-10.1.2.20"},
    {"ipv4.address": "none", "ipv6.address": "none"},
    {"ipv4.address": "10.1.2.1/30", "ipv4.dhcp.gateway": "10.1.2.2"},
    {"ipv6.address": "fd42::1/64"},
    {"ipv6.address": "fd42::1/112", "ipv6.dhcp.stateful": "true", "ipv6.dhcp.ranges": "fd42::5-fd42::9"},
    {"bridge.mtu": "9000", "bridge.hwaddr": "02:00:00:00:00:01", "bridge.external_interfaces": "eno1,eno2"},
    {"ipv4.routes": "10.5.0.0/16, 10.6.0.0/16", "ipv6.routes": "fd43::/48"},
    {"ipv4.nat.address": "192.0.2.7", "ipv4.nat.order": "after", "ipv4.dhcp.expiry": "7d"},
    {"dns.domain": "Lab.example", "dns.mode": "dynamic", "dns.search": "a.example,b.example"},
    {"raw.dnsmasq": "# comment\n\naddress=/a.example/192.0.2.1\n dhcp-option = option:ntp-server,192.0.2.2\nlog-dhcp"},
    {"user.note": "two\nlines"},
]
BAD = [
    ("ipv4.address", "10.1.2.0/24", "not an address that a host can have"),
    ("ipv4.address", "10.1.2.255/24", "not an address that a host can have"),
    ("ipv4.address", "127.0.0.1/8", "not an address that a host can have"),
    ("ipv4.address", "224.0.0.1/8", "not an address that a host can have"),
    ("ipv4.address", "10.1.2.1", "with prefix length"),
    ("ipv4.address", "10.1.2.1/31", "no room"),
    ("ipv4.address", "10.1.2.1/24 ", "with prefix length"),
    ("ipv4.address", "fd42::1/64", "not an IPv4 address"),
    ("ipv6.address", "fd42::1%eth0/64", "not an IPv6 address"),
    ("ipv6.address", "10.1.2.1/24", "not an IPv6 address"),
    ("ipv4.dhcp.ranges", "10.1.2.9-10.1.2.5", "ends before it begins"),
    ("ipv4.dhcp.ranges", "10.1.2.9", "not a range"),
    ("ipv4.dhcp.expiry", "1s", "not a lease time"),
    ("ipv4.dhcp.expiry", "1h,set:x", "not a lease time"),
    ("ipv4.dhcp.gateway", "10.1.2.1,10.1.2.2", "not an IPv4 address"),
    ("ipv4.nat", "maybe", "not a boolean"),
    ("ipv4.nat.order", "first", "not acceptable"),
    ("ipv4.nat.address", "; drop", "not an IPv4 address"),
    ("ipv4.routes", "10.1.2.1/24", "not an IPv4 network"),
    ("dns.domain", "a b", "not a domain"),
    ("dns.domain", "a,b", "not a domain"),
    ("dns.domain", "a/b", "not a domain"),
    ("dns.domain", "", "not a domain"),
    ("dns.domain", "x\ny", "line break"),
    ("dns.search", "ok.example,-bad", "not a domain"),
    ("dns.mode", "static", "not acceptable"),
    ("bridge.mtu", "12", "out of range"),
    ("bridge.hwaddr", "03:00:00:00:00:01", "not a hardware address"),
    ("bridge.external_interfaces", "eth0;reboot", "not the name of a link"),
    ("bridge.external_interfaces", "../x", "not the name of a link"),
    ("raw.dnsmasq", "server=8.8.8.8@eth0", "by which link"),
    ("raw.dnsmasq", "= x", "not an option"),
    ("raw.dnsmasq", "cname=a\u00e4b", "not a value"),
    ("raw.dnsmasq", "txt-record=a,\x01b", "not a value"),
    ("no.such", "x", "unknown bridge network key"),
]


@pytest.mark.parametrize("config", GOOD)
def test_good_values(config: dict[str, str]) -> None:
    assert check_network(Network("br0"), config) == config


@pytest.mark.parametrize(("key", "value", "why"), BAD)
def test_bad_values(key: str, value: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why) as raised:
        check_network(Network("br0"), {key: value})
    assert key in raised.value.message


RAW = ["dhcp-script=/bin/sh", "conf-file=/etc/shadow", "dhcp-hostsfile=/x", "interface=eth0", "user=nobody",
       "addn-hosts=/x", "log-facility=/etc/cron.d/x", "enable-tftp", "tftp-root=/", "dhcp-luascript=/x",
       "port=54", "dhcp-leasefile=/x", "listen-address=0.0.0.0", "no-daemon", "pid-file=/x", "servers-file=/x",
       "resolv-file=/x"]  # fmt: skip


@pytest.mark.parametrize("line", RAW)
def test_what_dnsmasq_is_not_told(line: str) -> None:
    """Nothing that names a file, a program, a link or where it listens."""
    with pytest.raises(UnsupportedError, match=r"raw\.dnsmasq"):
        SCHEMAS["bridge"].check({"raw.dnsmasq": line})


TOGETHER = [
    ({"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.2.5-10.1.3.9"}, "10.1.3.9 is not in 10.1.2.0/24"),
    ({"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.gateway": "10.1.3.1"}, "ipv4.dhcp.gateway"),
    ({"ipv6.address": "fd42::1/112"}, "/64 only"),
    ({"ipv6.address": "fd42::1/64", "bridge.mtu": "1000"}, "too small for IPv6"),
    ({"ipv6.address": "fd42::1/64", "ipv6.dhcp.ranges": "fd42::5-fd42::9"}, "not leased"),
    ({"bridge.external_interfaces": "eno1,eno1"}, "twice"),
]


@pytest.mark.parametrize(("config", "why"), TOGETHER)
def test_what_does_not_go_together(config: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check_network(Network("br0"), config)


NOT_OFFERED = ["bgp.peers.a.address", "fan.type", "maas.subnet.ipv4"]


@pytest.mark.parametrize("key", NOT_OFFERED)
def test_what_is_not_offered_says_why(key: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{key} can't be set: .+"):
        check_network(Network("br0"), {key: "x"})


def test_types() -> None:
    assert check_type("physical") == "physical"
    assert check_type("sriov") == "sriov"
    with pytest.raises(InvalidError, match="unknown type"):
        check_type("token-ring")


def test_networks_of_other_links() -> None:
    lan = Network("lan", MACVLAN, config={"parent": "eno1", "vlan": "20", MADE_LINK: "true"})
    assert (lan.link, lan.address(4), lan.domain, lan.leases(4)) == ("eno1.20", None, "", False)
    assert check_network(lan, {"parent": "eno1"}) == {"parent": "eno1", MADE_LINK: "true"}
    for wrong, why in (({}, "parent is missing"), ({"parent": "a", "gvrp": "true"}, "vlan"),
                       ({"parent": "a" * 15, "vlan": "20"}, "name of a link")):  # fmt: skip
        with pytest.raises(InvalidError, match=why):
            check_network(lan, wrong)
    with pytest.raises(InvalidError, match="kept by syscontd"):
        check_network(lan, {"parent": "a", MADE_LINK: "true"})


@pytest.mark.parametrize("name", ["all", "default", "lo", "a/b", "-x", "", "a" * 16, "a b"])
def test_names_that_links_can_not_have(name: str) -> None:
    with pytest.raises(InvalidError):
        names.check_network_name(name)


# addresses


def test_subnets_avoid_what_is_in_use() -> None:
    used: list[Subnet] = [ipaddress.IPv4Network(f"10.{n}.0.0/16") for n in range(256) if n != 77]
    for _ in range(20):
        assert choose_ipv4([*used, ipaddress.IPv4Network("0.0.0.0/0")]).startswith("10.77.")


def test_ipv6_subnets_are_unique_local() -> None:
    interface = ipaddress.IPv6Interface(choose_ipv6())
    assert interface in ipaddress.IPv6Network("fd42::/16")
    assert interface.network.prefixlen == 64


def test_addresses_are_made_up_once() -> None:
    made = subnets.fill({}, [NETWORK], new=True)
    assert made["ipv4.nat"] == "true"
    assert subnets.fill(made, [NETWORK], new=False) == made
    assert subnets.fill({}, [NETWORK], new=False) == {}
    other = subnets.fill(made | {"ipv4.address": "auto", "ipv4.nat": "false"}, [NETWORK], new=False)
    assert other["ipv4.address"] != made["ipv4.address"]
    assert other["ipv4.nat"] == "false"
    assert subnets.fill({"ipv4.address": "none", "ipv6.address": "none"}, [], new=True) == {
        "ipv4.address": "none", "ipv6.address": "none"}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "others", "host"),
    [
        ("10.9.8.129/25", [NETWORK], []),
        ("10.0.0.1/8", [NETWORK], []),
        ("10.5.1.1/24", [network(ipv4_routes="10.5.0.0/16")], []),
        ("10.4.1.1/24", [], [ipaddress.ip_interface("10.4.0.7/16")]),
    ],
)
def test_subnets_do_not_overlap(own: str, others: list[Network], host: list[Interface]) -> None:
    subnets.check(Network("br1", config={"ipv4.address": "10.200.0.1/24"}), others, host)
    with pytest.raises(InvalidError, match="overlaps"):
        subnets.check(Network("br1", config={"ipv4.address": own}), others, host)


# the firewall


def rules(one: Network) -> str:
    return json.dumps(firewall.transaction(one.name, firewall.chains(one, ())))


def test_firewall_tables_are_told_apart() -> None:
    assert firewall.table_name("a-b") != firewall.table_name("a_b")
    commands = json.loads(rules(NETWORK))["nftables"]
    assert [next(iter(command)) for command in commands[:3]] == ["add", "delete", "add"]
    assert "10.9.8.0" in json.dumps(commands)
    assert "fd42:1::" in json.dumps(commands)


def test_a_network_without_rules_has_no_table() -> None:
    closed = json.loads(rules(network(ipv4_nat="false", ipv6_nat="false")))["nftables"]
    assert [next(iter(command)) for command in closed] == ["add", "delete"]
    assert json.loads(json.dumps(firewall.removal("my-br.0")))["nftables"] == closed


def test_nat_as_the_network_says() -> None:
    said = network(ipv4_nat_address="192.0.2.7", ipv6_nat_order="after")
    text = rules(said)
    assert '"snat": {"family": "ip", "addr": "192.0.2.7"}' in text
    assert [(chain.name, chain.priority, len(chain.rules)) for chain in firewall.chains(said, ())] == [
        ("postrouting", 99, 1), ("postrouting_after", 101, 1)]  # fmt: skip


def test_without_routing_nothing_passes() -> None:
    (_, forward) = firewall.chains(network(ipv4_routing="false"), ())
    assert (forward.hook, len(forward.rules)) == ("forward", 2)
    assert firewall.chains(network(ipv4_routing="false", ipv4_firewall="false"), ()) == firewall.chains(NETWORK, ())


# dnsmasq


def told(one: Network) -> list[str]:
    return dnsmasq.arguments(one, "host1")


def test_dnsmasq_takes_names_from_us_alone() -> None:
    line = told(NETWORK)
    assert "--dhcp-ignore-names" in line
    assert "--dhcp-range=10.9.8.2,10.9.8.254,1h" in line
    assert "--dhcp-range=::,constructor:my-br.0,ra-stateless,ra-names" in line
    assert any(word.startswith("--host-record=host1,") and "fd42:1::1" in word for word in line)


@pytest.mark.parametrize(
    ("config", "has", "lacks"),
    [
        ({"ipv4.dhcp": "false"}, "--listen-address=10.9.8.1", "--dhcp-range=10"),
        ({"ipv4.dhcp.ranges": "10.9.8.5-10.9.8.9", "ipv4.dhcp.expiry": "2h"}, "--dhcp-range=10.9.8.5,10.9.8.9,2h",
         "8.254"),
        ({"ipv4.dhcp.gateway": "10.9.8.7"}, "--dhcp-option-force=option:router,10.9.8.7", "none"),
        ({"ipv4.address": "none"}, "--enable-ra", "10.9.8"),
        ({"ipv6.address": "none"}, "--listen-address=10.9.8.1", "fd42"),
        ({"ipv6.dhcp": "false"}, "--dhcp-range=::,constructor:my-br.0,ra-only,ra-names", "stateless"),
        ({"ipv6.dhcp.stateful": "true"}, "--dhcp-range=fd42:1::2,fd42:1::ffff:ffff:ffff:fffe,64,1h", "constructor"),
        ({"bridge.mtu": "9000"}, "--dhcp-option-force=option:mtu,9000", "none"),
        ({"dns.mode": "none"}, "--dhcp-ignore-names", "--domain"),
        ({"dns.mode": "dynamic"}, "--dhcp-ignore-names=tag:sought", "ra-names"),
        ({"dns.domain": "lab.example"}, "--local=/lab.example/", "=/syscont/"),
        ({"dns.search": "a.example"}, "--dhcp-option=option:domain-search,syscont,a.example", "none"),
        ({"raw.dnsmasq": "address=/x/192.0.2.1\nlog-dhcp"}, "--address=/x/192.0.2.1", "\n"),
    ],
)  # fmt: skip
def test_dnsmasq_is_told_what_the_network_says(config: dict[str, str], has: str, lacks: str) -> None:
    line = told(replace(NETWORK, config=NETWORK.config | config))
    assert has in line
    assert not [word for word in line if lacks in word and "leasefile" not in word and word != "--bind-interfaces"
                and not word.startswith(("--quiet", "--dhcp-rapid", "--dhcp-authoritative"))]  # fmt: skip


def test_dnsmasq_units_are_told_apart() -> None:
    assert dnsmasq.network_of(dnsmasq.unit_name("my-br.0")) == "my-br.0"
    assert dnsmasq.network_of("syscont@net.service") == ""

    def environment(one: Network, index: int) -> Any:
        return dnsmasq.unit_properties(one, "h", index)["Environment"].value

    seen = [environment(NETWORK, 3), environment(NETWORK, 4), environment(network(ipv4_dhcp="false"), 3)]
    assert len({tuple(each) for each in seen}) == 3
    assert environment(NETWORK, 3) == seen[0]


def test_hosts_have_names_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsmasq, "NETWORK_DIR", tmp_path)
    kept = Host("web1", (ipaddress.ip_address("10.9.8.5"), ipaddress.ip_address("fd42:1::5")))
    table = {"02:00:00:00:00:01": kept, "02:00:00:00:00:02": Host("web2"), "02:00:00:00:00:03": Host()}
    assert dnsmasq.write_hosts(NETWORK, table)
    assert not dnsmasq.write_hosts(NETWORK, table)
    path = tmp_path / "my-br.0" / "hosts"
    assert path.read_text() == "02:00:00:00:00:01,10.9.8.5,[fd42:1::5],web1\n02:00:00:00:00:02,web2\n"
    unnamed = replace(NETWORK, config=NETWORK.config | {"dns.mode": "none"})
    assert dnsmasq.write_hosts(unnamed, table)
    assert path.read_text() == "02:00:00:00:00:01,10.9.8.5,[fd42:1::5]\n"


# leases


LEASES = """1700000000 02:00:00:00:00:01 10.9.8.77 web1 01:02:00:00:00:00:01
1700000000 02:00:00:00:00:02 10.9.7.5 * *
duid 00:01:00:01:2c:00:00:00:02:00:00:00:00:09
0 123456 fd42:1::77 web1 00:01:00:01:2c:00:00:00:02:00:00:00:00:01
0 123456 fd42:1::78 * 00:02:00:00:ab:11:00:00:00:00:00:00:00:01
1 2 3
x 02:00:00:00:00:02 10.9.8.5 * *
0 02:00:00:00:00:02 10.9.8.5/8 * *
"""


def test_leases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    assert leases.read(path) == []
    path.write_text(LEASES)
    found = [(str(one.address), one.hwaddr, one.name) for one in leases.read(path)]
    assert found == [
        ("10.9.8.77", "02:00:00:00:00:01", "web1"),
        ("10.9.7.5", "02:00:00:00:00:02", ""),
        ("fd42:1::77", "02:00:00:00:00:01", "web1"),
        ("fd42:1::78", "", ""),
    ]
    leases.prune(path, [NETWORK.subnet(4) or ipaddress.ip_network("10.9.8.0/24")])
    assert [str(one.address) for one in leases.read(path)] == ["10.9.8.77"]
    assert "duid" in path.read_text()


def test_leases_of_garbage(tmp_path: Path) -> None:
    import random

    noise = random.Random(4)
    for _ in range(2000):
        line = "".join(noise.choice("0123456789abcdef:. *\t\u00e9") for _ in range(noise.randrange(80)))
        leases.parse(line)


# interfaces


def instance(name: str, **options: str) -> Instance:
    nic = {"type": "nic", "network": "my-br.0", "hwaddr": "02:00:00:00:00:01"}
    named = {key.replace("_", "."): value for key, value in options.items()}
    return Instance(name, name, "f", 0, devices={"eth0": nic | named})


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.9.7.5", "is not in network"),
        ("10.9.8.1", "not for guests"),
        ("10.9.8.255", "not for guests"),
        ("10.9.8.0", "not for guests"),
    ],
)
def test_kept_addresses_are_of_the_network(address: str, why: str) -> None:
    hosts.check_kept(NETWORK, [instance("web1", ipv4_address="10.9.8.5"), instance("web2")])
    with pytest.raises(InvalidError, match=why):
        hosts.check_kept(NETWORK, [instance("web1", ipv4_address=address)])


def test_kept_addresses_are_one_instances() -> None:
    twice = [instance("web1", ipv4_address="10.9.8.5"), instance("web2", ipv4_address="10.9.8.5")]
    with pytest.raises(InvalidError, match=r"device eth0 of web2: 10\.9\.8\.5 is kept for another"):
        hosts.check_kept(NETWORK, twice)
    for config, key in (({"ipv4.dhcp": "false"}, "ipv4_address"), ({}, "ipv6_address")):
        address = "10.9.8.5" if key == "ipv4_address" else "fd42:1::5"
        with pytest.raises(InvalidError, match="leases no addresses"):
            hosts.check_kept(replace(NETWORK, config=NETWORK.config | config), [instance("web1", **{key: address})])


def test_interfaces_name_networks_that_there_are() -> None:
    lan = Network("my-br.0", MACVLAN, config={"parent": "eno1"})
    hosts.check_devices(instance("web1").devices, lambda name: lan)
    with pytest.raises(NotFoundError, match=r"device eth0: no network 'my-br\.0'"):
        hosts.check_devices(instance("web1").devices, lambda name: None)
    with pytest.raises(InvalidError, match="host_name is not for networks of type macvlan"):
        hosts.check_devices({"eth0": {"type": "nic", "network": "lan", "host_name": "x"}}, lambda name: lan)


def test_macs_are_local_and_unicast() -> None:
    first = int(links.random_mac().split(":")[0], 16)
    assert first & 3 == 2


def test_interface_names_fit() -> None:
    assert len(links.random_host_name(port=True)) <= 15


def test_isolation_is_asked_for_once_the_port_is_there() -> None:
    def steps(*, isolated: bool) -> tuple[nics.Step, ...]:
        return nics.requests(nics.Nic("bridged", "eth0", "veth1", parent=3, isolated=isolated), 100, 101).plug

    plain, isolated = steps(isolated=False), steps(isolated=True)
    assert len(plain) == 2
    gone, add, (side, request), up = isolated
    assert (gone, add[0], up[0]) == (plain[0], "host", "host")
    flags = [struct.unpack_from("=I", bytes.fromhex(each), 24)[0] & 1 for _, each in (plain[1], add, up)]
    assert flags == [1, 0, 1], "the port is up once it is isolated"
    assert request.startswith("@veth1:20:")
    message = ifinfmsg(bytes.fromhex(request.rpartition(":")[2]))
    message.decode()
    info = message.get_attr("IFLA_LINKINFO")
    assert (side, info.get_attr("IFLA_INFO_SLAVE_KIND")) == ("host", "bridge")
    assert info.get_attr("IFLA_INFO_SLAVE_DATA").get_attr("IFLA_BRPORT_ISOLATED") == 1


def test_tables_that_are_gone_are_named() -> None:
    """Of messages of all kinds, cut off anywhere."""
    head = struct.pack(">BBH", 1, 0, 0)
    other = netlink.message(10 << 8 | 0, 0, head + netlink.attribute(1, b"new\0"))
    gone = [
        netlink.message(10 << 8 | 2, 0, head + netlink.attribute(2, bytes(4)) + netlink.attribute(1, name + b"\0"))
        for name in (b"a", b"syscont_net0")
    ]
    news = other + b"".join(gone)
    assert list(ruleset.tables_gone(news)) == ["a", "syscont_net0"]
    for end in range(len(news)):
        assert set(ruleset.tables_gone(news[:end])) <= {"a", *("syscont_net0"[:length] for length in range(13))}
