# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of a worker: started, listened to, and ended in any case."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sysd.model.errors import FailedError, NotRunningError
from sysd.model.files import FileRequest
from sysd.runtime import inside
from sysd.units import answers
from sysd.units.answers import Progress, text
from sysd.units.helper import MAX_LINE, see_through

WORKER = "/usr/libexec/syscont/files"
CAME = "came"
"""What a worker says when all has come that it is to write, and it waits for a byte: then that is not to be given up
any more, whatever becomes of us."""
GRACE = 2.0
"""Seconds that a worker has to tidy up; a guest's own file system (FUSE) may hold it for ever."""
MAX_FIELDS = 16

Report = Callable[[str, int, int], None]


async def work(
    way: inside.Way, request: FileRequest, data: int, kept: Iterable[int], ended: asyncio.Future[None], report: Report
) -> dict[str, str]:
    """Have a worker do request in an instance's tree, and return its results.

    data is the descriptor that the work reads or writes, -1 for none. kept are descriptors that the worker inherits
    and holds: those that way names, and locks. ended is done when the instance ends, and so does the worker.
    """
    consent, consents = os.pipe()
    message = json.dumps({"way": inside.to_message(way), "request": asdict(request), "consent": consent})
    try:
        process = await asyncio.create_subprocess_exec(
            WORKER,
            message,
            stdin=data if data >= 0 else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(*kept, consent),
            limit=MAX_LINE,
            env={},
        )
    except BaseException:
        os.close(consents)
        raise
    finally:
        os.close(consent)

    def told(stage: str, done: int, total: int) -> None:
        if stage == CAME:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                os.write(consents, b"1")
        else:
            report(stage, done, total)

    listening = asyncio.ensure_future(_result(process, told))
    try:
        either: set[asyncio.Future[Any]] = {listening, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            return listening.result()
        raise NotRunningError("the instance ended meanwhile")
    finally:
        os.close(consents)
        asked = listening.done()
        listening.cancel()
        await see_through(_end(process, leave=asked))


async def _result(process: asyncio.subprocess.Process, report: Report) -> dict[str, str]:
    async for line in _lines(process):
        match answers.parse(line, _fields, "the files'"):
            case Progress(stage, done, total):
                report(stage, done, total)
            case dict() as result:
                return result
            case error:
                raise error
    raise FailedError("the work on the instance's files ended early", "the journal of syscontd.service says more")


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise FailedError(f"the files' worker wrote a line of more than {MAX_LINE >> 10} KiB") from None
        if not line:
            return
        yield line.decode(errors="replace")


def _fields(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or len(found) > MAX_FIELDS:
        raise TypeError("the result is not a small object")
    fields = {text(key, answers.MAX_STAGE): text(value, answers.MAX_STAGE) for key, value in found.items()}
    return {answers.clean(key): answers.clean(value) for key, value in fields.items()}


async def _end(process: asyncio.subprocess.Process, *, leave: bool) -> None:
    """See it gone: by itself when it is about to leave, else as it is told to."""
    steps = [process.terminate, process.kill]
    for step in [_nothing, *steps] if leave else steps:
        with contextlib.suppress(ProcessLookupError):
            step()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
                return


def _nothing() -> None:
    return


@contextlib.contextmanager
def watching(pidfd: int) -> Iterator[asyncio.Future[None]]:
    """A future that is done when the process of a pidfd has ended; of none, one that is never done."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        loop.remove_reader(pidfd)
        ended.set_result(None)

    if pidfd >= 0:
        loop.add_reader(pidfd, end)
    try:
        yield ended
    finally:
        if pidfd >= 0:
            loop.remove_reader(pidfd)
