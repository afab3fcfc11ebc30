# SPDX-License-Identifier: Apache-2.0
"""Network zones: what they are configured by, and the records that their owners put into them. Names and values are
LXD's; beyond them, a peer may be a whole network.

dnspython is not for here: what needs it is in sysd.model.rdata.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sysd.model import names
from sysd.model.errors import InvalidError
from sysd.model.schema import Key, Schema
from sysd.model.values import anything, boolean

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NAME = 253
MAX_TTL = (1 << 31) - 1
"""Seconds (RFC 2181, section 8)."""
DEFAULT_TTL = 300
MAX_ENTRIES = 1000
MAX_KEY = 512
APEX = "@"

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_RECORD = re.compile(rf"(\*|{_LABEL})(\.{_LABEL})*", re.ASCII)
_CONTACT = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,63}@(.+)", re.ASCII)
_PEER = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,30}[A-Za-z0-9])?\.(address|key)"


def check_name(text: str) -> str:
    """The name of a zone as it is remembered: in lower case, without the dot at its end. Raises InvalidError."""
    found = text.removesuffix(".").lower()
    if len(found) > MAX_NAME or not _NAME.fullmatch(found):
        hint = "labels of at most 63 letters, digits, '-' and '_' with dots between them, 253 in all"
        raise InvalidError(f"not the name of a zone: {text[:80]!r}", hint)
    return found


def check_record_name(zone: str, text: str) -> str:
    """A name below a zone, ``@`` for the zone itself; ``*`` may be its first label."""
    found = text.lower()
    if found != APEX and (not _RECORD.fullmatch(found) or len(found) + 1 + len(zone) > MAX_NAME):
        raise InvalidError(f"not the name of a record: {text[:80]!r}", f"one below {zone}, or {APEX} for {zone} itself")
    return found


def nameservers(text: str) -> list[str]:
    """Names of servers, with commas between."""
    return [check_name(word.strip()) for word in text.split(",") if word.strip()]


def contact(text: str) -> str:
    """An address of e-mail."""
    found = _CONTACT.fullmatch(text)
    if not found:
        raise InvalidError(f"not an address of e-mail: {text[:80]!r}")
    check_name(found[1])
    return text


def peer_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        hint = "an IP address, or a network such as 10.1.0.0/16"
        raise InvalidError(f"not an address: {text[:80]!r}", hint) from None


def secret(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True) if len(text) <= MAX_KEY else b""
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise InvalidError("not a key in base64", "as tsig-keygen makes it")
    return found


def _peer(member: str, value: str) -> object:
    return peer_network(value) if member.endswith(".address") else secret(value)


KEYS = (
    Key(
        "peers.*",
        anything,
        "",
        "peers.NAME.address and peers.NAME.key: who may ask for the zone. A peer has to have the address (or one of "
        "the network, such as 10.1.0.0/16) and to sign with the key (TSIG, base64; called ZONE_NAME.) where these "
        "are set. Peers with one address are told of each change. Who may manage zones can read the keys, nobody else.",
        live=True,
        member=_PEER,
        check_member=_peer,
    ),
    Key(
        "dns.nameservers",
        nameservers,
        "",
        "Names of the zone's servers, with commas between; the first is the primary. The zone's own name when it is "
        "not set.",
        live=True,
    ),
    Key(
        "dns.contact",
        contact,
        "",
        "Address of e-mail of who answers for the zone; hostmaster@ZONE when it is not set.",
        live=True,
    ),
    Key(
        "network.nat",
        boolean,
        "true",
        "Whether addresses are published that are translated on the way out.",
        live=True,
    ),
    Key("user.*", anything, "", "Free for users; may span lines.", live=True, multiline=True),
)
SCHEMA = Schema(KEYS, "zone", "see 'syscont network zone keys'")


@dataclass(frozen=True, slots=True)
class Peer:
    """network, secret: None where they do not matter."""

    name: str
    network: Network | None
    secret: bytes | None

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """Its own, if it has but one."""
        single = self.network and self.network.prefixlen == self.network.max_prefixlen
        return self.network.network_address if self.network and single else None


@dataclass(frozen=True, slots=True)
class Zone:
    """What the store remembers of one, besides its records. project: whose instances are in it; those of projects that
    have no zone of their own in a network are in the default project's."""

    name: str
    project: str = names.DEFAULT_PROJECT
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)

    @property
    def peers(self) -> list[Peer]:
        found: dict[str, dict[str, str]] = {}
        for key, value in self.config.items():
            if key.startswith("peers."):
                _, name, what = key.split(".")
                found.setdefault(name, {})[what] = value
        return [
            Peer(
                name,
                peer_network(each["address"]) if each.get("address") else None,
                secret(each["key"]) if each.get("key") else None,
            )
            for name, each in sorted(found.items())
        ]

    @property
    def nameservers(self) -> list[str]:
        return nameservers(self.config.get("dns.nameservers", "")) or [self.name]

    @property
    def contact(self) -> str:
        return self.config.get("dns.contact", "") or f"hostmaster@{self.name}"

    @property
    def with_nat(self) -> bool:
        return SCHEMA.boolean(self.config, "network.nat")


@dataclass(frozen=True, slots=True)
class Entry:
    """A record's data, as in a zone file; ttl in seconds."""

    type: str
    value: str
    ttl: int = DEFAULT_TTL


@dataclass(frozen=True, slots=True)
class Record:
    """All that an owner of a zone put under one name of it. entries: as sysd.model.rdata.remembered makes them."""

    zone: str
    name: str
    description: str = ""
    entries: list[dict[str, str]] = field(default_factory=list)

    @property
    def parsed(self) -> list[Entry]:
        return [Entry(each["type"], each["value"], int(each["ttl"])) for each in self.entries]


def public(config: Mapping[str, str]) -> dict[str, str]:
    """Config without keys of peers and what is private."""
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("user.") and not (key.startswith("peers.") and key.endswith(".key"))
    }


def is_within(name: str, zones: str) -> bool:
    """Whether a zone's name is one of those of a list, or below one."""
    allowed = [word.strip().removesuffix(".").lower() for word in zones.split(",") if word.strip()]
    return any(name == each or name.endswith(f".{each}") for each in allowed)
