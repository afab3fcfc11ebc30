# SPDX-License-Identifier: Apache-2.0
"""Which of the host's user and group ids instances have: a range each, that nobody else has.

Nobody: no other instance, no user or group of the host's, and nobody whom /etc/subuid and /etc/subgid give ranges to
(LXD and Incus have theirs there). Where ids are looked for is inside systemd's range for containers (systemd.io,
UIDS-GIDS) and above what LXD and Incus take by default; systemd-nspawn picks from the same, and says so in /run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sysd.manager.table import Table
from sysd.model import idmap
from sysd.model.errors import FailedError, InvalidError
from sysd.model.idmap import Extent
from sysd.model.instance import Instance
from sysd.model.syscalls import policy_of
from sysd.runtime.seccomp import compile_policy

FIRST = 0x40000000
LAST = 0x6FFFFFFF
STEP = 65536
"""Ranges begin at whole multiples, as systemd's do."""

LENDERS = ("root", "syscont", "0")
"""Whose lines in /etc/subuid and /etc/subgid say what raw.idmap may give to instances."""

ETC = Path("/etc")
NSPAWN = Path("/run/systemd/nspawn-uid")


class Ids:
    def __init__(self, table: Table) -> None:
        self._table = table

    def check(self, expanded: Instance) -> None:
        """Whether an expanded instance can be kept apart as its configuration wants. Raises InvalidError naming the
        key, or FailedError when there are no ids left."""
        _check_filter(expanded)
        self._check_raw(expanded)
        self._range_of(expanded, expanded.config)

    def give(self, instance: Instance) -> Instance:
        """The instance with a range that is as its configuration wants it. It keeps the one that it has if that
        serves: a new one is taken for an instance that does not run only. Raises InvalidError or FailedError."""
        ids = self._range_of(instance, self._table.expand(instance).config)
        if ids == range(instance.id_base, instance.id_base + instance.id_count):
            return instance
        return replace(instance, id_base=ids.start, id_count=len(ids))

    def _range_of(self, instance: Instance, config: Mapping[str, str]) -> range:
        count, base = idmap.wanted_count(config), idmap.wanted_base(config)
        if instance.id_base and instance.id_count == count and base in (None, instance.id_base):
            return range(instance.id_base, instance.id_base + count)
        if base is None:
            base = self._find(instance, count)
        else:
            self._check_base(instance, range(base, base + count))
        return range(base, base + count)

    def _find(self, instance: Instance, count: int) -> int:
        taken = sorted([*self._of_others(instance), *_of_host()], key=lambda ids: ids.start)
        base = FIRST
        for ids in taken:
            if ids.stop <= base:
                continue
            if base + count <= ids.start:
                break
            base = -(-ids.stop // STEP) * STEP
        if base + count - 1 > LAST:
            raise FailedError("no user ids are left for another instance")
        return base

    def _check_base(self, instance: Instance, wanted: range) -> None:
        if wanted.stop - 1 > idmap.MAX_ID:
            raise InvalidError("security.idmap.base: the ids end beyond the last that there is")
        for other in self._others(instance):
            if any(idmap.overlap(wanted, ids) for ids in self._ids_of(other)):
                raise InvalidError(f"security.idmap.base: {other.reference} has some of these ids", _range_text(wanted))
        for ids in _of_host(lent=False):
            if idmap.overlap(wanted, ids):
                raise InvalidError(f"security.idmap.base: the host uses {_range_text(ids)}", "see /etc/subuid")

    def _check_raw(self, expanded: Instance) -> None:
        raw = idmap.parse_raw(expanded.config.get("raw.idmap", ""))
        if not raw.uids and not raw.gids:
            return
        for extents, name in ((raw.uids, "subuid"), (raw.gids, "subgid")):
            lent = list(_ranges(ETC / name, LENDERS))
            for extent in extents:
                if not _covered(extent.hosts, lent):
                    why = f"raw.idmap: the administrator does not lend {_range_text(extent.hosts)}"
                    raise InvalidError(why, f"add root:{extent.outside}:{extent.count} to /etc/{name}")
        for other in self._others(expanded):
            own = range(other.id_base, other.id_base + other.id_count)
            if any(idmap.overlap(extent.hosts, own) for extent in (*raw.uids, *raw.gids)):
                raise InvalidError(f"raw.idmap: {other.reference} has some of these ids", _range_text(own))

    def _others(self, instance: Instance) -> Iterator[Instance]:
        return (other for other in self._table.all() if other.uuid != instance.uuid)

    def _of_others(self, instance: Instance) -> Iterator[range]:
        for other in self._others(instance):
            yield from self._ids_of(other)

    def _ids_of(self, instance: Instance) -> Iterator[range]:
        if instance.id_base:
            yield range(instance.id_base, instance.id_base + instance.id_count)
        text = self._table.expanded(instance).config.get("raw.idmap")
        if text:
            raw = idmap.parse_raw(text)
            yield from _hosts(raw.uids)
            yield from _hosts(raw.gids)


def _check_filter(expanded: Instance) -> None:
    try:
        compile_policy(policy_of(expanded.config))
    except InvalidError as error:
        raise InvalidError(f"security.syscalls: {error.message}", error.hint) from None


def _hosts(extents: Iterable[Extent]) -> Iterator[range]:
    return (extent.hosts for extent in extents)


def _of_host(*, lent: bool = True) -> Iterator[range]:
    """Ids that are somebody's on the host; lent: those too that the administrator lends to containers."""
    for name in ("passwd", "group"):
        for fields in _lines(ETC / name):
            if len(fields) > 2 and fields[2].isdecimal():
                yield range(int(fields[2]), int(fields[2]) + 1)
    for name in ("subuid", "subgid"):
        for owner, ids in _given(ETC / name):
            if owner != "syscont" and (lent or owner not in LENDERS):
                yield ids
    with contextlib.suppress(OSError):
        for lock in NSPAWN.iterdir():
            if lock.name.isdecimal():
                yield range(int(lock.name), int(lock.name) + STEP)


def _ranges(path: Path, owners: Iterable[str]) -> Iterator[range]:
    return (ids for owner, ids in _given(path) if owner in owners)


def _given(path: Path) -> Iterator[tuple[str, range]]:
    """What a file like /etc/subuid gives to whom (subuid(5))."""
    for fields in _lines(path):
        if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
            yield fields[0], range(int(fields[1]), int(fields[1]) + int(fields[2]))


def _lines(path: Path) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            yield line.split(":")


def _covered(ids: range, by: Iterable[range]) -> bool:
    """Whether ranges, together, have all of ids."""
    at = ids.start
    for one in sorted(by, key=lambda one: one.start):
        if one.start <= at < one.stop:
            at = one.stop
    return at >= ids.stop


def _range_text(ids: range) -> str:
    return f"{ids.start}-{ids.stop - 1}" if len(ids) > 1 else str(ids.start)
