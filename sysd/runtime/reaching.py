# SPDX-License-Identifier: Apache-2.0
"""Programs of ours that do something in the namespaces of a guest that runs, which they know by its pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

from sysd.model.errors import FailedError

LIMIT = 15.0
"""Seconds. What a guest or hardware has a hand in may never come."""


async def run(argv: Sequence[str], pidfd: int, task: bytes | int, *, late: str, failed: str) -> None:
    """Run argv, with the number of a pidfd of its own at the end; task is its standard input, or a descriptor of that.

    Raises FailedError with the last line that it said: late when it does not end in time, failed when it says nothing.
    """
    own = os.dup(pidfd)  # that of a guest that ends meanwhile is closed
    try:
        await _run([*argv, str(own)], own, task, late, failed)
    finally:
        os.close(own)


async def _run(argv: list[str], pidfd: int, task: bytes | int, late: str, failed: str) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe if isinstance(task, bytes) else task, stderr=pipe, pass_fds=[pidfd]
    )
    try:
        async with asyncio.timeout(LIMIT):
            _, stderr = await process.communicate(task if isinstance(task, bytes) else None)
    except TimeoutError:
        raise FailedError(late) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(lines[-1] if lines else failed)
