# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor (docs/interop/qmp-spec.rst of QEMU): commands, their answers, and events.

A QEMU that its guest has taken over may say anything: it is held to the limits of its connection and to a pace.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime.pace import Pace
from sysd.runtime.vm.wire import Broken, Lines, Unresponsive, parse
from sysd.units.answers import clean

log = logging.getLogger(__name__)

MAX_LINE = 8 << 20
RATE = 100.0
BURST = 1000
"""Events taken, in a second and at once; the others wait, and with them all that QEMU says."""

OnEvent = Callable[[str, Mapping[str, Any]], None]

__all__ = ["Broken", "Qmp", "QmpError", "Unresponsive"]


class QmpError(FailedError):
    """QEMU's refusal: its kind is QMP's class, mostly GenericError, and description what it says of it."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.kind = kind
        self.description = description


class Qmp:
    """A connection that is ready for commands, which may be given at once. on_close is called when it ends by
    anything but close()."""

    def __init__(self, lines: Lines, on_event: OnEvent, on_close: Callable[[], None]) -> None:
        self._lines = lines
        self._on_event = on_event
        self._on_close = on_close
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any] | Broken]] = {}
        self._sending = asyncio.Lock()
        self._passing = asyncio.Lock()
        self._pace = Pace(RATE, BURST)
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, path: Path, on_event: OnEvent, on_close: Callable[[], None], timeout: float = 5.0) -> Qmp:
        """Connect and negotiate; raises Broken when nobody is there, Unresponsive when nobody answers."""
        try:
            async with asyncio.timeout(timeout):
                lines = await Lines.connect(path, "QEMU", MAX_LINE)
                try:
                    await _greeted(lines)
                except BaseException:
                    lines.close()
                    raise
        except TimeoutError:
            raise Unresponsive("QEMU does not answer", "its monitor may have another client") from None
        self = cls(lines, on_event, on_close)
        try:
            await self.execute("qmp_capabilities", timeout=timeout)
        except BaseException:
            self.close()
            raise
        return self

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Sequence[int] = (),
        timeout: float = 10.0,
    ) -> Any:
        """What QEMU returns. fds go with the command (getfd, add-fd) and stay the caller's."""
        try:
            async with asyncio.timeout(timeout):
                if not fds:
                    return await self._execute(command, arguments, ())
                # QEMU keeps the descriptors that came last until a command asks for them.
                async with self._passing:
                    return await self._execute(command, arguments, fds)
        except TimeoutError:
            raise Unresponsive(f"QEMU does not answer {command}") from None

    async def _execute(self, command: str, arguments: Mapping[str, Any] | None, fds: Sequence[int]) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            message["arguments"] = arguments
        answer: asyncio.Future[dict[str, Any] | Broken] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with self._sending:
                await self._lines.send(message, fds)
            found = await answer
        finally:
            del self._pending[number]
        if isinstance(found, Broken):
            raise found
        if "return" in found:
            return found["return"]
        raise _refusal(command, found["error"])

    def close(self) -> None:
        """Commands under way fail."""
        self._reader.cancel()
        self._end(Broken("the connection to QEMU is closed"))

    def _end(self, error: Broken) -> None:
        self._lines.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_result(error)

    async def _read(self) -> None:
        try:
            while True:
                line = await self._lines.receive()
                try:
                    event = self._take(parse(line))
                except ValueError as error:
                    raise Broken(f"QEMU said what is no QMP: {clean(str(error))}") from None
                if event and (delay := self._pace.step()):
                    await asyncio.sleep(delay)
        except Broken as error:
            log.debug("%s", error)
            self._end(error)
            self._on_close()

    def _take(self, message: dict[str, Any]) -> bool:
        """Whether it was an event. Answers to commands that nobody waits for any more are dropped."""
        match message:
            case {"event": str(name)}:
                data = message.get("data", {})
                self._tell(name, data if isinstance(data, dict) else {})
                return True
            case {"return": _} | {"error": {"class": str(), "desc": str()}}:
                # Not an id of another type: True is 1 here, and a list can't be looked up.
                number = message.get("id")
                answer = self._pending.get(number) if type(number) is int else None
                if answer and not answer.done():
                    answer.set_result(message)
                return False
        raise ValueError("neither an answer nor an event")

    def _tell(self, name: str, data: dict[str, Any]) -> None:
        try:
            self._on_event(name, data)
        except Exception:  # the next one is to be heard, too
            log.exception("QEMU's event %s", clean(name))


def _refusal(command: str, error: dict[str, str]) -> QmpError:
    return QmpError(command, clean(error["class"]), clean(error["desc"]))


async def _greeted(lines: Lines) -> None:
    try:
        greeting = parse(await lines.receive())
    except ValueError:
        greeting = {}
    if "QMP" not in greeting:
        raise Broken("what listens there is not QEMU's monitor")
