# SPDX-License-Identifier: Apache-2.0
"""A command under way in an instance of whichever kind."""

from __future__ import annotations

import signal
from typing import Protocol


class Session(Protocol):
    """Whoever made one waits for it, or abandons it."""

    terminal: int
    """Its terminal's controlling side, which whoever takes it closes; -1 for none."""

    async def wait(self, otherwise: int = signal.SIGHUP) -> int:
        """Its exit status, 128 plus the number of a signal that ended it. Cancelled, it gets the signal otherwise."""

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""

    def abandon(self, number: int) -> None:
        """Send it a signal; no one asks for its status."""
