# SPDX-License-Identifier: Apache-2.0
"""Reads the consoles of guests while the daemon is stopped: what they write goes to the journal, and nobody waits
because a terminal is full. Started by sysd.runtime.draining, which sends the consoles to standard input."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

from sysd.runtime.console import Console
from sysd.units.journal import UnitJournal

CONSOLES_EACH = 200
"""In a message: fewer than the kernel takes (SCM_MAX_FD)."""
MAX_MESSAGE = 1 << 20


def main() -> None:
    asyncio.run(_drain(socket.socket(fileno=0)))


async def _drain(sock: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    consoles = _received(sock)
    await stop.wait()
    for console in consoles:
        console.leave()


def _received(sock: socket.socket) -> list[Console]:
    consoles: list[Console] = []
    while True:
        data, fds, _, _ = socket.recv_fds(sock, MAX_MESSAGE, CONSOLES_EACH)
        if not data:
            return consoles
        for (unit, name, leader), fd in zip(json.loads(data), fds, strict=True):
            consoles.append(Console(fd, UnitJournal(unit, name, leader)))


if __name__ == "__main__":
    main()
