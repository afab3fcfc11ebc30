# SPDX-License-Identifier: Apache-2.0
"""Networks that reach each other, and no more than that."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from sysd.model.errors import FailedError, InvalidError
from sysd.network.ovn.northbound import name
from sysd.network.ovn.peering import Peer, ensure_peering, peers_of, remove_peering
from sysd.network.ovn.ports import add_port, iface_id
from sysd.network.ovn.topology import ensure, remove
from tests.ovn.servers import Northd, Server
from tests.ovn.test_ovn_packets import GATEWAY, OUT, WORLD, arrived, made, sent
from tests.ovn.worlds import BLUE, FAR, RED, WEB, interface, subnet, use

GREEN = replace(
    RED, uuid="cccccccc-cccc-4ccc-8ccc-cccccccccccc", name="green", forwards=(), uplink=None, nat=(),
    addresses=(interface("10.3.0.1/24"),), mac="02:73:63:00:00:03",
)  # fmt: skip
FAR_END = iface_id(BLUE.uuid, FAR.id)
TABLES = ("Logical_Router_Port", "Logical_Router_Static_Route", "Logical_Router_Policy")


def both(server: Server) -> None:
    use(server, lambda n: ensure(n, RED), lambda n: ensure(n, BLUE), lambda n: ensure(n, GREEN))


def test_rows(north: Server) -> None:
    both(north)
    before = north.dump()
    pair = Peer(RED, (subnet("10.9.0.0/24"),)), Peer(BLUE)
    assert use(
        north, lambda n: ensure_peering(n, *pair), lambda n: ensure_peering(n, *reversed(pair)),
        lambda n: peers_of(n, RED.uuid), lambda n: peers_of(n, BLUE.uuid), lambda n: ensure(n, RED),
    ) == [True, False, [BLUE.uuid], [RED.uuid], False]  # fmt: skip
    ways = {(row["ip_prefix"], row["nexthop"]) for row in north.rows("Logical_Router_Static_Route")}
    assert ways >= {("10.2.0.0/24", "10.2.0.1"), ("fd02::/64", "fd02::1"), ("10.1.0.0/24", "10.1.0.1"),
                    ("10.9.0.0/24", "10.1.0.1")}  # fmt: skip
    red, blue = "sc-aaaaaaaaaaaa-lr", "sc-bbbbbbbbbbbb-lr"
    assert {row["match"] for row in north.rows("Logical_Router_Policy") if row["action"] == "drop"} == {
        f'inport == "{red}-peer-bbbbbbbbbbbb" && ip4.src != {{10.2.0.0/24}}',
        f'inport == "{red}-peer-bbbbbbbbbbbb" && ip6.src != {{fd02::/64}}',
        f'outport == "{red}-peer-bbbbbbbbbbbb" && ip4.src != {{10.1.0.0/24, 10.9.0.0/24}}',
        f'outport == "{red}-peer-bbbbbbbbbbbb" && ip6.src != {{fd01::/64}}',
        f'inport == "{red}-ext" && ip4.src == {{10.2.0.0/24}}', f'inport == "{red}-ext" && ip6.src == {{fd02::/64}}',
        f'inport == "{blue}-peer-aaaaaaaaaaaa" && ip4.src != {{10.1.0.0/24, 10.9.0.0/24}}',
        f'inport == "{blue}-peer-aaaaaaaaaaaa" && ip6.src != {{fd01::/64}}',
        f'outport == "{blue}-peer-aaaaaaaaaaaa" && ip4.src != {{10.2.0.0/24}}',
        f'outport == "{blue}-peer-aaaaaaaaaaaa" && ip6.src != {{fd02::/64}}',
        f'inport == "{blue}-ext" && ip4.src == {{10.1.0.0/24, 10.9.0.0/24}}',
        f'inport == "{blue}-ext" && ip6.src == {{fd01::/64}}',
        # And what each of them has without a peer.
        f'inport == "{red}-ext" && ip4.src == 10.1.0.0/24', f'inport == "{red}-ext" && ip6.src == fd01::/64',
        f'inport == "{blue}-ext" && ip4.src == 10.2.0.0/24', f'inport == "{blue}-ext" && ip6.src == fd02::/64',
    }  # fmt: skip
    north.transact({"op": "update", "table": "Logical_Router", "where": [], "row": {"policies": ["set", []]}})
    both(north)
    assert use(north, lambda n: ensure_peering(n, *pair)) == [True]
    assert use(north, lambda n: remove_peering(n, BLUE.uuid, RED.uuid)) == [True]
    assert use(north, lambda n: remove_peering(n, BLUE.uuid, RED.uuid), lambda n: peers_of(n, RED.uuid)) == [False, []]
    assert len(north.dump()) == len(before)


def test_a_network_that_goes_takes_its_peerings_with_it(north: Server) -> None:
    both(north)
    counts = {table: len(north.rows(table)) for table in TABLES}
    use(north, lambda n: remove(n, GREEN.uuid))
    left = {table: len(north.rows(table)) for table in TABLES}
    both(north)
    assert {table: len(north.rows(table)) for table in TABLES} == counts
    for pair in ((Peer(RED), Peer(GREEN)), (Peer(GREEN), Peer(BLUE))):
        use(north, partial(ensure_peering, one=pair[0], other=pair[1]))
    use(north, lambda n: remove(n, GREEN.uuid))
    assert {table: len(north.rows(table)) for table in TABLES} == left


@pytest.mark.parametrize(
    ("one", "other"), [
        (Peer(RED), Peer(RED)), (Peer(RED), Peer(replace(BLUE, addresses=RED.addresses))),
        (Peer(RED), Peer(replace(BLUE, addresses=(interface("10.1.0.129/25"),)))),
        (Peer(RED), Peer(replace(BLUE, addresses=(interface("fd01:0:0:0::9/60"),)))),
        (Peer(RED, (subnet("10.2.0.0/16"),)), Peer(BLUE)), (Peer(RED), Peer(BLUE, (subnet("10.1.0.7/32"),))),
    ],
)  # fmt: skip
def test_overlaps_are_refused(north: Server, one: Peer, other: Peer) -> None:
    both(north)
    before = north.dump()
    with pytest.raises(InvalidError):
        use(north, lambda n: ensure_peering(n, one, other))
    assert north.dump() == before


def test_overlapping_peers_of_one(north: Server) -> None:
    both(north)
    twin = replace(GREEN, addresses=BLUE.addresses)
    use(north, lambda n: ensure(n, twin), lambda n: ensure_peering(n, Peer(RED), Peer(BLUE)))
    before = north.dump()
    with pytest.raises(InvalidError, match="by another peer"):
        use(north, lambda n: ensure_peering(n, Peer(twin), Peer(RED)))
    assert north.dump() == before


def test_both_have_to_be_there(north: Server) -> None:
    use(north, lambda n: ensure(n, RED))
    before = north.dump()
    with pytest.raises(FailedError, match="lacks the Logical_Router"):
        use(north, lambda n: ensure_peering(n, Peer(RED), Peer(BLUE)))
    assert north.dump() == before


@pytest.fixture
def peers(northd: Northd) -> Northd:
    made(northd, RED)
    use(
        northd.north, lambda n: ensure(n, BLUE), lambda n: add_port(n, BLUE, FAR),
        lambda n: ensure_peering(n, Peer(RED), Peer(BLUE), settled=True),
    )  # fmt: skip
    return northd


def test_packets_go_there_and_back(peers: Northd) -> None:
    there = sent(peers, WEB, OUT + "ip4.src==10.1.0.20 && ip4.dst==10.2.0.20 && tcp.dst==80")
    assert arrived(there) == [FAR_END]
    assert "ct_snat" not in there
    six = sent(peers, WEB, OUT + "ip6.src==fd01::20 && ip6.dst==fd02::20 && tcp.dst==80")
    assert arrived(six) == [FAR_END]
    back = f"eth.dst=={BLUE.mac} && ip.ttl==64 && ip4.src==10.2.0.20 && ip4.dst==10.1.0.20 && tcp.src==80"
    assert arrived(sent(peers, FAR, back, network=BLUE)) == [iface_id(RED.uuid, WEB.id)]
    use(peers.north, lambda n: remove_peering(n, RED.uuid, BLUE.uuid, settled=True))
    assert FAR_END not in arrived(sent(peers, WEB, OUT + "ip4.src==10.1.0.20 && ip4.dst==10.2.0.20 && tcp.dst==80"))


def test_nobody_comes_in_as_another(peers: Northd) -> None:
    loose = replace(WEB, secured=False)
    use(peers.north, lambda n: add_port(n, RED, loose, settled=True))
    for source in ("ip4.src==10.7.0.1", "ip4.src==10.2.0.9", "ip6.src==fd07::1"):
        target = "ip4.dst==10.2.0.20" if "ip4" in source else "ip6.dst==fd02::20"
        packet = OUT + f"{source} && {target} && tcp.dst==80"
        assert FAR_END not in arrived(sent(peers, loose, packet)), source
    outside: Any = f'inport=="{WORLD}" && eth.src=={GATEWAY} && eth.dst=={RED.mac} && ip.ttl==64 && tcp.dst==80'
    for source, target in (("10.2.0.20", "10.1.0.20"), ("203.0.113.1", "10.2.0.20")):
        trace = peers.trace(name(RED.uuid, "ext"), f"{outside} && ip4.src=={source} && ip4.dst=={target}")
        assert not {FAR_END, iface_id(RED.uuid, WEB.id)} & set(arrived(trace)), source
