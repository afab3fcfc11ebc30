# SPDX-License-Identifier: Apache-2.0
"""systemd-machined, where it is installed: org.freedesktop.machine1(5)."""

from __future__ import annotations

import contextlib
import logging
import uuid

from sysd.units.bus import Bus, BusError

log = logging.getLogger(__name__)

MACHINED = ("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager")


class Machined:
    """Registration never decides over an instance: without machined everything but machinectl works."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def register(self, name: str, machine_id: str, leader: int, kind: str) -> None:
        body = (
            name,
            uuid.UUID(machine_id).bytes,
            "syscont",
            kind,
            leader,
            "",
        )
        try:
            await self._bus.call(*MACHINED, "RegisterMachine", "sayssus", *body)
        except BusError as error:
            if not error.name.endswith(("ServiceUnknown", "MachineExists")):
                log.warning("machined does not register %s: %s", name, error)

    async def unregister(self, name: str) -> None:
        with contextlib.suppress(BusError):  # it may have seen the leader end before we did
            await self._bus.call(*MACHINED, "UnregisterMachine", "s", name)
