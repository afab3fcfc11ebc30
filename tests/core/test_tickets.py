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
            async with tickets.admitting(listening, TICKET) as next_one:
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
            async with tickets.admitting(listening, TICKET) as next_one:
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
    """It can only keep others out as long as it is let wait for its ticket."""
    monkeypatch.setattr(tickets, "CONNECT", 0.3)

    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            number = tickets.port_of(listening)
            async with tickets.admitting(listening, TICKET) as next_one:
                crowd = [client(number, b"") for _ in range(tickets.BACKLOG)]
                await asyncio.sleep(1)
                with await tickets.call("127.0.0.1", number, TICKET), await next_one():
                    pass
                for one in crowd:
                    one.close()

    asyncio.run(asyncio.wait_for(work(), 30))


def test_who_came_and_was_not_wanted() -> None:
    async def work() -> None:
        with tickets.listen("127.0.0.1") as listening:
            async with tickets.admitting(listening, TICKET):
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
