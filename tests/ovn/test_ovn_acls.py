# SPDX-License-Identifier: Apache-2.0
"""ACLs in OVN: the rows, and what becomes of packets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from sysd.model.acls import Acl
from sysd.model.errors import FailedError, InvalidError
from sysd.network.ovn.acls import Subjects, ensure_acls
from sysd.network.ovn.northbound import digest
from sysd.network.ovn.ports import add_port, add_ports, iface_id, remove_port
from sysd.network.ovn.topology import ensure, remove
from sysd.network.ovn.values import Defaults
from tests.ovn.servers import Northd, Server
from tests.ovn.test_ovn_packets import GATEWAY, OUT, WORLD, arrived, made, sent
from tests.ovn.worlds import MAIL, RED, WEB, subnet, use

DEFAULTS = Defaults()
PLAIN = replace(RED, forwards=())
MAIL_END = iface_id(RED.uuid, MAIL.id)
LOCAL = "169.254.0.0/16, 224.0.0.0/4, 255.255.255.255/32"
X = "sc_aaaaaaaaaaaa_acl_2d711642b726"
Said = list[dict[str, str]]


def acl(name: str, ingress: Said | None = None, egress: Said | None = None) -> Acl:
    return Acl(name, ingress=ingress or [], egress=egress or [])


MANY = [
    acl("a-b", [{"action": "allow", "protocol": "tcp", "destination_port": "80,90-95", "state": "logged"},
                {"action": "drop", "source": "10.1.0.0/30,10.1.0.9-10.1.0.20", "protocol": "icmp4", "icmp_type": "8"}]),
    acl("a_b", [{"action": "allow", "source": "a-b,@external"}, {"action": "drop", "state": "disabled"}],
        [{"action": "reject", "destination": "@peer/x,fd07::/64", "protocol": "udp"}]),
]  # fmt: skip


def apply(server: Server, found: Sequence[Acl], defaults: Defaults = DEFAULTS) -> list[Any]:
    peers = {"@peer/x": [subnet("10.7.0.0/24")]}
    ports = [replace(MAIL, acls=tuple(each.name for each in found))]
    return use(
        server, lambda n: ensure_acls(n, PLAIN, found, defaults, peers),
        lambda n: add_ports(n, PLAIN, ports, settled=bool(server.rows("NB_Global"))),
    )  # fmt: skip


def test_rows(north: Server) -> None:
    use(north, lambda n: ensure(n, PLAIN), lambda n: add_ports(n, PLAIN, [WEB, MAIL]))
    before = north.dump()
    assert apply(north, MANY) == [True, True]
    once = north.dump()
    assert apply(north, MANY) == [False, False]
    assert north.dump() == once
    rows = {(row["direction"], row["action"], row["priority"]): row for row in north.rows("ACL")}
    assert len(north.rows("ACL")) == 8
    assert set(rows) == {
        ("to-lport", "allow-related", 300), ("to-lport", "drop", 500), ("from-lport", "reject", 400),
        *((side, "allow-related", 200) for side in ("to-lport", "from-lport")),
        *((side, "reject", 100) for side in ("to-lport", "from-lport")),
    }  # fmt: skip
    assert rows["from-lport", "reject", 400]["match"] == (
        "inport == @sc_aaaaaaaaaaaa_acl_" + digest("a_b") +
        " && ((ip4.dst == {10.7.0.0/24}) || (ip6.dst == {fd07::/64})) && udp"
    )  # fmt: skip
    assert {row["name"] for row in north.rows("Meter")} == {"sc-aaaaaaaaaaaa-log"}
    for row in north.rows("ACL"):
        north.transact({"op": "mutate", "table": "Port_Group", "where": [],
                        "mutations": [["acls", "delete", row["_uuid"]]]})  # fmt: skip
    assert apply(north, MANY) == [True, False]
    assert len(north.rows("ACL")) == 8
    assert use(north, lambda n: add_port(n, PLAIN, MAIL), lambda n: ensure_acls(n, PLAIN, [], DEFAULTS)) == [True, True]
    assert not north.rows("ACL")
    assert [row["name"] for row in north.rows("Port_Group")] == ["sc_aaaaaaaaaaaa_guests"]
    assert len(north.dump()) == len(before)


def test_logging(north: Server) -> None:
    use(north, lambda n: ensure(n, PLAIN))
    use(north, lambda n: ensure_acls(n, PLAIN, [MANY[0]], Defaults("drop", "allow", egress_logged=True)))
    found = {row["name"]: (row["log"], row["meter"], row["severity"], row["action"])
             for row in north.rows("ACL") if row["log"]}  # fmt: skip
    assert found == {
        "red-a-b-ingress": (True, "sc-aaaaaaaaaaaa-log", "info", "allow-related"),
        "red-default-egress": (True, "sc-aaaaaaaaaaaa-log", "info", "allow-related"),
    }


def test_one_rule_more_leaves_the_others(north: Server) -> None:
    use(north, lambda n: ensure(n, PLAIN))
    use(north, lambda n: ensure_acls(n, PLAIN, MANY[:1], DEFAULTS))
    before = {row["_uuid"][1]: row["_version"] for row in north.rows("ACL")}
    more = acl("a-b", [{"action": "drop", "protocol": "udp"}, *MANY[0].ingress])
    use(north, lambda n: ensure_acls(n, PLAIN, [more], DEFAULTS))
    after = {row["_uuid"][1]: row["_version"] for row in north.rows("ACL")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_a_port_with_defaults_of_its_own(north: Server) -> None:
    use(north, lambda n: ensure(n, PLAIN), lambda n: ensure_acls(n, PLAIN, MANY[:1], DEFAULTS))
    before = len(north.rows("ACL"))
    port = replace(MAIL, acls=("a-b",), defaults=Defaults("allow", "drop"))
    assert use(north, lambda n: add_port(n, PLAIN, port), lambda n: add_port(n, PLAIN, port)) == [True, False]
    own = [row for row in north.rows("ACL") if row["priority"] == 101]
    assert {(row["direction"], row["action"]) for row in own} == {("to-lport", "allow-related"), ("from-lport", "drop")}
    use(north, lambda n: remove_port(n, PLAIN.uuid, MAIL.id))
    assert len(north.rows("ACL")) == before
    use(north, lambda n: remove(n, PLAIN.uuid))
    assert not any(north.rows(table) for table in ("ACL", "Port_Group", "Meter", "Meter_Band", "Logical_Switch_Port"))


def test_unknown_subjects_and_groups(north: Server) -> None:
    use(north, lambda n: ensure(n, PLAIN))
    before = north.dump()
    for word in ("@none/x", "@nonsense", "other", "10.1.0.0/33", 'x" || 1', "10.0.0.1,"):
        bad = acl("bad", [{"action": "allow", "source": word}])
        with pytest.raises(InvalidError):
            use(north, partial(ensure_acls, network=PLAIN, found=[bad], defaults=DEFAULTS))
    mixed = acl("bad", [{"action": "allow", "source": "10.0.0.1", "destination": "fd00::1"}])
    with pytest.raises(InvalidError, match="different versions"):
        use(north, lambda n: ensure_acls(n, PLAIN, [mixed], DEFAULTS))
    with pytest.raises(FailedError, match="lacks the Port_Group"):
        use(north, lambda n: add_port(n, PLAIN, replace(MAIL, acls=("none",))))
    assert north.dump() == before


@pytest.mark.parametrize(
    ("text", "version", "expression"), [
        ("10.1.0.1", 4, "ip4.src == {10.1.0.1/32}"), ("10.1.0.1", 6, ""),
        ("10.1.0.1-10.1.0.4", 4, "ip4.src == {10.1.0.1/32, 10.1.0.2/31, 10.1.0.4/32}"),
        ("@internal", 4, "ip4.src == {10.1.0.0/24}"), ("#internal", 6, "ip6.src == {fd01::/64}"),
        ("@external", 4, f"ip4.src != {{10.1.0.0/24, {LOCAL}}}"),
        ("@external,10.1.0.7", 4, f"(ip4.src == {{10.1.0.7/32}} || ip4.src != {{10.1.0.0/24, {LOCAL}}})"),
        ("x", 4, f"(ip4.src == {{${X}_ip4}} || (ip4 && inport == @{X}))"),
        ("x,fd00::/8", 6, f"(ip6.src == {{${X}_ip6, fd00::/8}} || (ip6 && inport == @{X}))"),
        ("@n/p", 4, "ip4.src == {10.7.0.0/24}"), ("@n/p", 6, ""),
    ],
)  # fmt: skip
def test_subjects(text: str, version: int, expression: str) -> None:
    subjects = Subjects(RED, {"x"}, {"@n/p": [subnet("10.7.0.0/24")]})
    assert subjects.match(text, version, f"ip{version}.src") == expression


def test_names_and_addresses_are_told_apart() -> None:
    subjects = Subjects(RED, {"10.1.0.7", "7a"}, {})
    assert subjects.match("10.1.0.7", 4, "ip4.src") == "ip4.src == {10.1.0.7/32}"
    assert subjects.match("7a", 4, "ip4.dst") == f"ip4.dst == {{$sc_aaaaaaaaaaaa_acl_{digest('7a')}_ip4}}"
    assert subjects.match("10.1.0.7,7a", 6, "ip6.dst") == f"ip6.dst == {{$sc_aaaaaaaaaaaa_acl_{digest('7a')}_ip6}}"


def test_a_rule_about_nobody_is_none(north: Server) -> None:
    """A peer that is none yet, and one that has nothing of the version that the other side is of."""
    use(north, lambda n: ensure(n, PLAIN))
    rules = [{"action": "allow", "source": "@red/x"}, {"action": "drop", "source": "@red/y", "destination": "fd01::1"},
             {"action": "reject", "source": "@red/x,10.9.0.1"}]  # fmt: skip
    peers = {"@red/x": [], "@red/y": [subnet("10.7.0.0/24")]}
    use(north, lambda n: ensure_acls(n, PLAIN, [acl("a", rules)], DEFAULTS, peers))
    (row,) = [row for row in north.rows("ACL") if row["priority"] >= 300]
    assert (row["action"], row["match"].partition(" && ")[2]) == ("reject", "ip4.src == {10.9.0.1/32}")


def to_mail(packet: str) -> str:
    return f"eth.dst=={MAIL.mac} && ip4.src==10.1.0.20 && ip4.dst==10.1.0.21 && ip.ttl==64 && {packet}"


def tried(northd: Northd, packet: str) -> str:
    """What becomes of the first packet of a connection to the guest with ACLs."""
    return sent(northd, WEB, to_mail(packet), "--ct", "new", "--ct", "new")


@pytest.mark.parametrize("default", ["reject", "drop", "allow"])
def test_packets(northd: Northd, default: str) -> None:
    made(northd, PLAIN)
    ping = {"protocol": "icmp4", "icmp_type": "8"}
    rules = [
        {"action": "allow", "protocol": "tcp", "destination_port": "80,90-95"},
        {"action": "drop", "protocol": "tcp", "destination_port": "92"},
        {"action": "reject", "protocol": "tcp", "destination_port": "93"},
        {"action": "allow", "source": "10.1.0.16/28", "destination": "@internal", **ping},
        {"action": "allow", "source": "friends", "protocol": "udp"},
    ]
    apply(northd.north, [acl("web", rules), acl("friends")], Defaults(default, "allow"))
    for packet in ("tcp.dst==80", "tcp.dst==91", "icmp4.type==8"):
        assert arrived(tried(northd, packet)) == [MAIL_END], packet
    for packet in ("tcp.dst==92", "tcp.dst==93"):
        assert MAIL_END not in arrived(tried(northd, packet)), packet
    assert "reset" in tried(northd, "tcp.dst==93")
    for packet in ("tcp.dst==22", "icmp4.type==13"):
        assert (MAIL_END in arrived(tried(northd, packet))) == (default == "allow"), packet
    assert (MAIL_END in arrived(tried(northd, "udp.dst==1"))) == (default == "allow")
    use(northd.north, lambda n: add_port(n, PLAIN, replace(WEB, acls=("friends",)), settled=True))
    assert MAIL_END in arrived(tried(northd, "udp.dst==1"))
    # Also with an address that it made up.
    use(northd.north, lambda n: add_port(n, PLAIN, replace(WEB, acls=("friends",), secured=False), settled=True))
    made_up = f"eth.dst=={MAIL.mac} && ip6.src==fd01::77 && ip6.dst==fd01::73:63ff:fe00:102 && ip.ttl==64 && udp.dst==1"
    assert arrived(sent(northd, WEB, made_up, "--ct", "new", "--ct", "new")) == [MAIL_END]
    # Answers to what the guest began are let through, and its neighbours are known.
    answer = sent(northd, WEB, to_mail("tcp.src==443"), "--ct", "est,rpl", "--ct", "est,rpl")
    assert arrived(answer) == [MAIL_END]
    asked = "eth.dst==ff:ff:ff:ff:ff:ff && arp.op==1 && arp.sha==02:73:63:00:01:01"
    assert MAIL_END in arrived(sent(northd, WEB, f"{asked} && arp.spa==10.1.0.20 && arp.tpa==10.1.0.99"))


def test_egress(northd: Northd) -> None:
    made(northd, PLAIN)
    rules = [{"action": "allow", "destination": "@external", "protocol": "tcp", "destination_port": "443"}]
    use(
        northd.north, lambda n: ensure_acls(n, PLAIN, [acl("out", None, rules)], Defaults("allow", "drop")),
        lambda n: add_port(n, PLAIN, replace(WEB, acls=("out",)), settled=True),
    )  # fmt: skip
    northd.neighbour("sc-aaaaaaaaaaaa-lr-ext", "192.0.2.1", GATEWAY)
    out = OUT + "ip4.src==10.1.0.20 && ip4.dst=="
    new = ("--ct", "new", "--ct", "new", "--ct", "new")
    assert arrived(sent(northd, WEB, out + "203.0.113.1 && tcp.dst==443", *new)) == [WORLD]
    assert arrived(sent(northd, WEB, out + "203.0.113.1 && tcp.dst==80", *new)) == []
    assert arrived(sent(northd, WEB, to_mail("tcp.dst==443"), *new)) == []
    # What nobody can be without: names, addresses, and whether the router is there.
    assert arrived(sent(northd, WEB, out + "192.0.2.53 && udp.dst==53", *new)) != []
    asked = "eth.dst==ff:ff:ff:ff:ff:ff && ip4.src==0.0.0.0 && ip4.dst==255.255.255.255 && udp.src==68 && udp.dst==67"
    assert arrived(sent(northd, WEB, asked, *new)) == [iface_id(RED.uuid, WEB.id)]
    assert "icmp4.type = 0" in sent(northd, WEB, out + "10.1.0.1 && icmp4.type==8", *new)
    assert arrived(sent(northd, WEB, out + "203.0.113.1 && icmp4.type==8", *new)) == []
