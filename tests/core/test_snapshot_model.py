# SPDX-License-Identifier: Apache-2.0
"""Names, ends and times of snapshots: LXD's grammar, as systemd has it."""

import subprocess
from datetime import UTC, datetime

import pytest

from sysd.model import schedule, snapshot
from sysd.model.config import check_config
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance, forget

NOW = datetime(2026, 1, 31, 13, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        ("snap%d", (), "snap0"),
        ("snap%d", ("snap0", "snap7", "other9", "snapx", "snap07x"), "snap8"),
        ("a%db", ("a3b", "a9"), "a4b"),
        ("daily", (), "daily"),
        ("daily", ("daily",), "daily-0"),
        ("daily", ("daily", "daily-0"), "daily-1"),
        ("{{ creation_date }}", (), "20260131-130509"),
        ("at-{{creation_date|date:'2006-01-02_15-04-05'}}", (), "at-2026-01-31_13-05-09"),
        ('{{ creation_date | date:"Jan02" }}-%d', ("Jan31-0",), "Jan31-1"),
        ("a.b", ("axb",), "a.b"),
        ("%d", ("0",), "1"),
    ],
)
def test_names_by_pattern(pattern: str, taken: tuple[str, ...], name: str) -> None:
    assert snapshot.check_pattern(pattern) == pattern
    assert snapshot.render(pattern, NOW, taken) == name


@pytest.mark.parametrize(
    "pattern",
    ["", "..", ".", "a/b", "../%d", "%d%d", "a\nb", "a b", "-rf", "{{ creation_date|date:'2006/01' }}", "{{ config }}",
     "{{ creation_date|date:'%d%d' }}", "x" * 80, "snap%s", "{% for %}", "é%d", "a\0"],
)  # fmt: skip
def test_patterns_that_give_no_name(pattern: str) -> None:
    with pytest.raises(InvalidError, match=r"snapshots\.pattern"):
        check_config({"snapshots.pattern": pattern})


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("1M", datetime(2026, 1, 31, 13, 6, 9, tzinfo=UTC)),
        ("2H 1d", datetime(2026, 2, 1, 15, 5, 9, tzinfo=UTC)),
        ("1w", datetime(2026, 2, 7, 13, 5, 9, tzinfo=UTC)),
        ("1m", datetime(2026, 2, 28, 13, 5, 9, tzinfo=UTC)),
        ("11m", datetime(2026, 12, 31, 13, 5, 9, tzinfo=UTC)),
        ("1y 1m", datetime(2027, 2, 28, 13, 5, 9, tzinfo=UTC)),
        ("", None),
        ("  ", None),
    ],
)
def test_expiry(text: str, end: datetime | None) -> None:
    assert snapshot.expiry(text, NOW) == end


@pytest.mark.parametrize(
    "text", ["1", "d", "1x", "-1d", "1.5d", "1d,2H", "999999y", "999999m", "9999999d", "1d\n", "\u0661d"]
)
def test_what_is_no_expiry(text: str) -> None:
    with pytest.raises(InvalidError, match=r"snapshots\.expiry"):
        check_config({"snapshots.expiry": text})


CRON = {
    "0 3 * * *": ("*-*-* 03:00:00",),
    "*/20 * * * *": ("*-*-* *:00,20,40:00",),
    "5,10-12 0-23/6 1 jan-mar *": ("*-01,02,03-01 00,06,12,18:05,10,11,12:00",),
    "0 0 * * 1-5": ("Mon,Tue,Wed,Thu,Fri *-*-* 00:00:00",),
    "0 0 * * 0,7,SAT": ("Sun,Sat *-*-* 00:00:00",),
    "30 4 1,15 * 5": ("*-*-01,15 04:30:00", "Fri *-*-* 04:30:00"),
    "10/25 * ? * ?": ("*-*-* *:10,35:00",),
}


@pytest.mark.parametrize("text", CRON)
def test_cron(text: str) -> None:
    assert schedule.parse(text) == schedule.Schedule(CRON[text])


def test_aliases() -> None:
    assert schedule.parse("") == schedule.Schedule()
    found = schedule.parse("@daily, @midnight,@startup")
    assert found == schedule.Schedule(("*-*-* 00:00:00",), spread=True, at_startup=True)


@pytest.mark.parametrize(
    "text",
    ["* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
     "a * * * *", "@sometimes", "@daily @hourly", "@daily,0 3 * * *", "1,,2 * * * *", "-1 * * * *", "1- * * * *",
     "* * * * mon-", "*-*-* 00:00:00", "0 3 * * *\n[Timer]", "\u0663 * * * *", "1/2/3 * * * *", "+1 * * * *"],
)  # fmt: skip
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(InvalidError, match=r"snapshots\.schedule"):
        check_config({"snapshots.schedule": text})


@pytest.mark.parametrize("text", [*CRON, *schedule.ALIASES])
def test_systemd_takes_the_calendar(text: str) -> None:
    """As it is written here it is systemd's own normal form, so that a timer that runs can be told to be right."""
    for calendar in schedule.parse(text).calendar:
        found = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=True)
        normal = [line.partition(": ")[2] for line in found.stdout.splitlines() if "Normalized form" in line]
        assert normal, found.stdout


def test_what_is_remembered_of_the_instance_stays() -> None:
    """A restored instance has the hardware address that it has now, and has not run because it had then."""
    remembered = {"volatile.eth0.hwaddr": "old", "volatile.eth1.hwaddr": "gone", "volatile.last_state.power": "RUNNING"}
    was = Instance("u1", "web1", "a", 0, config={"user.a": "1", **remembered}, ephemeral=True)
    taken = snapshot.take(was, "s1", "s")
    now = Instance("u1", "web2", "b", 7, config={"user.b": "2", "volatile.eth0.hwaddr": "new"}, project="lab")
    restored = taken.applied(now)
    assert restored.config == {"user.a": "1", "volatile.eth0.hwaddr": "new", "volatile.eth1.hwaddr": "gone"}
    assert (restored.name, restored.project, restored.id_base) == ("web2", "lab", 7)
    assert (restored.image, restored.ephemeral) == ("a", True)
    assert forget(restored.config) == {"user.a": "1"}
