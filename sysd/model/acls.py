# SPDX-License-Identifier: Apache-2.0
"""ACLs: rules about what goes between the guests of a network and the world, as LXD has them.

What a packet meets first is not what was written first: rules that drop come before those that reject, and these before
those that allow, of all ACLs of a network; what no rule is about is for the network's own default.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from sysd.model.addresses import Address, Subnet
from sysd.model.errors import ExistsError, InvalidError, NotFoundError, UnsupportedError
from sysd.model.forwards import ranges
from sysd.model.names import check_network_name
from sysd.model.peers import check_name as check_peer_name
from sysd.model.schema import Key, Schema
from sysd.model.values import anything, check_description

INGRESS, EGRESS = "ingress", "egress"
"""Towards the guests of a network, and away from them."""
DIRECTIONS = (INGRESS, EGRESS)
ACTIONS = ("drop", "reject", "allow")
"""In the order in which they are looked at."""
ENABLED, DISABLED, LOGGED = STATES = ("enabled", "disabled", "logged")
PORTS, ICMP = ("tcp", "udp"), {"icmp4": 4, "icmp6": 6}
INTERNAL, EXTERNAL = ("@internal", "#internal"), ("@external", "#external")
"""In a network's subnets, and not in them; the latter of each is LXD's older word for it."""
NAMING = {INGRESS: "source", EGRESS: "destination"}
"""Which side of a rule may name who it is, and not only by addresses: the other one's. As in LXD."""
MAX_ACLS = 500
MAX_RULES = 1000
MAX_NAMES = 50
"""In one key of a network."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,3}", re.ASCII)

_USER = "Free for users; may span lines. Everybody on the host can read it."
SCHEMA = Schema(
    (Key("user.*", anything, "", _USER, live=True, multiline=True),),
    "ACL",
    "an ACL is configured by user.* alone; what it allows is for 'syscont network acl rule add'",
)

Subject = Subnet | tuple[Address, Address]
"""A network, a single address being one, too; or a first and a last address."""


@dataclass(frozen=True, slots=True)
class Rule:
    """As texts, empty where it does not matter: source and destination are addresses, networks, ranges or names (see
    is_name) with commas between, ports are as in forwards."""

    action: str
    state: str = ENABLED
    description: str = ""
    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: str = ""
    destination_port: str = ""
    icmp_type: str = ""
    icmp_code: str = ""

    @property
    def content(self) -> dict[str, str]:
        """What of it is said."""
        return {each.name: text for each in fields(self) if (text := getattr(self, each.name))}

    @property
    def versions(self) -> list[int]:
        """Of IP, that it can be about."""
        found = {4, 6}
        for text in (self.source, self.destination):
            if text:
                found &= {version for word in words(text) for version in _versions(word)}
        if self.protocol in ICMP:
            found &= {ICMP[self.protocol]}
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Acl:
    """What the store remembers. Rules are remembered by what is said in them."""

    name: str
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    ingress: list[dict[str, str]] = field(default_factory=list)
    egress: list[dict[str, str]] = field(default_factory=list)

    def rules(self, direction: str) -> list[Rule]:
        return [Rule(**each) for each in (self.ingress if direction == INGRESS else self.egress)]

    @property
    def named(self) -> list[str]:
        """What its rules name, each once: ACLs, peers, inside and outside."""
        rules = (rule for direction in DIRECTIONS for rule in self.rules(direction))
        texts = (text for rule in rules for text in (rule.source, rule.destination))
        return list(dict.fromkeys(word for text in texts for word in words(text) if is_name(word)))

    @property
    def named_acls(self) -> list[str]:
        """Of these the ACLs; it can be one of them itself."""
        return [word for word in self.named if not word.startswith(("@", "#"))]


def check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        hint = "1 to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidError(f"not the name of an ACL: {text[:80]!r}", hint)
    return text


def names(text: str) -> list[str]:
    """Names of ACLs, with commas between."""
    found = [check_name(word.strip()) for word in text.split(",") if word.strip()]
    if len(found) > MAX_NAMES:
        raise InvalidError("too many ACLs", f"at most {MAX_NAMES}")
    return list(dict.fromkeys(found))


def check_direction(text: str) -> str:
    if text not in DIRECTIONS:
        raise InvalidError(f"not a direction: {text[:80]!r}", "ingress or egress, as the guests see it")
    return text


def words(text: str) -> list[str]:
    """Of a source or destination."""
    return [word.strip() for word in text.split(",")]


def is_name(word: str) -> bool:
    """Whether a word of a source or destination is no address, but says who it is: the name of an ACL, which has some
    letter then, for the guests that have it; ``@internal``, ``@external``, or a peer."""
    return word.startswith(("@", "#")) or (bool(_NAME.fullmatch(word)) and any(each.isalpha() for each in word))


def peer_of(word: str) -> tuple[str, str] | None:
    """The network, and what it calls its peer, of a word such as ``@blue/to-red``; None for other words."""
    network, slash, peer = word.removeprefix("@").partition("/")
    return (network, peer) if word.startswith("@") and slash else None


def peer_word(network: str, peer: str) -> str:
    return f"@{network}/{peer}"


def subjects(text: str) -> list[Subject]:
    """Raises InvalidError, or UnsupportedError for names."""
    return [_subject(word) for word in words(text)]


def renamed(acl: Acl, name: str) -> Acl:
    """Under another name, also where its own rules name it."""

    def text(value: str) -> str:
        return ",".join(name if is_name(word) and word == acl.name else word for word in words(value))

    def rules(found: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{key: text(each[key]) if key in NAMING.values() else each[key] for key in each} for each in found]

    return replace(acl, name=name, ingress=rules(acl.ingress), egress=rules(acl.egress))


def version_of(subject: Subject) -> int:
    return subject[0].version if isinstance(subject, tuple) else subject.version


def _versions(word: str) -> tuple[int, ...]:
    return (4, 6) if is_name(word) else (version_of(_subject(word)),)


def _subject(word: str) -> Subject:
    if is_name(word):
        raise UnsupportedError(f"{word[:80]!r} is no address", "names of ACLs, @internal and @external are for OVN")
    first, dash, last = (part.strip() for part in word.partition("-"))
    try:
        if "%" in word:
            raise ValueError  # a scope is a link's, and what link it is about an ACL does not know
        if not dash:
            return ipaddress.ip_network(word)
        one, other = ipaddress.ip_address(first), ipaddress.ip_address(last)
    except ValueError:
        hint = "an address, a network such as 10.1.0.0/16, or two addresses with - between"
        raise InvalidError(f"not addresses: {word[:80]!r}", hint) from None
    if isinstance(one, ipaddress.IPv4Address) != isinstance(other, ipaddress.IPv4Address) or int(one) > int(other):
        raise InvalidError(f"not a range of addresses: {word[:80]!r}")
    return one, other


def _check_words(text: str) -> None:
    for word in words(text):
        if not is_name(word):
            _subject(word)
        elif peer := peer_of(word):
            check_network_name(peer[0])
            check_peer_name(peer[1])
        elif word.startswith(("@", "#")) and word not in (*INTERNAL, *EXTERNAL):
            raise InvalidError(f"not whom a rule can name: {word[:80]!r}", "@internal, @external or @NETWORK/PEER")


def check_rule(direction: str, said: Mapping[str, str]) -> dict[str, str]:
    """What is said in a rule, checked, in its usual form. Raises InvalidError or UnsupportedError. What it names need
    not be there."""
    known = [each.name for each in fields(Rule)]
    for key in said:
        if key not in known:
            raise InvalidError(f"a rule has no {key[:80]!r}", f"one of {', '.join(known)}")
    if "action" not in said:
        raise InvalidError("action is missing", f"one of {', '.join(ACTIONS)}")
    rule = Rule(**{key: text.strip() for key, text in said.items() if text.strip()} | {"action": said["action"]})
    for key, text, choices in (("action", rule.action, ACTIONS), ("state", rule.state, STATES)):
        _choose(key, text, choices)
    check_description(rule.description)
    for key in ("source", "destination"):
        if text := getattr(rule, key):
            _named(key, _check_words, text)
            if key != NAMING[direction] and (name := next(filter(is_name, words(text)), "")):
                hint = f"who is at the other end is named by {NAMING[direction]} in {direction} rules"
                raise InvalidError(f"{key}: {name[:80]!r} is no address", hint)
    _check_protocol(rule)
    if not rule.versions:
        raise InvalidError("source, destination and protocol are of different versions of IP")
    return rule.content


def _choose(key: str, text: str, choices: tuple[str, ...]) -> None:
    if text not in choices:
        raise InvalidError(f"{key}: not acceptable: {text[:80]!r}", f"one of {', '.join(choices)}")


def _check_protocol(rule: Rule) -> None:
    if rule.protocol:
        _choose("protocol", rule.protocol, (*PORTS, *ICMP))
    for key in ("source_port", "destination_port"):
        if text := getattr(rule, key):
            if rule.protocol not in PORTS:
                raise InvalidError(f"{key}: only tcp and udp have ports", "say which by protocol")
            _named(key, ranges, text)
    for key in ("icmp_type", "icmp_code"):
        if text := getattr(rule, key):
            if rule.protocol not in ICMP:
                raise InvalidError(f"{key}: only icmp4 and icmp6 have it", "say which by protocol")
            if not _NUMBER.fullmatch(text) or int(text) > 255:
                raise InvalidError(f"{key}: not a number from 0 to 255: {text[:80]!r}")
    if rule.icmp_code and not rule.icmp_type:
        raise InvalidError("icmp_code: a code is one of a type", "say icmp_type, too")


def _named(key: str, check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except (InvalidError, UnsupportedError) as error:
        raise type(error)(f"{key}: {error.message}", error.hint) from None


def check_rules(direction: str, said: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """All rules of a direction, checked. Raises InvalidError naming the first that is wrong."""
    if len(said) > MAX_RULES:
        raise InvalidError(f"{direction}: more than {MAX_RULES} rules")
    found: list[dict[str, str]] = []
    for number, each in enumerate(said):
        try:
            rule = check_rule(direction, each)
        except (InvalidError, UnsupportedError) as error:
            raise type(error)(f"{direction} rule {number}: {error.message}", error.hint) from None
        if rule in found:
            raise ExistsError(f"{direction} rule {number}: the same as rule {found.index(rule)}")
        found.append(rule)
    return found


def with_rule(acl: Acl, direction: str, said: Mapping[str, str]) -> list[dict[str, str]]:
    """Rules of a direction and one more. Raises ExistsError, InvalidError or UnsupportedError."""
    there = list(_side(acl, direction))
    rule = check_rule(direction, said)
    if rule in there:
        raise ExistsError(f"ACL {acl.name} has this {direction} rule already")
    if len(there) >= MAX_RULES:
        raise InvalidError(f"ACL {acl.name}: more than {MAX_RULES} {direction} rules")
    return [*there, rule]


def without_rule(acl: Acl, direction: str, said: Mapping[str, str], *, all_of_them: bool) -> list[dict[str, str]]:
    """Rules of a direction but the one of which so much is said; all_of_them: if it is said of several, but these."""
    there = _side(acl, direction)
    gone = [rule for rule in there if all(rule.get(key) == text for key, text in said.items())]
    if not gone:
        raise NotFoundError(f"ACL {acl.name} has no such {direction} rule", f"'syscont network acl show {acl.name}'")
    if len(gone) > 1 and not all_of_them:
        raise InvalidError(f"{len(gone)} {direction} rules of ACL {acl.name} are such", "say more of it, or --force")
    return [rule for rule in there if rule not in gone]


def _side(acl: Acl, direction: str) -> list[dict[str, str]]:
    return acl.ingress if check_direction(direction) == INGRESS else acl.egress


def in_order(acls: list[Acl], direction: str) -> Iterator[tuple[str, Rule]]:
    """The rules of several ACLs that are in force, with the ACL's name, in the order in which they are looked at."""
    everything = [(acl.name, rule) for acl in acls for rule in acl.rules(direction) if rule.state != DISABLED]
    return iter(sorted(everything, key=lambda one: ACTIONS.index(one[1].action)))
