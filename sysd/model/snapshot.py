# SPDX-License-Identifier: Apache-2.0
"""Snapshots: an instance as it once was, its writable layer and all that was said of it."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sysd.model import names
from sysd.model.errors import InvalidError
from sysd.model.instance import STATE, VOLATILE, Instance

NUMBER = "%d"
DEFAULT_PATTERN = "snap%d"
_DATE = re.compile(r"""\{\{\s*creation_date(?:\s*\|\s*date:\s*(?:'([^'{}]*)'|"([^"{}]*)"))?\s*\}\}""")
_DEFAULT_DATE = "20060102-150405"
# Go's reference time, as LXD's templates have it (pkg.go.dev/time, constants), and what strftime calls its parts.
_LAYOUT = (
    ("2006", "%Y"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
)
_PART = re.compile("|".join(part for part, _ in _LAYOUT))
_SPAN = re.compile(r"([0-9]{1,6})([MHdwmy])", re.ASCII)
_UNITS = {"M": "minutes", "H": "hours", "d": "days", "w": "weeks"}
_LAST_YEAR = 9000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """instance is the UUID of whose it is; image to ephemeral are that instance's at the time. expires: microseconds
    since the epoch, 0 for never. stateful: it has the memory of a virtual machine, too."""

    uuid: str
    instance: str
    name: str
    image: str
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    description: str = ""
    ephemeral: bool = False
    created: int = field(default_factory=lambda: time.time_ns() // 1000)
    expires: int = 0
    stateful: bool = False

    def applied(self, instance: Instance) -> Instance:
        """The instance as it was then; its identity stays, and what is remembered of it for as long as it is there."""
        remembered = {key: value for key, value in instance.config.items() if key.startswith(VOLATILE)}
        return replace(
            instance,
            image=self.image,
            config={**self.config, **remembered},
            devices={name: dict(options) for name, options in self.devices.items()},
            profiles=list(self.profiles),
            description=self.description,
            ephemeral=self.ephemeral,
        )


def take(instance: Instance, uuid: str, name: str, expires: int = 0, *, stateful: bool = False) -> Snapshot:
    """The record of a snapshot that is about to be made."""
    return Snapshot(
        uuid,
        instance.uuid,
        name,
        instance.image,
        config={key: value for key, value in instance.config.items() if not key.startswith(STATE)},
        devices=instance.devices,
        profiles=instance.profiles,
        description=instance.description,
        ephemeral=instance.ephemeral,
        expires=expires,
        stateful=stateful,
    )


def render(pattern: str, moment: datetime, taken: Iterable[str]) -> str:
    """A name that is free, as LXD makes it of snapshots.pattern: %d is the next number, {{ creation_date }} the time,
    with |date:'LAYOUT' in Go's notation. A pattern that gives a name which is taken gets a number at its end."""
    taken = set(taken)
    text = _DATE.sub(lambda match: _date(match[1] or match[2] or _DEFAULT_DATE, moment), pattern)
    if NUMBER not in text and text in taken:
        text = f"{text}-{NUMBER}"
    if NUMBER in text:
        before, _, after = text.partition(NUMBER)
        form = re.compile(re.escape(before) + "([0-9]{1,9})" + re.escape(after), re.ASCII)
        used = [int(match[1]) for match in map(form.fullmatch, taken) if match]
        text = f"{before}{max(used, default=-1) + 1}{after}"
    return names.check_snapshot_name(text)


def _date(layout: str, moment: datetime) -> str:
    words = dict(_LAYOUT)
    return _PART.sub(lambda match: moment.strftime(words[match[0]]), layout)


def check_pattern(text: str) -> str:
    """A value of snapshots.pattern; raises InvalidError for one that gives no name."""
    if text.count(NUMBER) > 1:
        raise InvalidError("%d comes twice")
    try:
        render(text, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), ())
    except InvalidError as error:
        raise InvalidError(
            f"gives no name of a snapshot: {text[:80]!r}",
            f"{error.hint}; %d, {{{{ creation_date|date:'2006-01-02_15-04-05' }}}}",
        ) from None
    return text


def expiry(text: str, moment: datetime) -> datetime | None:
    """When a snapshot made at moment expires by a value of snapshots.expiry, such as ``1d 12H``; None for never.

    M is minutes, H hours, d days, w weeks, m months and y years. Raises InvalidError.
    """
    if not text.strip():
        return None
    for word in text.split():
        match = _SPAN.fullmatch(word)
        if not match:
            raise InvalidError(f"not a time span: {text[:80]!r}", "numbers with M, H, d, w, m or y: '1d 12H'")
        number, unit = int(match[1]), match[2]
        try:
            moment = moment + timedelta(**{_UNITS[unit]: number}) if unit in _UNITS else _months(moment, number, unit)
        except OverflowError:
            raise _too_late(text) from None
        if moment.year > _LAST_YEAR:
            raise _too_late(text)
    return moment


def _months(moment: datetime, number: int, unit: str) -> datetime:
    months = moment.month - 1 + number * (12 if unit == "y" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    if year > _LAST_YEAR:
        raise OverflowError
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return moment.replace(year=year, month=month, day=day)


def _too_late(text: str) -> InvalidError:
    return InvalidError(f"too far in the future: {text[:80]!r}")


def check_expiry(text: str) -> str:
    expiry(text, datetime(2026, 12, 31, tzinfo=UTC))
    return text


def microseconds(moment: datetime | None) -> int:
    return int(moment.timestamp()) * 1_000_000 if moment else 0
