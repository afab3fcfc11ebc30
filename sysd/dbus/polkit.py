# SPDX-License-Identifier: Apache-2.0
"""Permission from polkit (org.freedesktop.PolicyKit1.Authority). Root needs none; no polkit means no."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path

from dbus_next import Message, MessageFlag, Variant

from sysd.manager.actions import NOBODY, Action, Caller
from sysd.model.errors import DeniedError
from sysd.units.bus import Bus, BusError

log = logging.getLogger(__name__)

AUTHORITY = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
ALLOW_INTERACTION = 1
PATIENCE = 120.0
"""Seconds for an answer: somebody may be asked for a password."""


class Polkit:
    """The Authority of both doors."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._numbers = itertools.count(1)

    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        if caller.is_root:
            return
        if caller.uid == NOBODY:
            raise DeniedError(f"{action} is not permitted")
        # The bus hangs up on who sends it a NUL.
        said = {key: value.replace("\0", "") for key, value in details.items() if value}
        try:
            permitted = await self._ask(_subject(caller), action, said)
        except (BusError, OSError) as error:
            log.info("polkit does not answer for %s: %s", action, str(error) or "it takes too long")
            permitted = False
        if not permitted:
            raise DeniedError(f"{action} is not permitted", "polkit decides; ask an administrator or use sudo")

    async def _ask(self, subject: list[object], action: Action, details: dict[str, str]) -> bool:
        cancellation = f"syscont-{next(self._numbers)}"
        question = (subject, action.value, details, ALLOW_INTERACTION, cancellation)
        try:
            async with asyncio.timeout(PATIENCE):
                signature = "(sa{sv})sa{ss}us"
                (answer,) = await self._bus.call_people(*AUTHORITY, "CheckAuthorization", signature, *question)
        except (TimeoutError, asyncio.CancelledError):
            self._cancel(cancellation)
            raise
        return bool(answer[0])

    def _cancel(self, cancellation: str) -> None:
        """Nobody waits for the answer any more, so nobody is to be asked."""
        destination, path, interface = AUTHORITY
        self._bus.send(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member="CancelCheckAuthorization",
                signature="s",
                body=[cancellation],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )


def _subject(caller: Caller) -> list[object]:
    if caller.bus_name:
        return ["system-bus-name", {"name": Variant("s", caller.bus_name)}]
    return [
        "unix-process",
        {
            "pid": Variant("u", caller.pid),
            "start-time": Variant("t", _start_time(caller.pid)),
            "uid": Variant("i", caller.uid),
        },
    ]


def _start_time(pid: int) -> int:
    """Field 22 of proc_pid_stat(5): with it polkit can tell a process from a later one with the same PID."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
