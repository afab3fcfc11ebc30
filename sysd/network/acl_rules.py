# SPDX-License-Identifier: Apache-2.0
"""ACLs of a bridge as rules: about what goes between its guests and the host, and between them and beyond.

What guests say to each other never comes here; where the kernel shows bridged packets to these chains nonetheless
(br_netfilter), it comes and goes by one bridge, and is let through. What a network can't be without is always let
through: answers, addresses by DHCP, names by the network's own DNS, and errors and neighbours by ICMP. As in LXD.
Sources: nft(8), RFC 4890.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sysd.model import acls
from sysd.model.acls import EGRESS, ICMP, INGRESS, LOGGED, PORTS, Acl, Subject
from sysd.model.forwards import ranges
from sysd.model.network import Network
from sysd.network.expressions import ACCEPT, DROP, PROTOCOL, REJECT, Rule, match, numbers, payload, prefix

_VERDICT = {"allow": ACCEPT, "drop": DROP}
_ICMP = {4: "icmp", 6: "ipv6-icmp"}
# Unreachable, time exceeded, bad parameters; in IPv6 also too big, and what finds routers, neighbours and groups.
_CORE_ICMP = [3, 11, 12]
_CORE_ICMPV6 = {EGRESS: [1, 2, 3, 4, 133, 135, 136, 143], INGRESS: [1, 2, 3, 4, 134, 135, 136, 143]}
# Guests may make the kernel log no more than that.
_LOGS: dict[str, Any] = {"limit": {"rate": 10, "per": "second", "burst": 20}}


def rules(network: Network, found: Sequence[Acl]) -> dict[str, tuple[Rule, ...]]:
    """By hook of the kernel's; of a network without ACLs there are none."""
    if not found:
        return {}
    there, back = _link("iifname", network.name), _link("oifname", network.name)
    beyond, inside = _link("oifname", network.name, "!="), _link("iifname", network.name, "!=")
    egress, ingress = list(_all(network, found, EGRESS)), list(_all(network, found, INGRESS))
    known = [match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT]
    return {
        "input": ([there, *known], *_each([there], [*_needed_by_guests(network), *egress])),
        "output": (
            [back, *known],
            *_each([back], [*_needed_from_host(), *ingress]),
            *(rule for where in _forwarded(network) for rule in ([*where, *known], *_each(where, ingress))),
        ),
        "forward": (
            [there, beyond, *known],
            [back, inside, *known],
            *_each([there, beyond], egress),
            *_each([back, inside], ingress),
        ),
    }


def _forwarded(network: Network) -> Iterator[Rule]:
    """What the host sends to guests by a forward or a proxy that is a rule: on its way out by another link than the
    bridge until its address is another, which is after this. Who answers says that it is for a guest."""
    for version, protocol in PROTOCOL.items():
        if subnet := network.subnet(version):
            answers = {"ct": {"key": f"{protocol} saddr", "dir": "reply"}}
            yield [_link("oifname", network.name, "!="), match({"ct": {"key": "status"}}, "dnat", "in"),
                   match(answers, prefix(subnet))]  # fmt: skip


def _each(where: Rule, found: Sequence[Rule]) -> Iterator[Rule]:
    for rule in found:
        yield [*where, *rule]


def _link(key: str, name: str, op: str = "==") -> dict[str, Any]:
    return match({"meta": {"key": key}}, name, op)


def _needed_by_guests(network: Network) -> Iterator[Rule]:
    for version, protocol in PROTOCOL.items():
        if own := network.address(version):
            for transport in PORTS:
                asked = match(payload(protocol, "daddr"), str(own.ip))
                yield [asked, match(payload(transport, "dport"), 53), ACCEPT]
    yield [match(payload("udp", "dport"), {"set": [67, 547]}), ACCEPT]
    yield from _core_icmp(EGRESS)


def _needed_from_host() -> Iterator[Rule]:
    yield [match(payload("udp", "sport"), {"set": [67, 547]}), ACCEPT]
    yield from _core_icmp(INGRESS)


def _core_icmp(direction: str) -> Iterator[Rule]:
    yield [match(payload("icmp", "type"), {"set": _CORE_ICMP}), ACCEPT]
    yield [match(payload("icmpv6", "type"), {"set": _CORE_ICMPV6[direction]}), ACCEPT]


def _all(network: Network, found: Sequence[Acl], direction: str) -> Iterator[Rule]:
    """What the ACLs say of a direction, and what holds for all else."""
    for name, rule in acls.in_order(list(found), direction):
        for conditions in _conditions(rule):
            if rule.state == LOGGED:
                yield [*conditions, _LOGS, _log(network, name, direction, rule.action)]
            for verdict in _verdicts(rule.action, rule.protocol):
                yield [*conditions, *verdict]
    default = f"security.acls.default.{direction}"
    action = network.text(f"{default}.action")
    if network.flag(f"{default}.logged"):
        yield [_LOGS, _log(network, "default", direction, action)]
    yield from _verdicts(action)


def _verdicts(action: str, protocol: str = "") -> Iterator[Rule]:
    """Who connects by TCP is told by TCP: of ICMP's errors the kernel sends but one a second to anyone (icmp(7))."""
    if action != "reject":
        yield [_VERDICT[action]]
        return
    if protocol in ("", "tcp"):
        yield [match({"meta": {"key": "l4proto"}}, "tcp"), {"reject": {"type": "tcp reset"}}]
    if protocol != "tcp":
        yield [REJECT]


def _log(network: Network, name: str, direction: str, action: str) -> dict[str, Any]:
    return {"log": {"prefix": f"{network.name} {name} {direction} {action}: "}}


def _conditions(rule: acls.Rule) -> Iterator[Rule]:
    """Of a rule; once for each version of IP where it says addresses."""
    if not rule.source and not rule.destination:
        yield _protocol(rule)
        return
    for version in rule.versions:
        sides = (("saddr", rule.source), ("daddr", rule.destination))
        there = [match(payload(PROTOCOL[version], side), _set(text, version)) for side, text in sides if text]
        yield [*there, *_protocol(rule)]


def _protocol(rule: acls.Rule) -> Rule:
    if rule.protocol in ICMP:
        version = ICMP[rule.protocol]
        return [
            match({"meta": {"key": "nfproto"}}, f"ipv{version}"),
            match({"meta": {"key": "l4proto"}}, _ICMP[version]),
            *(
                match(payload("icmp" if version == 4 else "icmpv6", key), int(text))
                for key, text in (("type", rule.icmp_type), ("code", rule.icmp_code))
                if text
            ),
        ]
    if not rule.protocol:
        return []
    sides = (("sport", rule.source_port), ("dport", rule.destination_port))
    ports = [match(payload(rule.protocol, side), numbers(ranges(text))) for side, text in sides if text]
    return ports or [match({"meta": {"key": "l4proto"}}, rule.protocol)]


def _set(text: str, version: int) -> dict[str, Any]:
    """The addresses of a version. Those that overlap become one: the kernel takes no set in which any do."""
    merged: list[tuple[Any, Any]] = []
    for first, last in sorted(_ends(each) for each in acls.subjects(text) if acls.version_of(each) == version):
        if merged and int(first) <= int(merged[-1][1]) + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return {"set": [{"range": [str(a), str(b)]} if a < b else str(a) for a, b in merged]}


def _ends(subject: Subject) -> tuple[Any, Any]:
    return subject if isinstance(subject, tuple) else (subject[0], subject[-1])
