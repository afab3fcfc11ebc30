# SPDX-License-Identifier: Apache-2.0
"""Work that nobody waits for, one piece after the other, held until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from sysd.model.errors import SyscontError

log = logging.getLogger(__name__)

_running: set[asyncio.Task[None]] = set()


class Background:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def run(self, work: Awaitable[None]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(work))
        _running.add(task)
        task.add_done_callback(_running.discard)

    async def _run(self, work: Awaitable[None]) -> None:
        async with self._lock:
            try:
                await work
            except SyscontError as error:
                log.info("%s", error.text)
