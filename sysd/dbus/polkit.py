# SPDX-License-Identifier: Apache-2.0
"""Permission from polkit (org.freedesktop.PolicyKit1.Authority). Root needs none; no polkit means no."""

from __future__ import annotations

import logging
from pathlib import Path

from dbus_next import Variant

from sysd.manager.actions import Action, Caller
from sysd.model.errors import DeniedError
from sysd.units.bus import Bus, BusError

log = logging.getLogger(__name__)

AUTHORITY = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
ALLOW_INTERACTION = 1


class Polkit:
    """The Authority of both doors."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        if caller.uid == 0:
            return
        try:
            subject = _subject(caller)
            (answer,) = await self._bus.call(
                *AUTHORITY,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                subject,
                action.value,
                {key: value for key, value in details.items() if value},
                ALLOW_INTERACTION,
                "",
            )
        except (BusError, OSError) as error:
            log.info("polkit does not answer for %s: %s", action, error)
            answer = (False, False, {})
        if not answer[0]:
            raise DeniedError(f"{action} is not permitted", "polkit decides; ask an administrator or use sudo")


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
