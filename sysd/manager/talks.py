# SPDX-License-Identifier: Apache-2.0
"""What two hosts say to each other on a line: one JSON object a line, which says what it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from sysd.manager.lines import LOST, Line, error_of
from sysd.model.errors import CancelledError, FailedError, SyscontError, failed

T = TypeVar("T")

MOST = 1 << 20
"""Bytes of what is said at once."""
MOST_UNHEARD = 8
SAY, ERROR = "say", "error"
_STRANGE = "the other host says what is not understood here"


class Talk:
    """trouble is set when the other side gives up, to why, or when the line is lost."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.trouble: asyncio.Future[SyscontError] = asyncio.get_running_loop().create_future()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        line.lost.add_done_callback(self._lost)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MOST)
        hear, say = os.fdopen(self.line.hear, "rb", buffering=0), os.fdopen(self.line.say, "wb", buffering=0)
        self.line.hear = self.line.say = -1
        self._source, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), hear)
        self._target, _ = await loop.connect_write_pipe(asyncio.Protocol, say)
        self._listening = asyncio.create_task(self._listen(reader))

    def close(self) -> None:
        """What was said is still written."""
        self._listening.cancel()
        self._source.close()
        self._target.close()

    def say(self, what: str, **more: Any) -> None:
        self._target.write(json.dumps({SAY: what, **more}).encode() + b"\n")

    async def hear(self, what: str) -> dict[str, Any]:
        """What is said next, which has to be just this. Raises SyscontError."""
        if self._heard.empty():
            getting = asyncio.ensure_future(self._heard.get())
            await self._first(getting)
            if not getting.done():
                getting.cancel()
                raise self.trouble.result()
            said = getting.result()
        else:
            said = self._heard.get_nowait()
        if said[SAY] != what:
            raise FailedError(_STRANGE, f"{what!r} was to come, and {said[SAY][:40]!r} came")
        return said

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work unless the other side gives up or is lost meanwhile, which is raised then. When it is this side that
        fails the other one is told why."""
        task = asyncio.ensure_future(work)
        try:
            await self._first(task)
            if not task.done():
                await _end(task)
            if task.cancelled():
                raise self.trouble.result()
            return task.result()
        except asyncio.CancelledError:
            # First: what comes of it by itself, such as half an archive, is not to be taken for the cause.
            self._tell(CancelledError("it was cancelled on the other host"))
            await _end(task)
            raise
        except SyscontError as error:
            self._tell(error)
            # What goes wrong here because the other one has gone is no news.
            raise (self.trouble.result() if self.trouble.done() else error) from None
        except Exception as error:
            self._tell(failed("it failed on the other host", error))
            raise

    async def _first(self, work: asyncio.Future[Any]) -> None:
        """Until it has ended, or there is trouble."""
        either: set[asyncio.Future[Any]] = {work, self.trouble}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def _tell(self, error: SyscontError) -> None:
        if not self.trouble.done():
            self.say(ERROR, code=error.code, message=error.message, hint=error.hint)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                said = json.loads(line)
                if not isinstance(said, dict) or not isinstance(said.get(SAY), str):
                    raise ValueError
                if said[SAY] == ERROR:
                    self._give_up(error_of(str(said.get("code")), said))
                    return
                if self._heard.qsize() >= MOST_UNHEARD:
                    raise ValueError
                self._heard.put_nowait(said)
        except (ValueError, RecursionError):
            self._give_up(FailedError(_STRANGE))
        except OSError:
            pass
        self._give_up(FailedError(LOST))

    def _lost(self, lost: asyncio.Future[SyscontError]) -> None:
        self._give_up(lost.result())

    def _give_up(self, why: SyscontError) -> None:
        if not self.trouble.done():
            self.trouble.set_result(why)


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


@contextlib.asynccontextmanager
async def talking(line: Line) -> AsyncIterator[Talk]:
    """On a line."""
    talk = Talk(line)
    await talk.open()
    try:
        yield talk
    finally:
        talk.close()
