# SPDX-License-Identifier: Apache-2.0
"""Little data from and to descriptors of others, which may be slow, and whose flags are theirs."""

from __future__ import annotations

import asyncio
import os
import select
import stat

from sysd.model.errors import CancelledError, InvalidError


async def read_all(fd: int, limit: int, hint: str) -> bytes:
    """What comes from fd until its end; raises InvalidError for more than limit."""
    data = bytearray()
    while True:
        await _ready(fd, to_read=True)
        try:
            chunk = os.read(fd, min(1 << 16, limit + 1 - len(data)))
        except BlockingIOError:
            continue
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > limit:
            raise InvalidError(f"the command's input is longer than {limit >> 10} KiB", hint)


async def read_tail(fd: int, limit: int) -> bytes:
    """The end of what comes from fd."""
    data = b""
    while True:
        await _ready(fd, to_read=True)
        try:
            chunk = os.read(fd, limit)
        except BlockingIOError:
            continue
        if not chunk:
            return data
        data = (data + chunk)[-limit:]


async def write_all(fd: int, data: bytes) -> None:
    """No more at once than a pipe that has room for anything has room for."""
    left = memoryview(data)
    while left:
        await _ready(fd, to_read=False)
        try:
            left = left[os.write(fd, left[: select.PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise CancelledError("nobody reads what the command wrote") from None


async def _ready(fd: int, *, to_read: bool) -> None:
    """Files always are, and the loop can't watch them."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        await asyncio.sleep(0)
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    own = os.dup(fd)  # the same one may be read and written, or by two at once
    try:
        (loop.add_reader if to_read else loop.add_writer)(own, _set, ready)
    except PermissionError:  # /dev/null
        os.close(own)
        return
    try:
        await ready
    finally:
        (loop.remove_reader if to_read else loop.remove_writer)(own)
        os.close(own)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
