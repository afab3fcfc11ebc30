# SPDX-License-Identifier: Apache-2.0
"""Measuring two rivals side by side: interleaved rounds, medians, and how far the rounds lie apart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from hosts import Host, HostError

WARM_UP = 2
"""Rounds before those that count: caches are warm on both sides then."""


class Stopwatch:
    """Times commands in a host by a small program that runs there."""

    def __init__(self, host: Host) -> None:
        host.push(Path(__file__).with_name("stopwatch.py"), "/run/stopwatch.py")
        self._process = host.spawn(["python3", "-IS", "/run/stopwatch.py"], stdin=subprocess.PIPE, stderr=None)

    def seconds(self, *argv: str) -> float:
        """How long a command takes that must succeed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps(argv) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise HostError("the stopwatch has stopped")
        seconds, status, said = json.loads(line)
        if status:
            raise HostError(f"{' '.join(argv)} ended with {status}: {said.strip()}")
        return float(seconds)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


@dataclass(frozen=True)
class Sample:
    """What one rival needed, in the order of the rounds."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def p10(self) -> float:
        return self._decile(0)

    @property
    def p90(self) -> float:
        return self._decile(-1)

    def _decile(self, index: int) -> float:
        return quantiles(self.values, n=10, method="inclusive")[index] if len(self.values) > 1 else self.values[0]


def interleaved(rounds: int, ours: Callable[[int], float], theirs: Callable[[int], float]) -> tuple[Sample, Sample]:
    """Both rivals in each round, taking turns at being first (ABBA), so that noise falls on both alike."""
    found: tuple[list[float], list[float]] = ([], [])
    rivals = (ours, theirs)
    for number in range(WARM_UP + rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            value = rivals[which](number)
            if number >= WARM_UP:
                found[which].append(value)
    return Sample(found[0]), Sample(found[1])
