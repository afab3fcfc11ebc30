# SPDX-License-Identifier: Apache-2.0
"""Files in a running virtual machine: requests done by a program of the guest's shell (guest_files), in a session.

The data go by the session's own streams, and the daemon copies none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable

from sysd.model.errors import ERRORS, FailedError, SyscontError
from sysd.model.files import Action, FileRequest
from sysd.runtime.execute import Command
from sysd.runtime.session import Session
from sysd.runtime.vm import guest_files, streams
from sysd.runtime.vm.background import Background
from sysd.units.answers import clean

MAX_SAID = 1 << 16
MAX_FIELDS = 16
INTERVAL = 0.2
"""Seconds between looks at how far it is."""
_SHOWN = ("mode", "uid", "gid", "size")

Start = Callable[[Command], Awaitable[Session]]
Report = Callable[[str, int, int], None]


async def work(start: Start, request: FileRequest, data: int, report: Report) -> dict[str, str]:
    """Do request in the guest in which start runs commands, and return its results. data is the descriptor that the
    work reads or writes, -1 for none."""
    size = _expected(request, data) if request.action is Action.PUSH else None
    async with _reporting(request.action, data, report) as count:
        result = await _run(start, guest_files.words(request, size), request, data)
    if request.action is Action.PUSH and size is None:
        await _commit(start, request, result)
    result.setdefault("size", str(count()))
    shown = {key: clean(result[key]) for key in _SHOWN if key in result}
    if "mode" in shown:
        shown["mode"] = shown["mode"].zfill(4)
    if request.action is Action.PULL_TREE:
        shown["skipped"] = "0"
    return shown if data >= 0 else {}


async def _commit(start: Start, request: FileRequest, result: dict[str, str]) -> None:
    """Have a draft take its place. Its writer can't tell the end of a pipe from that of the connection, which has
    been a good one if we are here."""
    draft, place = result.get("draft", ""), result.get("place", "")
    try:
        await _run(start, guest_files.commit(draft, place), request, -1)
    except BaseException:
        Background().run(_discard(start, request, draft))
        raise


async def _discard(start: Start, request: FileRequest, draft: str) -> None:
    await _run(start, guest_files.discard(draft), request, -1)


async def _run(start: Start, words: list[str], request: FileRequest, data: int) -> dict[str, str]:
    said, says = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(says, True)
        reads, writes = (data, -1) if guest_files.is_reading(request.action) else (-1, data)
        session = await start(Command(words, stdio=(reads, writes, says)))
    except BaseException:
        os.close(said)
        raise
    finally:
        os.close(says)
    listening = asyncio.ensure_future(streams.read_tail(said, MAX_SAID))
    try:
        status = await session.wait(otherwise=signal.SIGTERM)
        return _result(status, (await listening).decode(errors="replace"), request)
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([listening])
        os.close(said)


def _result(status: int, said: str, request: FileRequest) -> dict[str, str]:
    """What the guest's shell said of it, which may be anything."""
    before, mark, record = said.rpartition(guest_files.RECORD)
    if mark:
        first, *fields = record.split(guest_files.FIELD)
        if first == guest_files.RESULT and status == 0 and len(fields) % 2 == 0 and len(fields) <= MAX_FIELDS:
            return dict(zip(fields[::2], fields[1::2], strict=True))
        if status and first in ERRORS and len(fields) == 2:
            raise ERRORS[first](clean(fields[0]), clean(fields[1]))
    raise _unexplained(said if not mark else before, request)


def _unexplained(said: str, request: FileRequest) -> SyscontError:
    lines = [line for line in said.splitlines() if line.strip()]
    return FailedError(f"{request.path}: {clean(lines[-1]) if lines else 'the work on it ended early'}")


def _left(data: int) -> int | None:
    """How much a file has to give, from where it is."""
    info = os.fstat(data)
    if not stat.S_ISREG(info.st_mode):
        return None
    return max(0, info.st_size - os.lseek(data, 0, os.SEEK_CUR))


def _expected(request: FileRequest, data: int) -> int | None:
    """How much is to come, if that is known."""
    left = _left(data)
    return request.size if left is None and request.size >= 0 else left


@contextlib.asynccontextmanager
async def _reporting(action: Action, data: int, report: Report) -> AsyncIterator[Callable[[], int]]:
    """How many bytes have come or gone. The place in a file is the same for all who have the descriptor."""
    total = _left(data) if data >= 0 else None
    begun = os.lseek(data, 0, os.SEEK_CUR) if total is not None else 0

    def count() -> int:
        return max(0, os.lseek(data, 0, os.SEEK_CUR) - begun) if total is not None else 0

    async def look() -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            report(action.value, count(), (total or 0) if guest_files.is_reading(action) else 0)

    looking = asyncio.ensure_future(look())
    try:
        yield count
    finally:
        looking.cancel()
