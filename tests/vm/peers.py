# SPDX-License-Identifier: Apache-2.0
"""Others at the end of a unix socket: well-behaved, hostile, and the real programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sysd.runtime.vm import agent

Serve = Callable[[Reader, Writer], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(path: Path, serve: Serve) -> AsyncIterator[Path]:
    """A server for each connection to path; connections that it leaves open are closed at the end."""
    tasks: list[asyncio.Task[None] | None] = []

    async def connected(reader: Reader, writer: Writer) -> None:
        tasks.append(asyncio.current_task())
        try:
            await serve(reader, writer)
            await reader.read()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_unix_server(connected, path, limit=1 << 23)
    try:
        yield path
    finally:
        server.close()
        for task in tasks:
            assert task
            task.cancel()
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)


@contextlib.contextmanager
def program(argv: list[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that listens at path, from when it does until the end."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(500):
            if path.exists():
                break
            if process.poll() is not None:
                pytest.fail(f"{argv[0]} ended: {process.communicate()[1]!r}")
            _wait(process)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.02)


def real_agent(folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    socket = folder / "agent"
    argv = ["/usr/sbin/qemu-ga", "-m", "unix-listen", "-p", str(socket), "-t", str(folder), "-f", str(folder / "pid")]
    return program(argv, socket)


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


async def synchronise(reader: Reader, writer: Writer) -> None:
    """The agent's part of it."""
    request = json.loads((await reader.readline()).rpartition(agent.SENTINEL)[2])
    assert request["execute"] == "guest-sync-delimited"
    writer.write(agent.SENTINEL + line({"return": request["arguments"]["id"]}))
