# SPDX-License-Identifier: Apache-2.0
"""Connections of two hosts beside their line, for one purpose: at a port that is open as long as it takes, for whoever
shows a ticket. Who has called the other host on the line calls here as well, as it may be the only one who can."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime.vm.joining import Open

SECRET = 32
CONNECT = 10.0
"""Seconds for a connection, and for a ticket on it."""
UNANSWERED = 15_000
"""Milliseconds until a connection on which nothing is acknowledged is given up: a guest that writes waits as long."""
BACKLOG, VISITORS = 128, 96
AGAIN = 0.1


def make() -> bytes:
    return os.urandom(SECRET)


def secret(said: Mapping[str, Any], name: str) -> bytes:
    """A ticket, or a key of its size, that the other host has told."""
    try:
        value = bytes.fromhex(said[name])
    except (KeyError, TypeError, ValueError):
        value = b""
    if len(value) != SECRET:
        raise FailedError("the other host says what is not understood here", f"its {name}")
    return value


def port(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 < value < 1 << 16:
        raise FailedError("the other host says what is not understood here", f"its port for {name}")
    return value


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


# who listens


def listen(where: str) -> socket.socket:
    """At a port of its own, of the address where, "" for all."""
    if where:
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        return _plain(socket.create_server((where, 0), family=family, backlog=BACKLOG))
    if socket.has_dualstack_ipv6():
        return _plain(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG))
    return _plain(socket.create_server(("", 0), backlog=BACKLOG))


@asynccontextmanager
async def admitting(listening: socket.socket, ticket: bytes, most: int) -> AsyncIterator[Open]:
    """Who shows the ticket, in turn, for the block, and so many at most. Whoever else comes is sent away, and keeps
    nobody waiting: where there are many, who has waited longest goes first."""
    admitted: asyncio.Queue[socket.socket] = asyncio.Queue()
    visitors: dict[asyncio.Task[None], None] = {}
    taken = 0

    def admit(sock: socket.socket) -> bool:
        nonlocal taken
        taken += 1
        if taken <= most:
            admitted.put_nowait(sock)
        return taken <= most

    async def accept() -> None:
        while True:
            try:
                sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:  # of the moment: too many files are open
                await asyncio.sleep(AGAIN)
                continue
            if len(visitors) >= VISITORS:
                next(iter(visitors)).cancel()
            task = asyncio.create_task(_look_at(_plain(sock), ticket, admit))
            visitors[task] = None
            task.add_done_callback(lambda done: visitors.pop(done, None))
            await asyncio.sleep(0)  # they are looked at also while others come

    accepting = asyncio.create_task(accept())
    try:
        yield admitted.get
    finally:
        for task in (accepting, *visitors):
            task.cancel()
        while not admitted.empty():
            admitted.get_nowait().close()


async def _look_at(sock: socket.socket, ticket: bytes, admit: Callable[[socket.socket], bool]) -> None:
    loop, shown = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(CONNECT):
            while len(shown) < len(ticket) and (data := await loop.sock_recv(sock, len(ticket) - len(shown))):
                shown += data
    except (OSError, TimeoutError):
        shown = b""
    except asyncio.CancelledError:
        sock.close()
        raise
    if not hmac.compare_digest(shown, ticket) or not admit(_tune(sock)):
        sock.close()


# who calls


async def call(host: str, number: int, ticket: bytes) -> socket.socket:
    """Raises FailedError."""
    sock = _plain(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM))
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT):
            await loop.sock_connect(sock, (host, number))
            await loop.sock_sendall(_tune(sock), ticket)
    except (OSError, TimeoutError) as error:
        sock.close()
        why = f"port {number} of the other host is not reached: {error or 'no answer'}"
        raise FailedError(why, "a firewall may be in between") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _plain(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def _tune(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)
    return sock
