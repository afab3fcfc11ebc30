# SPDX-License-Identifier: Apache-2.0
"""ACLs: what rules say, in which order, and what of them the kernel is told (packets: vm-tests/test_acls.py)."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from sysd.model import acls
from sysd.model.acls import Acl, Rule, check_rule, check_rules
from sysd.model.errors import ExistsError, InvalidError, NotFoundError, UnsupportedError
from sysd.model.network import Network
from sysd.network import acl_rules, firewall

NETWORK = Network("net0", config={"ipv4.address": "10.9.8.1/24", "ipv6.address": "fd42:1::1/64"})


def acl(
    ingress: list[dict[str, str]] | None = None, egress: list[dict[str, str]] | None = None, name: str = "a"
) -> Acl:
    return Acl(name, ingress=check_rules("ingress", ingress or []), egress=check_rules("egress", egress or []))


def test_a_rule_is_remembered_by_what_is_said() -> None:
    assert check_rule("ingress", {"action": "allow", "source": " 10.0.0.1 ", "protocol": "", "description": "x"}) == {
        "action": "allow", "state": "enabled", "description": "x", "source": "10.0.0.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "versions"),
    [
        ({}, [4, 6]),
        ({"source": "10.0.0.0/8"}, [4]),
        ({"source": "10.0.0.0/8,fd00::/8"}, [4, 6]),
        ({"source": "10.0.0.0/8,fd00::/8", "destination": "fd00::1-fd00::9"}, [6]),
        ({"protocol": "icmp6"}, [6]),
    ],
)
def test_versions(said: dict[str, str], versions: list[int]) -> None:
    assert Rule("allow", **said).versions == versions


BAD = [
    ({}, InvalidError, "action is missing"),
    ({"action": "allow", "state": "on"}, InvalidError, "state: not acceptable"),
    ({"action": "allow", "source": "10.0.0.1,"}, InvalidError, "source: not addresses"),
    ({"action": "allow", "source": "fe80::1%eth0-fe80::2"}, InvalidError, "source"),
    ({"action": "allow", "destination": "@internal"}, InvalidError, "destination: '@internal' is no address"),
    ({"action": "allow", "destination": "10.0.0.1,web"}, InvalidError, "destination: 'web' is no address"),
    ({"action": "allow", "source": "@nonsense"}, InvalidError, "source: not whom a rule can name"),
    ({"action": "allow", "source": "#web"}, InvalidError, "source: not whom a rule can name"),
    ({"action": "allow", "source": "@blue/-x"}, InvalidError, "source: not the name of a peer"),
    ({"action": "allow", "source": "@/x"}, InvalidError, "source: "),
    ({"action": "allow", "source": "@a/b/c"}, InvalidError, "source: not the name of a peer"),
    ({"action": "allow", "source": 'web" || 1'}, InvalidError, "source: not addresses"),
    ({"action": "allow", "source": "10.0.0.300"}, InvalidError, "source: not addresses"),
    ({"action": "allow", "protocol": "sctp"}, InvalidError, "protocol: not acceptable"),
    ({"action": "allow", "protocol": "icmp6", "source_port": "1"}, InvalidError, "source_port: only tcp"),
    ({"action": "allow", "protocol": "tcp", "source_port": "1,1"}, InvalidError, "source_port: ports are named twice"),
    ({"action": "allow", "protocol": "icmp4", "icmp_type": "\u0663"}, InvalidError, "icmp_type"),
    ({"action": "allow", "description": "a\nb"}, InvalidError, "description"),
]


@pytest.mark.parametrize("word", ["web", "1web", "a.b-c", "@internal", "#external", "@blue/to-red"])
def test_names(word: str) -> None:
    assert check_rule("ingress", {"action": "allow", "source": f"10.0.0.1, {word}"})["source"] == f"10.0.0.1, {word}"
    assert Rule("allow", source=word, destination="fd00::1").versions == [6]
    with pytest.raises(InvalidError, match="is no address"):
        check_rule("ingress", {"action": "allow", "destination": word})
    assert check_rule("egress", {"action": "allow", "destination": word})
    with pytest.raises(UnsupportedError, match="is no address"):
        acls.subjects(word)


def test_what_an_acl_names() -> None:
    one = acl(
        [{"action": "allow", "source": "a,web, @blue/to-red"}, {"action": "drop", "source": "web,fd00::1"}],
        [{"action": "allow", "destination": "@external,mail"}, {"action": "drop", "destination": "10.0.0.1-10.0.0.9"}],
    )
    assert one.named == ["a", "web", "@blue/to-red", "@external", "mail"]
    assert one.named_acls == ["a", "web", "mail"]
    assert [acls.peer_of(word) for word in one.named] == [None, None, ("blue", "to-red"), None, None]
    other = acls.renamed(one, "b")
    assert (other.name, other.named[0], other.named[1:]) == ("b", "b", one.named[1:])
    assert other.egress == one.egress


@pytest.mark.parametrize(("said", "kind", "message"), BAD)
def test_not_a_rule(said: dict[str, str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_rule("ingress", said)


def test_a_list_of_rules_names_the_wrong_one() -> None:
    with pytest.raises(InvalidError, match="egress rule 1: action is missing"):
        check_rules("egress", [{"action": "drop"}, {}])
    with pytest.raises(ExistsError, match="ingress rule 2: the same as rule 0"):
        check_rules("ingress", [{"action": "drop"}, {"action": "allow"}, {"action": "drop", "state": "enabled"}])


def test_adding_and_removing() -> None:
    made = acl(ingress=[{"action": "drop"}])
    more = replace(made, ingress=acls.with_rule(made, "ingress", {"action": "drop", "protocol": "tcp"}))
    assert acls.without_rule(more, "ingress", {"protocol": "tcp"}, all_of_them=False) == made.ingress
    with pytest.raises(InvalidError, match="2 ingress rules of ACL a are such"):
        acls.without_rule(more, "ingress", {"action": "drop"}, all_of_them=False)
    assert acls.without_rule(more, "ingress", {}, all_of_them=True) == []
    with pytest.raises(NotFoundError):
        acls.without_rule(more, "egress", {}, all_of_them=True)
    with pytest.raises(ExistsError):
        acls.with_rule(made, "ingress", {"action": "drop"})
    with pytest.raises(InvalidError):
        acls.with_rule(made, "up", {"action": "drop"})


def test_order() -> None:
    one = acl([{"action": "allow"}, {"action": "reject"}, {"action": "allow", "state": "disabled", "protocol": "tcp"}])
    other = acl([{"action": "drop"}, {"action": "reject"}], name="b")
    found = [(name, rule.action) for name, rule in acls.in_order([one, other], "ingress")]
    assert found == [("b", "drop"), ("a", "reject"), ("b", "reject"), ("a", "allow")]


@pytest.mark.parametrize(
    ("text", "version", "found"),
    [
        ("10.0.0.1", 4, ["10.0.0.1"]),
        ("10.0.0.0/8,10.1.0.0/16,11.0.0.0/8", 4, [{"range": ["10.0.0.0", "11.255.255.255"]}]),
        ("10.0.0.9-10.0.0.12,10.0.0.1,fd00::/64", 4, ["10.0.0.1", {"range": ["10.0.0.9", "10.0.0.12"]}]),
        ("10.0.0.9,fd00::1,fd00::3", 6, ["fd00::1", "fd00::3"]),
    ],
)
def test_addresses_in_sets(text: str, version: int, found: list[Any]) -> None:
    assert acl_rules._set(text, version) == {"set": found}


def test_a_network_without_acls_has_no_rules_of_them() -> None:
    assert acl_rules.rules(NETWORK, []) == {}
    assert acl_rules.rules(NETWORK, [acl()]).keys() == {"input", "output", "forward"}


def test_the_default_comes_last() -> None:
    network = replace(NETWORK, config=NETWORK.config | {"security.acls.default.egress.action": "drop"})
    found = acl_rules.rules(network, [acl(egress=[{"action": "allow"}])])
    assert (found["input"][-2][-1], found["input"][-1][-1]) == ({"accept": None}, {"drop": None})
    assert "reject" in found["output"][-1][-1]


def test_what_is_logged_is_limited() -> None:
    (*_, logged, allowed, _, _) = acl_rules.rules(NETWORK, [acl(egress=[{"action": "allow", "state": "logged"}])])[
        "input"
    ]
    assert [next(iter(each)) for each in logged[-2:]] == ["limit", "log"]
    assert logged[-1] == {"log": {"prefix": "net0 a egress allow: "}}
    assert allowed[-1] == {"accept": None}


def test_nft_takes_all_kinds_of_rules() -> None:
    """Checked by nft itself, which changes nothing then."""
    every = [
        {"action": action, "state": state, **more}
        for action in acls.ACTIONS
        for state in acls.STATES
        for more in (
            {},
            {"source": "10.0.0.0/8,10.1.0.1,fd00::1-fd00::ffff", "destination": "0.0.0.0/0,::/0"},
            {"protocol": "tcp", "source_port": "1-1023", "destination_port": "80,443"},
            {"protocol": "udp", "source": "::/0"},
            {"protocol": "icmp4", "icmp_type": "8", "icmp_code": "0"},
            {"protocol": "icmp6", "icmp_type": "128"},
            {"protocol": "icmp6"},
        )
    ]
    chains = firewall.chains(NETWORK, [acl(every[:21], every[21:]), acl(every[42:], name="x" * 63)])
    commands = firewall.transaction(NETWORK.name, chains)
    check = ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "-j", "-f", "-"]
    done = subprocess.run(check, input=json.dumps(commands), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
