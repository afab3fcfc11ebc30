# SPDX-License-Identifier: Apache-2.0
"""Ports that are open for a moment: who shows the ticket gets in, and nobody else keeps them waiting."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from sysd.manager import tickets
from sysd.model.errors import FailedError

TICKET = bytes(range(tickets.SECRET))


def client(port: int, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(data)
    return sock


def test_in_turn() -> None:
    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
            async with tickets.admitting(listening, TICKET, 3) as next_one:
                for _ in range(3):
                    with await tickets.call("127.0.0.1", number, TICKET) as ours:
                        ours.send(b"mine")
                        with await next_one() as theirs:
                            assert await asyncio.get_running_loop().sock_recv(theirs, 16) == b"mine"

    asyncio.run(asyncio.wait_for(work(), 30))


def test_strangers() -> None:
    """Silent, wrong, too short, or gone again: they are sent away, and who has the ticket gets in meanwhile."""

    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
            async with tickets.admitting(listening, TICKET, 3) as next_one:
                silent = client(number, b"")
                wrong = client(number, os.urandom(tickets.SECRET))
                client(number, TICKET[:5]).close()
                with await tickets.call("127.0.0.1", number, TICKET), await next_one():
                    pass
                assert await asyncio.to_thread(wrong.recv, 1) == b""
            assert await asyncio.to_thread(silent.recv, 1) == b""
            wrong.close()
            silent.close()

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which stays, and says nothing: who has the ticket does not wait for it to go."""
    monkeypatch.setattr(tickets, "VISITORS", 8)

    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
            async with tickets.admitting(listening, TICKET, 1) as next_one:
                crowd = [client(number, b"") for _ in range(20)]
                with await tickets.call("127.0.0.1", number, TICKET), await next_one():
                    pass
                for one in crowd:
                    one.close()

    asyncio.run(asyncio.wait_for(work(), tickets.CONNECT / 2))


def test_all_at_once_and_no_more_than_are_wanted() -> None:
    """Whoever has read the ticket on its way gets the daemon to keep so many and no more."""
    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
            clients = [client(number, TICKET) for _ in range(40)]
            async with tickets.admitting(listening, TICKET, 30) as next_one:
                taken = [await next_one() for _ in range(30)]
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(next_one(), 0.5)
            closed = [one for one in clients if not await asyncio.to_thread(is_open, one)]
            assert len(closed) == 10
            for one in (*clients, *taken):
                one.close()

    asyncio.run(asyncio.wait_for(work(), 60))


def is_open(sock: socket.socket) -> bool:
    sock.settimeout(0.1)
    try:
        return sock.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def test_who_came_and_was_not_wanted() -> None:
    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            async with tickets.admitting(listening, TICKET, 3):
                ours = await tickets.call("127.0.0.1", tickets.port_of(listening), TICKET)
                await asyncio.sleep(0.2)
            with ours:
                assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""

    asyncio.run(asyncio.wait_for(work(), 30))


def test_nobody_is_there() -> None:
    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
        with pytest.raises(FailedError, match=f"port {number} of the other host is not reached"):
            await tickets.call("127.0.0.1", number, TICKET)

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("value", [None, 5, "", "00", "zz" * 32, "00" * 33])
def test_no_secret(value: Any) -> None:
    with pytest.raises(FailedError):
        tickets.secret({"key": value}, "key")


@pytest.mark.parametrize("value", [None, 0, 65536, True, "80"])
def test_no_port(value: Any) -> None:
    with pytest.raises(FailedError):
        tickets.port({"disk": value}, "disk")
