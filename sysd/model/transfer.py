# SPDX-License-Identifier: Apache-2.0
"""Two hosts that meet for one purpose, and what they say to each other before an instance goes from one to the other.

What the other host says is as hostile as a backup: it is read here, and each name in it checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from sysd.model import names
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Kind

VERSION = 2
"""Of what is said. A host that does not know the other's version says so."""
MOST_SNAPSHOTS = 1000
MOST_TEXT = 256
_LAST = 1 << 53
"""Of numbers: JSON's are exact up to here."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a host waits for another: HOST:PORT each, and its certificate (PEM). Whoever has the other's certificate
    and shows the secret there until it expires (seconds since the epoch) is whom it waits for."""

    addresses: list[str]
    certificate: str
    secret: str
    expires: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that there is: created and expires as in Snapshot."""

    name: str
    created: int
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the source has: name is the instance's own. move: what the source's giving it up is known by, empty for a
    copy; the target goes on with its uuid. profiles: the names of those that it has. live: of a virtual
    machine that runs, what it is made of, which sysd.runtime.vm.told reads; else empty. runs: a container does, and
    comes in two parts."""

    kind: Kind
    name: str
    uuid: str
    created: int
    move: str = ""
    profiles: list[str] = field(default_factory=list)
    snapshots: list[Taken] = field(default_factory=list)
    live: Mapping[str, Any] = field(default_factory=dict)
    runs: bool = False

    def said(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}


def read_introduction(said: Mapping[str, Any]) -> Introduction:
    """Raises InvalidError, or UnsupportedError for another version's."""
    if said.get("version") != VERSION:
        hint = "bring both hosts to the same version of syscont"
        raise UnsupportedError("the other host's syscont speaks of instances in another way", hint)
    try:
        return _introduction(said)
    except (KeyError, TypeError, ValueError):
        raise InvalidError("the other host does not say what it sends in the form that it should have") from None


def _introduction(said: Mapping[str, Any]) -> Introduction:
    snapshots = [Taken(_text(one, "name"), _number(one, "created"), _number(one, "expires"))
                 for one in _list(said, "snapshots", MOST_SNAPSHOTS)]  # fmt: skip
    for one in snapshots:
        names.check_snapshot_name(one.name)
    if len({one.name for one in snapshots}) < len(snapshots):
        raise ValueError("a name comes twice")
    profiles = _list(said, "profiles", MOST_SNAPSHOTS)
    if not all(isinstance(one, str) and len(one) <= MOST_TEXT for one in profiles):
        raise TypeError("profiles")
    move = _text(said, "move")
    if move and not names.is_fingerprint(move):
        raise ValueError("move")
    return Introduction(
        Kind(_text(said, "kind")),
        names.check_instance_name(_text(said, "name")),
        str(UUID(_text(said, "uuid"))),
        _number(said, "created"),
        move,
        profiles,
        snapshots,
        _object(said, "live"),
        _flag(said, "runs"),
    )


def _list(said: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = said[name]
    if not isinstance(value, list) or len(value) > most:
        raise TypeError(name)
    return value


def _object(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = said[name]
    if not isinstance(value, dict):
        raise TypeError(name)
    return value


def _flag(said: Mapping[str, Any], name: str) -> bool:
    value = said[name]
    if not isinstance(value, bool):
        raise TypeError(name)
    return value


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said[name]
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise TypeError(name)
    return value


def _number(said: Mapping[str, Any], name: str) -> int:
    value = said[name]
    if type(value) is not int or not 0 <= value < _LAST:
        raise TypeError(name)
    return value


@dataclass(frozen=True, slots=True)
class Move:
    """What each of the two hosts remembers of an instance that goes from one to the other, until it knows that the
    other one knows what has become of it. instance: its UUID; peer: the other host's certificate (PEM), and addresses
    where that waits, none if it comes to us. live: it runs meanwhile; runs: it is stopped at the end of it, and is to
    run again, wherever it is then. decided: of the source, that it has given it up; of the target, that it has taken
    it over."""

    id: str
    source: bool
    instance: str
    name: str
    peer: str
    addresses: list[str] = field(default_factory=list)
    decided: bool = False
    live: bool = False
    runs: bool = False
