# SPDX-License-Identifier: Apache-2.0
"""What a machine writes is soon on its disk, so that nobody has to wait for much of it when the machine stands still:
QEMU flushes then (vm_stop), and a disk that was just copied is in the host's memory for the most part."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_PERIOD = 0.5
"""Seconds."""


@asynccontextmanager
async def kept_flushed(path: Path) -> AsyncIterator[None]:
    """The file is flushed before the block begins, and again and again until it ends."""
    await asyncio.to_thread(_flush, path)
    flushing = asyncio.create_task(_flush_on(path))
    try:
        yield
    finally:
        flushing.cancel()  # nobody waits for the thread


async def _flush_on(path: Path) -> None:
    while True:
        await asyncio.sleep(_PERIOD)
        await asyncio.to_thread(_flush, path)


def _flush(path: Path) -> None:
    """fdatasync(2). An error is QEMU's to find: it comes to each who has the file open."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
