# SPDX-License-Identifier: Apache-2.0
"""ACLs in OVN: rules of port groups, whose members are the guests' ports that an ACL holds for. As in LXD.

What drops comes before what rejects, this before what allows, this before what a network can't be without (neighbours,
addresses by DHCP, names, errors of ICMP), and last are the defaults. Egress is looked at where a packet enters, so that
OVN knows the connection when the answer comes; other guests are known by their addresses, and where a packet arrives
also by the port that it is from, as they may make up more addresses of IPv6.
Source: ovn-nb(5), ACL.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sysd.model import acls
from sysd.model.acls import DIRECTIONS, EGRESS, EXTERNAL, ICMP, INGRESS, INTERNAL, LOGGED, PORTS, Acl, Rule
from sysd.model.addresses import Subnet
from sysd.model.errors import InvalidError
from sysd.model.forwards import ranges
from sysd.network.ovn.northbound import Northbound, digest, name, word
from sysd.network.ovn.rows import Columns, Owner, Ref, Row, settle
from sysd.network.ovn.values import Defaults, OvnNetwork

PART = "acls"
RESTRICTED = Ref("Port_Group", "restricted", PART)
"""Of all ports that any ACL holds for."""
PRIORITIES = {"drop": 500, "reject": 400, "allow": 300}
_NEEDED = 200
DEFAULT_FIRST, OWN_FIRST = 100, 101
"""Of the defaults: the network's, and a port's own."""
_ACTIONS = {"drop": "drop", "reject": "reject", "allow": "allow-related"}
_SIDES = {INGRESS: ("to-lport", "outport"), EGRESS: ("from-lport", "inport")}
_NEIGHBOURS = "arp || nd || nd_rs || nd_ra || mldv1 || mldv2"
_ERRORS = "icmp4.type == {3, 11, 12} || icmp6.type == {1, 2, 3, 4}"
_NOWHERE_ELSE = {4: ("169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"), 6: ("fe80::/10", "ff00::/8")}
"""What is on the network itself, whoever it is about: DHCP, and neighbours."""
_METER = Ref("Meter", "log", PART)
_LOGS_PER_SECOND, _BURST = 10, 20


async def ensure_acls(
    north: Northbound, network: OvnNetwork, found: Sequence[Acl], defaults: Defaults,
    peers: Mapping[str, Sequence[Subnet]] | None = None, *, settled: bool = False,
) -> bool:  # fmt: skip
    """Let a network have these ACLs, for ports to name; whether anything had to change. found: all that hold for any of
    its ports, and those that rules name. peers: what subjects such as ``@NETWORK/PEER`` are.

    Ports keep to them by add_port(), and have to be taken out before one of them goes.
    """
    wanted = rules(network, found, defaults, peers or {}) if found else []
    return await north.change(lambda view: settle(view, Owner(network.uuid, PART), wanted), settled=settled)


def acl_group(acl: str) -> Ref:
    return Ref("Port_Group", f"group/{acl}", PART)


def rules(
    network: OvnNetwork, found: Sequence[Acl], defaults: Defaults, peers: Mapping[str, Sequence[Subnet]]
) -> list[Row]:
    subjects = Subjects(network, {acl.name for acl in found}, peers)
    restricted = word(network.uuid, "acl")
    made = [Row("Port_Group", RESTRICTED.key, {"name": restricted}), *_meter(network)]
    for acl in found:
        group: Columns = {"name": subjects.group(acl.name)}
        made.append(Row("Port_Group", acl_group(acl.name).key, group, also={"syscont-acl": acl.name}))
        for direction in DIRECTIONS:
            for rule in _in_force(acl, direction):
                made += _rule(network, acl, direction, rule, subjects)
    made += _needed(network, restricted)
    return [*made, *default_rules(network, RESTRICTED, restricted, defaults, DEFAULT_FIRST)]


def default_rules(network: OvnNetwork, group: Ref, own: str, defaults: Defaults, priority: int) -> Iterator[Row]:
    for direction in DIRECTIONS:
        action, logged = defaults.of(direction)
        side, port = _SIDES[direction]
        columns: Columns = {
            "priority": priority, "direction": side, "match": f"{port} == @{own}", "action": _ACTIONS[action],
            **_logging(network, "default", direction, logged),
        }  # fmt: skip
        yield Row("ACL", f"default/{direction}", columns, (group,))


def _in_force(acl: Acl, direction: str) -> list[Rule]:
    return [rule for _, rule in acls.in_order([acl], direction)]


def _rule(network: OvnNetwork, acl: Acl, direction: str, rule: Rule, subjects: Subjects) -> Iterator[Row]:
    """None of a rule that is about nobody now."""
    side, port = _SIDES[direction]
    addresses = _addresses(rule, subjects)
    if addresses is None:
        return
    conditions = [f"{port} == @{subjects.group(acl.name)}", *addresses, *_protocol(rule)]
    columns: Columns = {
        "priority": PRIORITIES[rule.action], "direction": side, "match": " && ".join(conditions),
        "action": _ACTIONS[rule.action], **_logging(network, acl.name, direction, rule.state == LOGGED),
    }  # fmt: skip
    # By its content: another rule before it leaves it as it is.
    key = hashlib.sha256(json.dumps(rule.content, sort_keys=True).encode()).hexdigest()[:24]
    yield Row("ACL", f"rule/{acl.name}/{direction}/{key}", columns, (acl_group(acl.name),))


def _logging(network: OvnNetwork, acl: str, direction: str, logged: bool) -> Columns:
    if not logged:
        return {}
    return {
        "log": True, "name": f"{network.name}-{acl}-{direction}"[-63:], "severity": "info",
        "meter": name(network.uuid, "log"),
    }  # fmt: skip


def _meter(network: OvnNetwork) -> Iterator[Row]:
    """Guests may make hosts log no more than that, each rule for itself."""
    band = Ref("Meter_Band", "log", PART)
    yield Row(band.table, band.key, {"action": "drop", "rate": _LOGS_PER_SECOND, "burst_size": _BURST})
    yield Row(
        _METER.table, _METER.key,
        {"name": name(network.uuid, "log"), "unit": "pktps", "bands": (band,), "fair": True},
    )  # fmt: skip


def _needed(network: OvnNetwork, group: str) -> Iterator[Row]:
    asked = ["(ip4 && udp.dst == 67)", "(ip6 && udp.dst == 547)"]
    for version in (4, 6):
        if servers := network.servers(version):
            there = f"ip{version}.dst == {{{', '.join(map(str, servers))}}}"
            asked.append(f"({there} && (udp.dst == 53 || tcp.dst == 53))")
        if own := network.address(version):
            echo = "icmp4.type == 8" if version == 4 else "icmp6.type == 128"
            asked.append(f"(ip{version}.dst == {own.ip} && {echo})")
    answered = ["(ip4 && udp.src == 67)", "(ip6 && udp.src == 547)"]
    for direction, more in ((EGRESS, asked), (INGRESS, answered)):
        side, port = _SIDES[direction]
        match = f"{port} == @{group} && ({' || '.join([_NEIGHBOURS, _ERRORS, *more])})"
        columns: Columns = {"priority": _NEEDED, "direction": side, "match": match, "action": "allow-related"}
        yield Row("ACL", f"needed/{direction}", columns, (RESTRICTED,))


def _addresses(rule: Rule, subjects: Subjects) -> list[str] | None:
    """Of both sides; once for each version of IP, of which one has to hold. None when who is named has no addresses, or
    only of another version than the other side."""
    if not rule.source and not rule.destination:
        return []
    alternatives = []
    for version in (4, 6):
        sides = [
            subjects.match(text, version, f"ip{version}.{side}")
            for side, text in (("src", rule.source), ("dst", rule.destination)) if text
        ]  # fmt: skip
        if all(sides):
            alternatives.append(" && ".join(sides))
    if not alternatives:
        if rule.versions:
            return None
        raise InvalidError("source and destination of a rule are of different versions of IP")
    return [f"({' || '.join(f'({each})' for each in alternatives)})" if len(alternatives) > 1 else alternatives[0]]


def _protocol(rule: Rule) -> list[str]:
    if rule.protocol in ICMP:
        protocol = f"icmp{ICMP[rule.protocol]}"
        sides = ((f"{protocol}.type", rule.icmp_type), (f"{protocol}.code", rule.icmp_code))
        return [protocol, *(f"{key} == {int(text)}" for key, text in sides if text)]
    if rule.protocol in PORTS:
        ends = ((f"{rule.protocol}.src", rule.source_port), (f"{rule.protocol}.dst", rule.destination_port))
        return [rule.protocol, *(_numbers(key, text) for key, text in ends if text)]
    return []


def _numbers(key: str, text: str) -> str:
    found = [
        f"{key} == {first}" if first == last else f"({key} >= {first} && {key} <= {last})"
        for first, last in ranges(text)
    ]  # fmt: skip
    return f"({' || '.join(found)})" if len(found) > 1 else found[0]


class Subjects:
    """What sources and destinations of rules are in a network."""

    def __init__(self, network: OvnNetwork, known: Iterable[str], peers: Mapping[str, Sequence[Subnet]]) -> None:
        self._network = network
        self._known = set(known)
        self._peers = peers

    def group(self, acl: str) -> str:
        return word(self._network.uuid, "acl", digest(acl))

    def match(self, text: str, version: int, key: str) -> str:
        """An expression; empty when nothing of that version is meant."""
        equal, beyond, senders = list[str](), False, list[str]()
        for each in acls.words(text):
            if each in EXTERNAL:
                beyond = True
                continue
            equal += self._terms(each, version)
            if key.endswith(".src") and acls.is_name(each) and each in self._known:
                senders.append(f"(ip{version} && inport == @{self.group(each)})")
        found = [*([f"{key} == {{{', '.join(equal)}}}"] if equal else []), *senders]
        if beyond:
            found.append(f"{key} != {{{', '.join([*self._inside(version), *_NOWHERE_ELSE[version]])}}}")
        return f"({' || '.join(found)})" if len(found) > 1 else "".join(found)

    def _inside(self, version: int) -> list[str]:
        return [str(subnet) for subnet in self._network.subnets if subnet.version == version]

    def _terms(self, each: str, version: int) -> list[str]:
        if each in INTERNAL:
            return self._inside(version)
        if acls.peer_of(each):
            if each not in self._peers:
                raise InvalidError(f"network {self._network.name} has no {each[:80]!r} for rules of ACLs")
            return [str(subnet) for subnet in self._peers[each] if subnet.version == version]
        if acls.is_name(each):
            if each not in self._known:
                raise InvalidError(f"network {self._network.name} knows no ACL {each[:80]!r}", "make it first")
            return [f"${self.group(each)}_ip{version}"]
        found: list[str] = []
        for subject in acls.subjects(each):
            if acls.version_of(subject) == version:
                whole = ipaddress.summarize_address_range(*subject) if isinstance(subject, tuple) else [subject]
                found += [str(part) for part in whole]
        return found
