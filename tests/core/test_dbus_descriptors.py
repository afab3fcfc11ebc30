# SPDX-License-Identifier: Apache-2.0
"""No descriptor of a D-Bus call or reply stays open, whatever becomes of the call."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from dbus_next import Message, MessageFlag, MessageType

from sysd.dbus.interface import Call, Interface, Method
from sysd.dbus.service import MAX_CALLS_EACH, ROOT, Service
from sysd.manager.actions import Action, Caller
from sysd.manager.images import Images
from sysd.manager.uploads import Upload
from sysd.model.errors import BusyError, InvalidError, SyscontError
from sysd.units.bus import Bus

NAME = "org.syscont.Test"


class Permit:
    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        return None


async def _give(_: str, call: Call) -> list[Any]:
    call.reply_fds = [os.open("/dev/null", os.O_RDONLY)]
    return [0]


async def _refuse(_: str, call: Call) -> list[Any]:
    call.take_fd(0)
    raise InvalidError("no")


async def _keep(_: str, call: Call) -> list[Any]:
    kept = call.take_fd(0)
    call.hand_over()
    os.close(kept)
    return []


async def _wait(_: str, call: Call) -> list[Any]:
    await asyncio.sleep(0.01)
    return []


METHODS = [
    Method("Give", [], [("h", "stream")], _give),
    Method("Refuse", [], [], _refuse),
    Method("Keep", [], [], _keep),
    Method("Wait", [], [], _wait),
]


class Wire:
    """Stands for dbus-next's bus: what is sent is written in the next turn of the loop."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.handlers: list[Any] = []

    def add_message_handler(self, handler: Any) -> None:
        self.handlers.append(handler)

    def send(self, message: Message) -> asyncio.Future[None]:
        self.sent.append(message)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(written.set_result, None)
        return written

    async def call(self, message: Message) -> Message:
        return Message(message_type=MessageType.METHOD_RETURN, reply_serial=1, signature="u", body=[0])


def incoming(member: str, interface: str = NAME, flags: MessageFlag = MessageFlag.NONE) -> Message:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    message = Message(path=ROOT, interface=interface, member=member, flags=flags, serial=1, unix_fds=fds)
    message.sender = ":1.1"
    return message


def leaks(*messages: tuple[str, str, MessageFlag], times: int = 1) -> int:
    async def run() -> int:
        wire: Any = Wire()
        Service(Bus(wire), Interface(NAME, METHODS), [], Permit())
        gc.collect()  # what other tests have left
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(times):
            for message in messages:
                wire.handlers[0](incoming(*message))
        for _ in range(100):  # a busy machine needs its time
            await asyncio.sleep(0.1)
            if (left := len(os.listdir("/proc/self/fd")) - before) == 0:
                break
        return left

    return asyncio.run(run())


@pytest.mark.parametrize("member", ["Give", "Refuse", "Keep", "Wait", "Unknown"])
@pytest.mark.parametrize("flags", [MessageFlag.NONE, MessageFlag.NO_REPLY_EXPECTED])
def test_calls(member: str, flags: MessageFlag) -> None:
    assert leaks((member, NAME, flags)) == 0


def test_calls_that_the_library_answers() -> None:
    assert leaks(("Ping", "org.freedesktop.DBus.Peer", MessageFlag.NONE), times=10) == 0


def test_too_many_calls() -> None:
    assert leaks(("Wait", NAME, MessageFlag.NONE), times=MAX_CALLS_EACH + 20) == 0


@pytest.mark.parametrize(("aliases", "error"), [(["x"], BusyError), (["-x"], InvalidError)])
def test_an_import_that_does_not_begin_is_closed(tmp_path: Path, aliases: list[str], error: type[SyscontError]) -> None:
    operations = MagicMock()
    operations.begin.side_effect = BusyError("no")
    store = MagicMock()
    store.images.return_value, store.aliases.return_value = [], {}
    images = Images(store, MagicMock(), operations, MagicMock(), tmp_path, lambda _: [], dict)
    (tmp_path / "image").touch()
    upload = Upload(os.open(tmp_path / "image", os.O_RDONLY))
    with pytest.raises(error):
        images.import_image(upload, aliases, 0)
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(upload.unified)
