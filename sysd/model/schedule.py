# SPDX-License-Identifier: Apache-2.0
"""snapshots.schedule: cron's five fields, or names for usual ones, as systemd's calendar has them (systemd.time(7))."""

from __future__ import annotations

from dataclasses import dataclass

from sysd.model.errors import InvalidError

STARTUP = "@startup"
ALIASES = {
    "@hourly": "*-*-* *:00:00",
    "@daily": "*-*-* 00:00:00",
    "@midnight": "*-*-* 00:00:00",
    "@weekly": "Sun *-*-* 00:00:00",
    "@monthly": "*-*-01 00:00:00",
    "@annually": "*-01-01 00:00:00",
    "@yearly": "*-01-01 00:00:00",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Schedule:
    """calendar: values of OnCalendar=, any of which is a time to act. spread: the minute does not matter, so that
    many need not act at once. at_startup: also when the instance has started."""

    calendar: tuple[str, ...] = ()
    spread: bool = False
    at_startup: bool = False


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    def parse(self, text: str) -> list[int] | None:
        """The values that it stands for; None for all of them."""
        if text in ("*", "?"):
            return None
        found: set[int] = set()
        for part in text.split(","):
            span, slash, step_text = part.partition("/")
            step = self._number(step_text, 1, self.high) if slash else 1
            low_text, dash, high_text = span.partition("-")
            if span in ("*", "?"):
                low, high = self.low, self.high
            elif dash:
                low, high = self._value(low_text), self._value(high_text)
            else:
                low = self._value(span)
                high = self.high if slash else low
            if low > high:
                raise self._wrong(part)
            found.update(range(low, high + 1, step))
        return sorted(found)

    def _value(self, text: str) -> int:
        if text.lower() in self.words:
            return self.words.index(text.lower()) + self.low
        return self._number(text, self.low, self.high)

    def _number(self, text: str, low: int, high: int) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 2 and low <= int(text) <= high):
            raise self._wrong(text)
        return int(text)

    def _wrong(self, text: str) -> InvalidError:
        return InvalidError(f"{self.name} {text[:40]!r} is none", f"{self.low} to {self.high}")


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("day of the week", 0, 7, _DAYS)


def parse(text: str) -> Schedule:
    """Raises InvalidError."""
    if not text.strip():
        return Schedule()
    if text.lstrip().startswith("@"):
        return _named(text)
    fields = text.split()
    if len(fields) != 5:
        raise InvalidError(
            f"not a schedule: {text[:80]!r}",
            f"MINUTE HOUR DAY MONTH WEEKDAY as in cron, or some of {', '.join((*ALIASES, STARTUP))}",
        )
    minutes, hours = _MINUTE.parse(fields[0]), _HOUR.parse(fields[1])
    days, months, weekdays = _DAY.parse(fields[2]), _MONTH.parse(fields[3]), _WEEKDAY.parse(fields[4])
    clock = f"{_list(hours)}:{_list(minutes)}:00"
    on_weekdays = ",".join(dict.fromkeys(_DAYS[day % 7].capitalize() for day in weekdays or ()))
    if days is not None and weekdays is not None:
        # crontab(5): when both are restricted, either will do.
        return Schedule((f"*-{_list(months)}-{_list(days)} {clock}", f"{on_weekdays} *-{_list(months)}-* {clock}"))
    date = f"*-{_list(months)}-{_list(days)} {clock}"
    return Schedule((f"{on_weekdays} {date}" if on_weekdays else date,))


def _named(text: str) -> Schedule:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in ALIASES and word != STARTUP:
            raise InvalidError(f"not a schedule: {word[:40]!r}", f"one of {', '.join((*ALIASES, STARTUP))}")
    calendar = tuple(dict.fromkeys(ALIASES[word] for word in words if word != STARTUP))
    return Schedule(calendar, spread=True, at_startup=STARTUP in words)


def _list(values: list[int] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02}" for value in values)
