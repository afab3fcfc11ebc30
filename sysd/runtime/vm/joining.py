# SPDX-License-Identifier: Apache-2.0
"""Connections of a machine's QEMU, which has no network, to another host's: QEMU makes or takes them at a socket in a
folder that it was handed, and a program of ours joins each with one that the daemon has made or taken
(sysd/_cext/join.c). What goes through is QEMU's own TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sysd.model.errors import FailedError
from sysd.runtime.vm.background import Background

JOIN = Path("/usr/libexec/syscont/join")
DISK, MEMORY = "disk", "memory"
"""Of sockets, in the folder."""
GRACE = 30.0
"""Seconds."""
_BACKLOG = 65

Join = Callable[[socket.socket, socket.socket], Awaitable[None]]
"""Takes over both, and returns at once."""
Open = Callable[[], Awaitable[socket.socket]]
"""Makes the next connection, which does not block, and is the caller's to close."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder's descriptor, and the user that QEMU runs as, whose it is."""

    folder: int
    owner: int


def where(folder: int, name: str) -> str:
    """A socket's path for who has that descriptor."""
    return f"/proc/self/fd/{folder}/{name}"


@asynccontextmanager
async def joining() -> AsyncIterator[Join]:
    """What is joined in the block ends when both of its ends have: with what each says at last, without which QEMU
    takes the other for broken. Where the block fails it ends at once, and in any case GRACE after the block. Leaving
    takes no time, as guests stand still."""
    joined: list[asyncio.subprocess.Process] = []

    async def join(one: socket.socket, other: socket.socket) -> None:
        with one, other:
            fds = [one.fileno(), other.fileno()]
            try:
                joined.append(await asyncio.create_subprocess_exec(str(JOIN), *map(str, fds), pass_fds=fds))
            except OSError as error:
                raise FailedError(f"{JOIN} can't be run: {error.strerror}") from None

    grace = 0.0
    try:
        yield join
        grace = GRACE
    finally:
        for process in joined:
            Background().run(_end(process, grace))


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


# QEMU calls


@asynccontextmanager
async def outward(place: Place, dial: Open, most: int) -> AsyncIterator[None]:
    """For the block, QEMU gets by its socket to who dial connects to, so many times at most. A connection that can't be
    had ends for QEMU as it would by the network; the block then fails with what dial says."""
    with listen(place, MEMORY) as listening:
        async with joining() as join:
            passing = asyncio.create_task(_pass_on(listening, dial, join, most))
            try:
                yield
            except FailedError as error:
                raise _cause(passing) or error from None
            finally:
                passing.cancel()
                await asyncio.wait([passing])


async def _pass_on(listening: socket.socket, dial: Open, join: Join, most: int) -> None:
    with listening:  # who still waits there when this ends is told
        for _ in range(most):
            ours, _address = await asyncio.get_running_loop().sock_accept(listening)
            try:
                theirs = await dial()
            except BaseException:
                ours.close()
                raise
            await join(ours, theirs)


def _cause(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def listen(place: Place, name: str) -> socket.socket:
    """At a socket for QEMU alone, in whose folder others of this name may come and go. Raises FailedError."""
    with _attempt(f"QEMU can't be given a way for its {name}") as listening:
        os.fchmod(listening.fileno(), 0o600)  # what is bound has this mode from the beginning
        listening.bind(where(place.folder, name))
        os.chown(name, place.owner, place.owner, dir_fd=place.folder, follow_symlinks=False)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    return listening


@contextmanager
def _attempt(failure: str) -> Iterator[socket.socket]:
    """A socket that is closed when the block fails."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        yield sock
    except OSError as error:
        sock.close()
        raise FailedError(f"{failure}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise


# QEMU is called


def reach(place: Place, name: str) -> socket.socket:
    """A connection to QEMU's socket. What has this name in QEMU's folder may be anything. Raises FailedError."""
    with _attempt(f"QEMU does not take the {name}") as sock:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise FailedError(f"QEMU does not wait for the {name}")
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    return sock
