# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import json

from sysd.manager.networks import choose_ipv4, choose_ipv6
from sysd.model.network import Network
from sysd.network import dnsmasq, firewall, links

NETWORK = Network("my-br.0", "10.9.8.1/24", "fd42:1::1/64")


def test_subnets_avoid_what_is_in_use() -> None:
    used = [ipaddress.IPv4Network(f"10.{n}.0.0/16") for n in range(256) if n != 77] + [
        ipaddress.IPv4Network("0.0.0.0/0")
    ]
    for _ in range(20):
        assert choose_ipv4(used).startswith("10.77.")


def test_ipv6_subnets_are_unique_local() -> None:
    interface = ipaddress.IPv6Interface(choose_ipv6())
    assert interface in ipaddress.IPv6Network("fd42::/16")
    assert interface.network.prefixlen == 64


def test_firewall_tables_are_told_apart() -> None:
    assert firewall.table_name("a-b") != firewall.table_name("a_b")
    commands = json.loads(json.dumps(firewall.nat_transaction(NETWORK)))["nftables"]
    assert [next(iter(command)) for command in commands[:3]] == ["add", "delete", "add"]
    assert "10.9.8.0" in json.dumps(commands)
    assert "fd42:1::" in json.dumps(commands)


def test_dnsmasq_takes_names_from_us_alone() -> None:
    line = dnsmasq.arguments(NETWORK, "host1")
    assert "--dhcp-ignore-names" in line
    assert "--dhcp-range=10.9.8.2,10.9.8.254,1h" in line
    assert any(word.startswith("--host-record=host1,") and "fd42:1::1" in word for word in line)


def test_dnsmasq_units_are_told_apart() -> None:
    assert dnsmasq.network_of(dnsmasq.unit_name("my-br.0")) == "my-br.0"
    assert dnsmasq.network_of("syscont@net.service") == ""
    one, other = (dnsmasq.unit_properties(NETWORK, "h", index)["Environment"].value for index in (3, 4))
    assert one == dnsmasq.bound_to(3) != other


def test_macs_are_local_and_unicast() -> None:
    first = int(links.random_mac().split(":")[0], 16)
    assert first & 3 == 2


def test_interface_names_fit() -> None:
    assert len(links.random_host_name(port=True)) <= 15
