# SPDX-License-Identifier: Apache-2.0
"""Forwards of networks: ports, what they become, and rules of them (packets: vm-tests/test_forwards.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysd.model import forwards
from sysd.model.errors import ExistsError, InvalidError, NotFoundError
from sysd.model.forwards import Port, ranges
from sysd.model.network import Network
from sysd.network import firewall

LISTEN = "192.0.2.7"
NETWORK = Network("net0", config={"ipv4.address": "10.9.8.1/24", "ipv6.address": "fd42:1::1/64"})


def network(*ports: Port, target: str = "") -> Network:
    made = replace(NETWORK, forwards=forwards.with_forward(NETWORK, LISTEN, target, ""))
    for port in ports:
        made = replace(made, forwards=forwards.with_port(made, LISTEN, port))
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", [(80, 80)]),
        ("90-95,80", [(90, 95), (80, 80)]),
        ("1-65535", [(1, 65535)]),
        ("80, 81", [(80, 80), (81, 81)]),
    ],
)
def test_ports(text: str, found: list[tuple[int, int]]) -> None:
    assert ranges(text) == found


@pytest.mark.parametrize("text", ["", "0", "65536", "9-8", "80,", "80-", "80 81", "80,80", "70-90,80", "8O", "8\n0"])
def test_not_ports(text: str) -> None:
    with pytest.raises(InvalidError):
        ranges(text)


@pytest.mark.parametrize(
    ("listen", "target", "pairs"),
    [
        ("80,90-95", "", [([(80, 80), (90, 95)], 0)]),
        ("80-81", "80-81", [([(80, 81)], 0)]),
        ("80-81", "8080", [([(80, 81)], 8080)]),
        ("90,81", "7001-7002", [([(90, 90)], 7001), ([(81, 81)], 7002)]),
    ],
)
def test_what_ports_become(listen: str, target: str, pairs: list[tuple[list[tuple[int, int]], int]]) -> None:
    assert list(Port("tcp", listen, "10.9.8.5", target).pairs) == pairs


def test_rules() -> None:
    made = network(Port("tcp", "80,90-95", "10.9.8.5"), Port("udp", "53", "10.9.8.6", "5353"), target="10.9.8.7")
    by_name = {chain.name: chain for chain in firewall.chains(made, ())}
    assert by_name["arriving"].rules == by_name["leaving"].rules
    first, second, rest = by_name["arriving"].rules
    assert first[-1] == {"dnat": {"family": "ip", "addr": "10.9.8.5"}}
    assert first[1]["match"]["right"] == {"set": [80, {"range": [90, 95]}]}
    assert second[-1] == {"dnat": {"family": "ip", "addr": "10.9.8.6", "port": 5353}}
    assert [len(first), len(second), rest[-1]] == [3, 3, {"dnat": {"family": "ip", "addr": "10.9.8.7"}}]
    assert len(by_name["returning"].rules) == 1
    assert {chain.name for chain in firewall.chains(NETWORK, ())} & {"arriving", "leaving", "returning"} == set()


def test_what_goes_to_nobody_needs_no_way_back() -> None:
    assert firewall.chains(network(), ()) == []


def test_one_group_of_ports_is_another_only_by_protocol() -> None:
    made = network(Port("tcp", "80-90", "10.9.8.5"))
    with pytest.raises(ExistsError, match="tcp 80-90"):
        forwards.with_port(made, LISTEN, Port("tcp", "85", "10.9.8.6"))
    (one,) = forwards.with_port(made, LISTEN, Port("udp", "85", "10.9.8.6"))
    assert [port["protocol"] for port in one["ports"]] == ["tcp", "udp"]
    with pytest.raises(NotFoundError):
        forwards.without_port(made, LISTEN, "tcp", "80-89")
    (one,) = forwards.without_port(made, LISTEN, "tcp", "80-90")
    assert one["ports"] == []


def test_addresses_have_one_form() -> None:
    made = replace(NETWORK, forwards=forwards.with_forward(NETWORK, "2001:DB8:0::7", "FD42:1::5", ""))
    assert (made.forwarded[0].listen, made.forwarded[0].target) == ("2001:db8::7", "fd42:1::5")
    assert forwards.find(made, "2001:0db8::0007").listen == "2001:db8::7"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (network(target="10.9.9.5"), "10.9.9.5 is no guest's"),
        (network(target="10.9.8.1"), "10.9.8.1 is no guest's"),
        (network(target="fd42:1::5"), "is no guest's"),
        (replace(network(), config={"ipv4.address": "none"}), "has no IPv4"),
        (replace(network(), config={"ipv4.address": "192.0.2.1/24"}), "in network net0 itself"),
    ],
)
def test_forwards_lead_into_their_network(made: Network, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        forwards.check(made, [])


def test_two_networks_do_not_listen_to_one_address() -> None:
    with pytest.raises(ExistsError, match="network net0 has a forward"):
        forwards.check(replace(network(), name="net1"), [network()])
