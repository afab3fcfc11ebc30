# SPDX-License-Identifier: Apache-2.0
"""Filters and limits of interfaces: what options mean and what is made of them (frames: vm-tests/test_filters.py)."""

from __future__ import annotations

import ipaddress
import json
import struct
from typing import Any

import pytest

from sysd.manager import hotplug, interfaces
from sysd.model.devices import nic
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance
from sysd.model.sizes import parse_bits
from sysd.network import filters, nics, shaping
from sysd.network.filters import Source
from sysd.runtime.spec import LaunchSpec, Plugged

MAC = "02:73:63:00:00:07"
MARK = 0x7E57ED1F


def instance(**options: str) -> Instance:
    named = {key.replace("__", "."): value for key, value in options.items()}
    devices = {"eth0": {"type": "nic", "network": "net0", **named}}
    config = {"volatile.eth0.host_name": "vethsc1", "volatile.eth0.hwaddr": MAC.upper()}
    return Instance("0-1", "c1", "a", 0, config=config, devices=devices)


@pytest.mark.parametrize(
    ("text", "bits"), [("8000", 8000), ("8bit", 8), ("10kbit", 10_000), ("1Mbit", 10**6), ("2Gibit", 2 << 30)]
)
def test_bits(text: str, bits: int) -> None:
    assert parse_bits(text) == bits


@pytest.mark.parametrize("text", ["", "Mbit", "1.5Mbit", "-1Mbit", "1MB", "1 Mbit", "10Ebit", "1mbit", "1\n"])
def test_not_bits(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_bits(text)


def test_one_limit_for_both_ways() -> None:
    assert nic.rates({"limits.max": "1Mbit"}) == (10**6, 10**6)
    assert nic.rates({"limits.egress": "1Mbit"}) == (0, 10**6)
    with pytest.raises(InvalidError, match=r"limits\.max stands for"):
        nic.check({"nictype": "p2p", "limits.max": "1Mbit", "limits.egress": "1Mbit"})


def test_who_is_filtered_by_addresses_has_them() -> None:
    with pytest.raises(InvalidError, match=r"ipv6_filtering needs ipv6\.address"):
        nic.check({"nictype": "bridged", "parent": "br0", "security.ipv6_filtering": "true"})
    nic.check({"nictype": "bridged", "parent": "br0", "security.ipv6_filtering": "true", "ipv6.address": "fd00::2"})
    nic.check({"network": "net0", "security.ipv6_filtering": "true"})


def test_sources() -> None:
    assert interfaces.sources(instance()) == []
    assert interfaces.sources(instance(security__ipv4_filtering="false")) == []
    (one,) = interfaces.sources(instance(security__ipv4_filtering="true", ipv4__address="10.0.0.2"))
    own = ipaddress.ip_address("10.0.0.2")
    assert one == Source("vethsc1", True, MAC, {4: (own,)}, 0), "by its hardware address, too"
    (one,) = interfaces.sources(instance(limits__egress="1Mbit"))
    assert one == Source("vethsc1", True, "", {}, 10**6)


def test_tables() -> None:
    """Of the families that there are rules for; both are removed first, so that a change of kind leaves nothing."""
    wanted = filters.rules([Source("vethsc1", True, MAC), Source("vethsp2", False, egress=8 * 10**6)])
    assert list(wanted) == ["bridge", "inet"]
    commands = filters.transaction("0-1", wanted)["nftables"]
    gone = [each["delete"]["table"]["family"] for each in commands if "delete" in each]
    assert gone == ["bridge", "inet"]
    made = [each["add"]["chain"] for each in commands if "chain" in each.get("add", {})]
    assert {(chain["family"], chain["hook"]) for chain in made} == {("bridge", "prerouting"), ("inet", "prerouting")}
    rules = [each["add"]["rule"]["expr"] for each in commands if "rule" in each.get("add", {})]
    assert all(rule[0]["match"]["left"] == {"meta": {"key": "iifname"}} for rule in rules)
    assert json.dumps(rules[-1]) == json.dumps(
        [
            {"match": {"left": {"meta": {"key": "iifname"}}, "op": "==", "right": "vethsp2"}},
            {
                "limit": {
                    "rate": 10**6, "per": "second", "rate_unit": "bytes", "burst": shaping.LEAST_BURST,
                    "burst_unit": "bytes", "inv": True,
                }
            },
            {"drop": None},
        ]
    )  # fmt: skip
    named = filters.rules([Source("lan0", True), Source("wan0", False)])
    assert [rule[0]["match"]["right"] for rule in named["inet"]] == ["lan0", "wan0", "wan0"]
    assert filters.transaction("0-1", {}) == filters.removal(filters.table_name("0-1"))


def test_the_address_made_of_a_hardware_address() -> None:
    assert str(filters.link_local("02:73:63:00:00:07")) == "fe80::73:63ff:fe00:7"


def attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        size, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:size]
        data = data[size + -size % 4 :]
    return found


@pytest.mark.parametrize("bits", [8_000, 10**7, 10**9, 40 * 10**9])
def test_a_token_bucket(bits: int) -> None:
    message = bytes.fromhex(shaping.limit(MARK, bits))
    length, kind = struct.unpack_from("=IH", message)
    assert (length, kind) == (len(message), shaping.RTM_NEWQDISC)
    assert struct.unpack_from("=BxxxIII", message, 16) == (0, MARK, 0x10000, 0xFFFFFFFF)
    found = attributes(message[36:])
    assert found[1] == b"tbf\0"
    options = attributes(found[2])
    rate, queue = struct.unpack_from("=8xI12xI", options[1])
    assert len(options[1]) == 36
    assert struct.unpack("=Q", options[4])[0] == bits // 8 if bits // 8 >= 1 << 32 else rate == bits // 8
    (burst,) = struct.unpack("=I", options[6])
    assert shaping.LEAST_BURST <= burst < queue or queue == (1 << 32) - 1


def test_no_limit_is_the_end_of_one() -> None:
    """It is asked for at each start, and fails where there was none."""
    made = nics.requests(nics.Nic("p2p", "eth0", "veth1"), 100, 101)
    ((side, request),) = made.tune
    assert side == "host"
    assert request.startswith("-@veth1:")
    assert struct.unpack_from("=H", bytes.fromhex(request.rpartition(":")[2]), 4) == (shaping.RTM_DELQDISC,)


def _spec(nics: dict[str, Plugged]) -> LaunchSpec:
    texts: Any = dict.fromkeys(("uuid", "name", "uid_map", "gid_map", "rootfs", "state_dir"), "")
    return LaunchSpec(**texts, id_base=0, tty_group=0, waits_for_guest=False, nics=nics)


def test_a_limit_changes_while_the_link_stays() -> None:
    def plugged(limit: str, link: str = "a") -> Plugged:
        return Plugged([("host", link)], [("host", "gone")], [("host", limit)])

    (step,) = hotplug.steps([], {"eth0": plugged("1")}, _spec({"eth0": plugged("2")}))
    assert (step.do.links, step.undo.links) == ([("host", "2")], [("host", "1")])
    away, there = hotplug.steps([], {"eth0": plugged("1")}, _spec({"eth0": plugged("2", "b")}))
    assert away.do.links == [("host", "gone")]
    assert there.do.links == [("host", "b"), ("host", "2")]
    assert hotplug.steps([], {"eth0": plugged("1")}, _spec({"eth0": plugged("1")})) == []
