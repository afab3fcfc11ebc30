# SPDX-License-Identifier: Apache-2.0
"""Tunnels between networks of several hosts: what their keys take (what comes of them: vm-tests/test_tunnels.py)."""

from __future__ import annotations

import ipaddress

import pytest

from sysd.model import bridge
from sysd.model.errors import InvalidError
from sysd.model.network import SCHEMAS, Network, check_network
from sysd.model.tunnels import GRE, VXLAN, Tunnel, tunnels

NETWORK = Network("net0")


def keys(**members: str) -> dict[str, str]:
    return {f"tunnel.a.{member}": value for member, value in members.items()}


def test_what_is_not_said() -> None:
    (group,) = tunnels(keys(protocol="vxlan"))
    assert group == Tunnel("a", VXLAN, ipaddress.ip_address("239.0.0.1"))
    (gre,) = tunnels(keys(protocol="gre", local="192.0.2.1", remote="192.0.2.2"))
    here, there = (ipaddress.ip_address(f"192.0.2.{end}") for end in (1, 2))
    assert gre == Tunnel("a", GRE, there, here)


def test_several_by_name() -> None:
    config = keys(protocol="vxlan", id="5") | {"tunnel.B-2.protocol": "vxlan", "tunnel.B-2.remote": "fd00::2"}
    assert [(each.name, each.number, each.to.version) for each in tunnels(config)] == [("B-2", 0, 6), ("a", 5, 4)]
    assert check_network(NETWORK, config) == config


def test_links_have_names_that_fit() -> None:
    there = ipaddress.ip_address("192.0.2.2")
    assert Tunnel("a", VXLAN, there).link("net0") == "net0-a"
    long = [Tunnel(name, VXLAN, there).link("averylongname") for name in ("second", "third")]
    assert all(len(name) <= 15 for name in long)
    assert len(set(long)) == 2


def test_room_for_what_is_added() -> None:
    assert bridge.mtu({}) == 1500
    assert bridge.mtu(keys(protocol="vxlan")) == 1400
    assert bridge.mtu(keys(protocol="vxlan") | {"bridge.mtu": "9000"}) == 9000
    assert Network("net0", config=keys(protocol="vxlan")).mtu == 1400


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("protocol", "vxlan\n"), ("protocol", ""), ("id", "-1"), ("id", "1e3"), ("port", "65536"), ("ttl", "0"),
        ("remote", "192.0.2.0/24"), ("remote", "example.org"), ("remote", "0.0.0.0"), ("remote", "1.1.1.1,2.2.2.2"),
        ("local", "224.0.0.1"), ("group", "192.0.2.1"), ("interface", "../x"), ("interface", "a b"), ("key", "1"),
    ],
)  # fmt: skip
def test_bad_values_are_named(member: str, value: str) -> None:
    with pytest.raises(InvalidError, match=rf"tunnel\.a\.{member}"):
        SCHEMAS["bridge"].check(keys(protocol="vxlan") | keys(**{member: value}))


@pytest.mark.parametrize("name", ["", "a.b", "-a", "a-", "a b", "x" * 33])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        SCHEMAS["bridge"].check({f"tunnel.{name}.protocol": "vxlan"})
