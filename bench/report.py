# SPDX-License-Identifier: Apache-2.0
"""The results as a table for the terminal and as a markdown file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.contests import FEW_ROUNDS, AloneResult, MemoryResult, Result, SizeResult
from bench.measure import Sample

HEADER = ("", "syscont", "Incus", "ratio", "goal", "")
VERDICTS = {True: "pass", False: "MISSED"}

Outcome = Result | MemoryResult | AloneResult
Results = Iterable[Outcome]


def rows(results: Results) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for result in results:
        found += _rows_of(result)
    return found


def _rows_of(result: Outcome) -> list[tuple[str, ...]]:
    if isinstance(result, AloneResult):
        return [(result.title, _time(result.ours), "", "", f"{_ms(result.goal)} ms", VERDICTS[result.passed])]
    if isinstance(result, Result):
        goal = "" if result.goal is None else f"{result.goal:.2f}"
        verdict = "" if result.goal is None else VERDICTS[result.passed]
        shown = _sizes if isinstance(result, SizeResult) else _time
        return [(result.title, shown(result.ours), shown(result.theirs), f"{result.ratio:.2f}", goal, verdict)]
    ours, theirs = result.ours, result.theirs
    return [
        (
            f"{result.title}: daemon's RSS",
            _size(ours.daemon_rss),
            _size(theirs.daemon_rss),
            f"{ours.daemon_rss / theirs.daemon_rss:.2f}",
            _size(result.goal),
            VERDICTS[result.passed],
        ),
        _row("daemon's PSS", ours.daemon_pss, theirs.daemon_pss),
        ("processes kept for running instances", str(ours.helpers), str(theirs.helpers), "", "", ""),
        _row("their PSS", ours.helpers_pss, theirs.helpers_pss),
    ]


def _row(title: str, ours: int, theirs: int) -> tuple[str, ...]:
    return (title, _size(ours), _size(theirs), f"{ours / theirs:.2f}" if theirs else "", "", "")


def _time(sample: Sample) -> str:
    return f"{_ms(sample.median)} ms ({_ms(sample.p10)}-{_ms(sample.p90)})"


def _sizes(sample: Sample) -> str:
    return f"{_size(round(sample.median))} ({_size(round(sample.p10))}-{_size(round(sample.p90))})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.{1 if seconds < 0.1 else 0}f}"


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def table(results: Results) -> str:
    lines = [HEADER, *rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def machine() -> str:
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def names(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def about(rounds: int, versions: dict[str, str]) -> str:
    """How containers are compared."""
    return f"""\
- Host: a container host of the tests' (systemd-nspawn, Debian 13), with {names(versions)}.
- Both run unprivileged containers of the same Debian and busybox root file systems, on a managed bridge.
- Times are medians of {rounds} rounds, of {min(rounds, FEW_ROUNDS)} for many at once (10th to 90th percentile), both
  rivals in every round, taking turns at being first. Compare ratios of one run only.
- Incus has the storage that `incus admin init --minimal` gives it here, a `dir` pool, which unpacks the image
  at every launch; that pool is a tmpfs, so that Incus needs no disk for it. syscont mounts an overlay, and has
  its state on the disk. `start` is the comparison without unpacking."""


def markdown(results: Results, how: str, loads: str) -> str:
    """how: lines of a list that tell what is compared."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    lines = [line(row) for row in (HEADER, ["---"] * len(HEADER), *rows(results))]
    return f"""# syscont beside Incus

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Do not edit.

- Machine: {machine()}; load average {loads} (its own guests count too).
{how}

{chr(10).join(lines)}
"""
