# SPDX-License-Identifier: Apache-2.0
"""Holding those back who ask too much."""

from __future__ import annotations

import time


class Pace:
    """rate things in a second; burst of them at once are all right."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._ahead = burst * self._interval
        self._due = 0.0

    def step(self) -> float:
        """Count one more; returns how many seconds it has to wait."""
        now = time.monotonic()
        self._due = max(self._due, now - self._ahead) + self._interval
        return max(0.0, self._due - now)

    @property
    def wait(self) -> float:
        """How many seconds one more would have to wait, if it were counted."""
        now = time.monotonic()
        return max(0.0, max(self._due, now - self._ahead) + self._interval - now)
