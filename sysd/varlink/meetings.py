# SPDX-License-Identifier: Apache-2.0
"""Hosts that meet, on varlink."""

from __future__ import annotations

from sysd.manager.lines import STREAMS
from sysd.manager.meetings import Meetings
from sysd.manager.settlements import Settlements
from sysd.model.errors import InvalidError
from sysd.varlink.service import Call, Method


class MeetingMethods:
    def __init__(self, meetings: Meetings, settlements: Settlements) -> None:
        self._meetings = meetings
        self._settlements = settlements

    def table(self) -> list[Method]:
        """What another host that is awaited may call. It needs no action: who has not its certificate, and the secret
        or the move's name, is told nothing."""
        return [Method("Meet", self.meet), Method("Settle", self.settle)]

    async def settle(self, call: Call) -> None:
        peer, known_as = call.caller.certificate, call.text("id")
        call.reply({"decided": await self._settlements.asked(peer, known_as, decided=call.flag("decided"))})

    async def meet(self, call: Call) -> None:
        if len(call.fds) != len(STREAMS):
            raise InvalidError("a meeting has other streams", f"streams: {', '.join(STREAMS)}")
        line = self._meetings.meet(call.caller.certificate, call.text("secret"), call.fds)
        call.fds = []
        await self._meetings.stay(line)
        call.reply({})
