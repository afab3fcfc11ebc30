# SPDX-License-Identifier: Apache-2.0
"""Calls over the bus take turns, so that the bus daemon's limit on pending replies is never met."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from dbus_next import Message, MessageType

from sysd.units.bus import AT_ONCE, Bus, BusError, PatientBus


class SlowBus:
    """Answers after a while, and counts who waits; an error for what is called Bad."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0

    def add_message_handler(self, handler: object) -> None:
        pass

    async def call(self, message: Message) -> Message:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.001)
        self.waiting -= 1
        if message.member == "Bad":
            return Message.new_error(_numbered(message), "org.example.Bad", "no")
        return Message(message_type=MessageType.METHOD_RETURN, reply_serial=1, body=[message.member])


def _numbered(message: Message) -> Message:
    message.serial = 1
    message.sender = ":1.1"
    return message


def run(calls: int, method: str, member: str = "Good") -> tuple[SlowBus, list[Any]]:
    slow = SlowBus()

    async def main() -> list[Any]:
        bus = Bus(cast(PatientBus, slow))
        call = getattr(bus, method)
        return await asyncio.gather(
            *(call("org.example", "/", "org.example", member, "") for _ in range(calls)), return_exceptions=True
        )

    return slow, asyncio.run(main())


def test_calls_of_one_service_take_turns() -> None:
    slow, answers = run(3 * AT_ONCE, "call")
    assert answers == [["Good"]] * (3 * AT_ONCE)
    assert slow.most == AT_ONCE


def test_an_error_gives_its_turn_back() -> None:
    slow, answers = run(3 * AT_ONCE, "call", "Bad")
    assert all(isinstance(answer, BusError) for answer in answers)
    assert (slow.most, slow.waiting) == (AT_ONCE, 0)


@pytest.mark.parametrize("calls", [AT_ONCE + 10])
def test_who_waits_for_people_is_in_nobodys_way(calls: int) -> None:
    slow, _ = run(calls, "call_people")
    assert slow.most == calls
