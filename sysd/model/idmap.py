# SPDX-License-Identifier: Apache-2.0
"""User and group ids of guests and what they are on the host (user_namespaces(7)).

The grammar of raw.idmap is LXD's: a line is ``both|uid|gid HOST GUEST``, each an id or a range ``1000-1009``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sysd.model.errors import InvalidError
from sysd.model.values import boolean, integer

DEFAULT_COUNT = 65536
"""What a guest's ids are at least: systemd counts on 65534 being one."""

MAX_COUNT = 1 << 28
MAX_ID = (1 << 32) - 2
"""The last id there is; one more means "none" to the kernel."""

MAX_RAW_LINES = 50
"""The kernel takes a map of less than a page at once, and each line may split a range of it."""

_RAW_LINE = re.compile(r"(both|uid|gid) ([0-9]{1,10})(?:-([0-9]{1,10}))? ([0-9]{1,10})(?:-([0-9]{1,10}))?", re.ASCII)

check_size = integer(DEFAULT_COUNT, MAX_COUNT)
check_base = integer(DEFAULT_COUNT, MAX_ID - DEFAULT_COUNT)


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """count ids from inside on are those from outside on, on the host."""

    inside: int
    outside: int
    count: int

    @property
    def hosts(self) -> range:
        return range(self.outside, self.outside + self.count)

    @property
    def guests(self) -> range:
        return range(self.inside, self.inside + self.count)


@dataclass(frozen=True, slots=True)
class IdMap:
    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    @property
    def uid_text(self) -> str:
        """As /proc/PID/uid_map takes it."""
        return _text(self.uids)

    @property
    def gid_text(self) -> str:
        return _text(self.gids)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's ids of a guest's; InvalidError when it has no such ids."""
        return _outside(self.uids, uid, "user"), _outside(self.gids, gid, "group")

    def has_user(self, uid: int) -> bool:
        return any(uid in one.guests for one in self.uids)

    def has_group(self, gid: int) -> bool:
        return any(gid in one.guests for one in self.gids)


IDENTITY = IdMap((Extent(0, 0, MAX_ID + 1),), (Extent(0, 0, MAX_ID + 1),))
"""That of a privileged guest, which has no user namespace of its own."""


def parse_map(uid_text: str, gid_text: str) -> IdMap:
    """What the texts of an IdMap mean. Raises ValueError for others."""
    return IdMap(_parse_extents(uid_text), _parse_extents(gid_text))


@dataclass(frozen=True, slots=True)
class Raw:
    """What raw.idmap adds, for users and groups."""

    uids: tuple[Extent, ...] = ()
    gids: tuple[Extent, ...] = ()


def parse_raw(text: str) -> Raw:
    """Read raw.idmap. Raises InvalidError naming the line."""
    lines = [line for line in text.split("\n") if line]
    if len(lines) > MAX_RAW_LINES:
        raise InvalidError("too many lines", f"at most {MAX_RAW_LINES}")
    uids: list[Extent] = []
    gids: list[Extent] = []
    for line in lines:
        kind, extent = _parse_line(line)
        for wanted, extents in (("uid", uids), ("gid", gids)):
            if kind in (wanted, "both"):
                _check_apart(extent, extents, line)
                extents.append(extent)
        if 0 in extent.guests and kind != "both":
            raise InvalidError(f"the guest's root is of user and group 0 together: {line!r}", "map it with 'both'")
    return Raw(tuple(uids), tuple(gids))


def _parse_line(line: str) -> tuple[str, Extent]:
    found = _RAW_LINE.fullmatch(line)
    if not found:
        raise InvalidError(f"not a mapping: {line[:80]!r}", "both|uid|gid HOST GUEST, as in 'both 1000-1009 1000-1009'")
    host, guest = int(found[2]), int(found[4])
    hosts = range(host, int(found[3] or host) + 1)
    guests = range(guest, int(found[5] or guest) + 1)
    if not hosts or len(hosts) != len(guests):
        raise InvalidError(f"ranges are empty or of different sizes: {line!r}")
    if hosts[-1] > MAX_ID or guests[-1] > MAX_ID:
        raise InvalidError(f"no such id: {line!r}", f"0 to {MAX_ID}")
    if 0 in hosts:
        raise InvalidError(f"the host's root can't be lent: {line!r}", "see security.privileged")
    return found[1], Extent(guest, host, len(hosts))


def _check_apart(extent: Extent, others: Iterable[Extent], line: str) -> None:
    for other in others:
        if overlap(extent.guests, other.guests) or overlap(extent.hosts, other.hosts):
            raise InvalidError(f"an id is mapped twice: {line!r}")


def overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def is_privileged(config: Mapping[str, str]) -> bool:
    return boolean(config.get("security.privileged", "false"))


def wanted_count(config: Mapping[str, str]) -> int:
    """How many ids expanded configuration asks for."""
    return int(config.get("security.idmap.size") or DEFAULT_COUNT)


def wanted_base(config: Mapping[str, str]) -> int | None:
    base = config.get("security.idmap.base")
    return int(base) if base else None


def make_idmap(base: int, count: int, config: Mapping[str, str]) -> IdMap:
    """The map of an instance that owns count ids from base on and is configured so."""
    if is_privileged(config):
        return IDENTITY
    raw = parse_raw(config.get("raw.idmap", ""))
    own = Extent(0, base, count)
    return IdMap(tuple(_with_holes(own, raw.uids)), tuple(_with_holes(own, raw.gids)))


def _with_holes(own: Extent, raw: Iterable[Extent]) -> Iterator[Extent]:
    """own with raw in place of what that maps otherwise, in order."""
    at = 0
    for extent in sorted(raw):
        if at < min(extent.inside, own.count):
            yield Extent(at, own.outside + at, min(extent.inside, own.count) - at)
        yield extent
        at = extent.guests.stop
    if at < own.count:
        yield Extent(at, own.outside + at, own.count - at)


def _text(extents: Iterable[Extent]) -> str:
    return "".join(f"{one.inside} {one.outside} {one.count}\n" for one in extents)


def _parse_extents(text: str) -> tuple[Extent, ...]:
    rows = [[int(word) for word in line.split()] for line in text.splitlines()]
    return tuple(Extent(inside, outside, count) for inside, outside, count in rows)


def _outside(extents: Iterable[Extent], number: int, what: str) -> int:
    for one in extents:
        if number in one.guests:
            return one.outside + number - one.inside
    raise InvalidError(f"the instance has no {what} {number}", "see security.idmap.size")
