# SPDX-License-Identifier: Apache-2.0
"""What is asked of polkit, and that nobody waits for it for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dbus_next import Message

from sysd.dbus import polkit
from sysd.manager.actions import Action, Caller
from sysd.model.errors import DeniedError

ALICE = Caller(1000, bus_name=":1.5")


class Answers:
    """A bus with polkit on it, who answers after a while."""

    def __init__(self, after: float = 0, answer: bool = True) -> None:
        self.after = after
        self.answer = answer
        self.asked: list[Any] = []
        self.sent: list[Message] = []

    async def call_people(self, *question: Any) -> list[Any]:
        self.asked.append(question)
        await asyncio.sleep(self.after)
        return [[self.answer, False, {}]]

    def send(self, message: Message) -> None:
        self.sent.append(message)


async def check(bus: Any, name: str = "c1") -> None:
    await polkit.Polkit(bus).check(ALICE, Action.EXECUTE, {"instance": name, "empty": ""})


def test_answers() -> None:
    asyncio.run(check(Answers()))
    with pytest.raises(DeniedError):
        asyncio.run(check(Answers(answer=False)))


def test_details_hold_no_nul() -> None:
    bus = Answers()
    asyncio.run(check(bus, "a\0b"))
    assert bus.asked[0][7] == {"instance": "ab"}


def test_a_polkit_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polkit, "PATIENCE", 0.01)
    bus = Answers(after=60)
    with pytest.raises(DeniedError):
        asyncio.run(check(bus))
    (cancel,) = bus.sent
    assert cancel.member == "CancelCheckAuthorization"
    assert cancel.body == [bus.asked[0][9]]


def test_a_caller_that_goes_is_not_asked_about() -> None:
    bus = Answers(after=60)

    async def run() -> None:
        task = asyncio.create_task(check(bus))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert [message.member for message in bus.sent] == ["CancelCheckAuthorization"]
