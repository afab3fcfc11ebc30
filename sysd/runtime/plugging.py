# SPDX-License-Identifier: Apache-2.0
"""Changing the devices of a guest that runs; the work is done by a process of its own (sysd/_cext/launch/plug.c)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sysd.model.errors import FailedError
from sysd.runtime.guest import ContainerGuest
from sysd.runtime.spec import Share

PLUG = "/usr/libexec/syscont/plug"
TIME_LIMIT = 15.0
"""Seconds. A guest's own file systems (FUSE) may make whoever looks up a path in them wait for ever."""


@dataclass(frozen=True, slots=True)
class Change:
    """Links first, then what is removed, then what is added."""

    remove: Sequence[Share] = ()
    add: Sequence[Share] = ()
    links: Sequence[tuple[str, str]] = ()

    @property
    def empty(self) -> bool:
        return not (self.remove or self.add or self.links)


async def plug(guest: ContainerGuest, change: Change) -> None:
    """Make the change. Raises FailedError when it, or the rest of it, could not be made."""
    if change.empty:
        return
    held = {"id_base": guest.confinement.root, "privileged": guest.confinement.privileged}
    task = json.dumps({**asdict(change), **held, "leader": guest.leader})
    pidfd = os.dup(guest.pidfd)  # that of a guest that ends meanwhile is closed
    try:
        await _run(pidfd, task.encode())
    finally:
        os.close(pidfd)


async def _run(pidfd: int, task: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        PLUG,
        str(pidfd),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[pidfd],
    )
    try:
        async with asyncio.timeout(TIME_LIMIT):
            _, stderr = await process.communicate(task)
    except TimeoutError:
        raise FailedError("the guest's own file systems do not answer") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(lines[-1] if lines else "the devices could not be changed")
