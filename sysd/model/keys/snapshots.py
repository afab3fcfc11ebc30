# SPDX-License-Identifier: Apache-2.0
"""When snapshots are taken by themselves, what they are called, and when they go."""

from __future__ import annotations

from sysd.model import schedule, snapshot
from sysd.model.schema import Key
from sysd.model.values import boolean

KEYS = (
    Key(
        "snapshots.schedule",
        schedule.parse,
        "",
        "When to take snapshots: cron's MINUTE HOUR DAY MONTH WEEKDAY, or @hourly, @daily, @midnight, @weekly, "
        "@monthly, @annually, @yearly, @startup with commas between them (a timer of systemd's).",
        live=True,
    ),
    Key(
        "snapshots.schedule.stopped",
        boolean,
        "false",
        "Take scheduled snapshots also while the instance is stopped.",
        live=True,
    ),
    Key(
        "snapshots.pattern",
        snapshot.check_pattern,
        snapshot.DEFAULT_PATTERN,
        "Names of snapshots that are given none: %d is the next number, {{ creation_date|date:'2006-01-02_15-04' }} "
        "the time.",
        live=True,
    ),
    Key(
        "snapshots.expiry",
        snapshot.check_expiry,
        "",
        "How long new snapshots are kept, such as '1d 12H' (M, H, d, w, m, y); for ever when empty.",
        live=True,
    ),
)
