# SPDX-License-Identifier: Apache-2.0
"""What a unit takes, as systemd counts it (org.freedesktop.systemd1(5)).

Where the host has no controllers, tasks are counted in its cgroup.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from sysd.units.bus import BusError
from sysd.units.systemd import SERVICE, Systemd

CGROUPS = Path("/sys/fs/cgroup")
MAX_CGROUPS = 4096
"""A guest makes as many as it likes."""
_NOT_SET = (1 << 64) - 1
"""Also of limits, for none."""
_NAMES = (
    "CPUUsageNSec",
    "MemoryCurrent",
    "MemoryPeak",
    "MemorySwapCurrent",
    "MemoryMax",
    "MemoryHigh",
    "TasksCurrent",
    "IOReadBytes",
    "IOWriteBytes",
)


@dataclass(frozen=True, slots=True)
class Account:
    """Nanoseconds, bytes and numbers; None for what is not counted, of limit for none."""

    cpu: int | None
    memory: int | None
    peak: int | None
    swap: int | None
    limit: int | None
    tasks: int | None
    read: int | None
    written: int | None


async def account(systemd: Systemd, unit: str) -> Account:
    """Of a unit that runs."""
    found = dict(zip(_NAMES, await asyncio.gather(*(_number(systemd, unit, name) for name in _NAMES)), strict=True))
    limits = [found[name] for name in ("MemoryMax", "MemoryHigh")]
    tasks = found["TasksCurrent"]
    return Account(
        cpu=found["CPUUsageNSec"],
        memory=found["MemoryCurrent"],
        peak=found["MemoryPeak"],
        swap=found["MemorySwapCurrent"],
        limit=min((limit for limit in limits if limit is not None), default=None),
        tasks=await _count_tasks(systemd, unit) if tasks is None else tasks,
        read=found["IOReadBytes"],
        written=found["IOWriteBytes"],
    )


async def _number(systemd: Systemd, unit: str, name: str) -> int | None:
    """None also for a property that this systemd has not."""
    try:
        value = int(await systemd.unit_property(unit, SERVICE, name))
    except BusError:
        return None
    return None if value == _NOT_SET else value


async def _count_tasks(systemd: Systemd, unit: str) -> int | None:
    try:
        group = str(await systemd.unit_property(unit, SERVICE, "ControlGroup"))
    except BusError:
        return None
    return await asyncio.to_thread(count_tasks, CGROUPS / group.lstrip("/")) if group else None


def count_tasks(group: Path) -> int | None:
    """Threads in a cgroup and those below; None for one that is not there, or has too many below it."""
    count, left = 0, MAX_CGROUPS
    if not group.is_dir():
        return None
    for folder, _, _ in os.walk(group):
        left -= 1
        if not left:
            return None
        count += _lines(Path(folder) / "cgroup.threads")
    return count


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:  # it is gone, or has none by its type
        return 0
