# SPDX-License-Identifier: Apache-2.0
"""What an instance may use of the host. sysd/runtime/limits.py makes properties of its unit of these."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sysd.model.errors import InvalidError
from sysd.model.instance import Kind
from sysd.model.schema import Key
from sysd.model.sizes import parse_size
from sysd.model.values import anything, boolean, integer

MAX_PROCESSORS = 8192
UNLIMITED = (1 << 64) - 1
"""RLIM_INFINITY, and what systemd takes for no limit."""

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,5})%", re.ASCII)
_QUOTA = re.compile(r"([0-9]{1,6})(?:ms)?/([0-9]{1,6})(?:ms)?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Share:
    """Of memory or processor time: one of a whole in percent, or a fixed amount."""

    percent: int = 0
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Processor time: a weight in percent of what others have, or so many ms of each period."""

    percent: int = 100
    quota: int = 0
    period: int = 0


def processors(text: str) -> int | frozenset[int]:
    """A number of processors, or which ones: ``0,3`` or ``0-3``; ``1-1`` is processor 1 alone."""
    if re.fullmatch(r"[0-9]{1,4}", text, re.ASCII):
        count = int(text)
        if not 1 <= count <= MAX_PROCESSORS:
            raise InvalidError(f"out of range: {text!r}", f"1 to {MAX_PROCESSORS} processors")
        return count
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MAX_PROCESSORS:
            raise InvalidError(f"not processors: {text[:80]!r}", "a number of them as 2, or a set as 0,3 or 0-3")
        found.update(range(first, last + 1))
    return frozenset(found)


def allowance(text: str) -> Allowance:
    if match := _PERCENT.fullmatch(text):
        if not 1 <= int(match[1]) <= 10000:
            raise InvalidError(f"out of range: {text!r}", "1% to 10000%")
        return Allowance(percent=int(match[1]))
    match = _QUOTA.fullmatch(text)
    if not match:
        raise InvalidError(f"not an allowance: {text[:80]!r}", "a share such as 50%, or a time such as 25ms/100ms")
    quota, period = int(match[1]), int(match[2])
    # The kernel's own limits (sched-bwc.rst).
    if quota < 1 or not 1 <= period <= 1000:
        raise InvalidError(f"out of range: {text!r}", "at least 1ms, of a period of 1ms to 1000ms")
    return Allowance(quota=quota, period=period)


def memory(text: str) -> Share:
    if match := _PERCENT.fullmatch(text):
        if not 1 <= int(match[1]) <= 100:
            raise InvalidError(f"out of range: {text!r}", "1% to 100% of the host's memory")
        return Share(percent=int(match[1]))
    value = parse_size(text)
    if value < 1 << 20:
        raise InvalidError(f"too small: {text!r}", "at least 1MiB")
    return Share(amount=value)


def enforcement(text: str) -> bool:
    """Whether a limit of memory is hard."""
    if text not in ("hard", "soft"):
        raise InvalidError(f"not acceptable: {text!r}", "hard or soft")
    return text == "hard"


def swap(text: str) -> int:
    """Bytes of swap that may be used: true for all, false for none, or a size."""
    if text[:1].isdigit() and text not in ("0", "1"):
        return parse_size(text)
    return UNLIMITED if boolean(text) else 0


# With less no launcher, and no init of a guest, gets anywhere.
_LEAST = {"as": 64 << 20, "cpu": 10, "data": 32 << 20, "fsize": 1 << 20, "nofile": 256, "stack": 1 << 20}
RESOURCES = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)


def rlimit(text: str) -> tuple[int, int]:
    """Soft and hard: ``soft:hard``, or one number for both; each may be ``unlimited``."""
    soft, colon, hard = text.partition(":")
    values = []
    for part in (soft, hard if colon else soft):
        if part != "unlimited" and (not _NUMBER.fullmatch(part) or int(part) >= 1 << 63):
            raise InvalidError(f"not a limit: {text[:80]!r}", "a number, unlimited, or two of these as SOFT:HARD")
        values.append(UNLIMITED if part == "unlimited" else int(part))
    if values[0] > values[1]:
        raise InvalidError(f"not a limit: {text!r}", "the soft limit is at most the hard one")
    return values[0], values[1]


def _check_resource(resource: str, text: str) -> None:
    least = _LEAST.get(resource, 0)
    if rlimit(text)[0] < least:
        raise InvalidError(f"too small: {text!r}", f"at least {least}, or nothing can start")


_NO_HUGETLB = (
    "systemd has no property for huge pages. They count as memory where the host mounts its cgroups with "
    "memory_hugetlb_accounting"
)
KEYS = (
    Key(
        "limits.cpu",
        processors,
        "",
        "How many processors the instance has, or which ones, as 0,3 or 0-3 (AllowedCPUs= of its unit). A virtual "
        "machine has 1 when it is not set; each of its processors is run by the one of that place in the list.",
        live=True,
    ),
    Key(
        "limits.cpu.allowance",
        allowance,
        "100%",
        "Share of the processors' time while it is short, as 50% (CPUWeight=), or ever, as 25ms/100ms (CPUQuota=).",
        live=True,
    ),
    Key(
        "limits.cpu.priority",
        integer(0, 10),
        "10",
        "Of instances with the same allowance the one with the lower number yields (CPUWeight=).",
        live=True,
    ),
    Key(
        "limits.disk.priority",
        integer(0, 10),
        "5",
        "Share of the disks' time when it is short (IOWeight=); for disks with an I/O scheduler that knows weights.",
        live=True,
    ),
    *(
        Key(f"limits.hugepages.{size}", anything, "", f"Most huge pages of {size}, in bytes.", refused=_NO_HUGETLB)
        for size in ("64KB", "1MB", "2MB", "1GB")
    ),
    Key(
        "limits.kernel.*",
        rlimit,
        "",
        f"Limits of each process as SOFT:HARD, or one number, or unlimited (setrlimit(2)): {', '.join(RESOURCES)}.",
        only=Kind.CONTAINER,
        member="|".join(RESOURCES),
        check_member=_check_resource,
    ),
    Key(
        "limits.memory",
        memory,
        "",
        "Most memory the instance may use, in bytes or percent of the host's (MemoryMax= of a container's unit). A "
        "virtual machine has this much, 1GiB when it is not set.",
        live=True,
    ),
    Key(
        "limits.memory.enforce",
        enforcement,
        "hard",
        "hard: limits.memory is never exceeded; soft: whoever exceeds it is slowed and reclaimed from (MemoryHigh=).",
        live=True,
        only=Kind.CONTAINER,
    ),
    Key(
        "limits.memory.swap",
        swap,
        "true",
        "Whether memory of the instance may be swapped out, or how many bytes of it (MemorySwapMax=).",
        live=True,
    ),
    Key(
        "limits.memory.swap.priority",
        integer(0, 10),
        "10",
        "Which instances are swapped out first.",
        refused="cgroup version 2 has no swappiness of its own for a group; use limits.memory.swap",
    ),
    Key(
        "limits.network.priority",
        integer(0, 10),
        "0",
        "Whose packets go first.",
        refused="cgroup version 2 has no net_prio controller",
    ),
    Key(
        "limits.processes",
        integer(1, 4194304),
        "16384",
        "Most tasks the instance may have (TasksMax= of its unit).",
        live=True,
        only=Kind.CONTAINER,
    ),
)
