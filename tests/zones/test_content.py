# SPDX-License-Identifier: Apache-2.0
"""What a zone holds: serials, the journal, and what changes make of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.dns import content as module
from sysd.dns.content import APEX, Change, Content, is_newer, next_serial, pack, unpack
from tests.zones.loopback import change, content, record

LAST = (1 << 32) - 1


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        (2, 1, True), (1, 2, False), (1, 1, False), (0, LAST, True), (LAST, 0, False), (1 << 31, 0, False),
        (0, 1 << 31, False), ((1 << 31) - 1, 0, True), ((1 << 31) + 1, 0, False),
    ],
)  # fmt: skip
def test_serials_go_round(one: int, other: int, newer: bool) -> None:
    """RFC 1982, section 3.2."""
    assert is_newer(one, other) is newer


@given(st.integers(0, LAST))
def test_the_next_serial_is_newer(serial: int) -> None:
    assert is_newer(next_serial(serial), serial)
    assert next_serial(serial)


def test_the_serial_moves_only_when_the_content_does() -> None:
    zone = content(record("a", "A", "192.0.2.1"))
    same = record("a", "A", "192.0.2.1")
    assert zone.compare({(b"\x01a", 1): (same,)}) is None
    assert zone.compare({(b"\x01b", 1): ()}) is None
    change(zone, record("a", "A", "192.0.2.2"))
    assert zone.serial == 2
    (step,) = zone.journal.changes
    assert (step.before, step.after, step.size) == (1, 2, 4)


def test_names_between_exist() -> None:
    zone = content(record("a.b.c", "A", "192.0.2.1"))
    assert zone.exists(b"\x01b\x01c")
    assert zone.exists(b"\x01c")
    change(zone)
    assert not zone.exists(b"\x01c")
    assert zone.exists(APEX)


OWNERS = st.sampled_from(["a", "b", "a.b", "x.a.b", "*"])
RECORDS = st.sets(st.tuples(OWNERS, st.integers(1, 6)), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=8))
def test_the_journal_leads_from_each_serial_to_now(steps: list[set[tuple[str, int]]]) -> None:
    zone = content()
    seen = {zone.serial: set(zone.records())}
    for step in steps:
        wanted = {record(owner, "A", f"192.0.2.{number}") for owner, number in step}
        if wanted != {one for one in zone.records() if module.owner_of(one) != APEX}:
            change(zone, *wanted)
            seen[zone.serial] = set(zone.records())
    again = Content(zone.origin)
    again.load([zone.soa, *zone.records()], zone.journal.changes)
    for serial, records in seen.items():
        changes = again.journal.since(serial)
        if serial == zone.serial:
            assert changes is None
            continue
        assert changes
        assert changes[-1].after == zone.serial
        for one in changes:
            records = (records - set(one.removed)) | set(one.added[1:])
        assert records == set(zone.records())
        assert again.exists(b"\x01b") == zone.exists(b"\x01b")


def test_the_journal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JOURNAL", 3)
    zone = content()
    for number in range(6):
        change(zone, record("a", "A", f"192.0.2.{number}"))
    assert [step.before for step in zone.journal.changes] == [4, 5, 6]
    assert zone.journal.since(3) is None
    assert zone.journal.size == sum(step.size for step in zone.journal.changes)


def test_a_journal_with_a_gap_forgets_what_was_before() -> None:
    zone = content(serial=9)
    change(zone, record("a", "A", "192.0.2.1"))
    change(zone, record("a", "A", "192.0.2.2"))
    first, second = zone.journal.changes
    again = Content(zone.origin)
    again.load([zone.soa, *zone.records()], [first, Change((second.added[0],), (second.added[0],))])
    assert len(again.journal.changes) == 1


@given(st.lists(st.binary(max_size=300)))
def test_packed_records_come_out_again(records: list[bytes]) -> None:
    assert list(unpack(pack(records))) == records
