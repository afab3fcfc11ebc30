# SPDX-License-Identifier: Apache-2.0
"""What machines say of themselves. By unix sockets, which give no context ids: the first bytes of their names do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sysd.runtime.vm import notify
from sysd.runtime.vm.notify import Notifications

Heard = list[tuple[int, str]]
Send = Callable[[int], socket.socket]


def _run(folder: Path, talk: Callable[[Send, Heard], Awaitable[None]]) -> None:
    numbers = iter(range(1000))

    async def all_of_it() -> None:
        heard: Heard = []
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / "notify"))
        listener.listen(1000)

        def connect(cid: int) -> socket.socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(folder / f"{cid}-{next(numbers)}"))
            sock.connect(str(folder / "notify"))
            return sock

        def take(cid: int, fields: str) -> None:
            heard.append((cid, fields))

        notifications = Notifications(listener, take, lambda address: int(Path(str(address)).name.partition("-")[0]))
        await talk(connect, heard)
        notifications.close()

    asyncio.run(all_of_it())


async def _until(heard: Heard, count: int) -> None:
    for _ in range(200):
        if len(heard) >= count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"only {heard}")


def test_messages(tmp_path: Path) -> None:
    async def talk(connect: Send, heard: Heard) -> None:
        for cid, said in ((3, b"STATUS=a\x1b[31mb\nMAINPID=1\nREADY=1\n"), (4, b"FDSTORE=1\n"), (5, b"STOPPING=1")):
            with connect(cid) as sock:
                sock.sendall(said)
            await asyncio.sleep(0.05)
        await _until(heard, 2)
        assert heard == [(3, "STATUS=a[31mb\nREADY=1"), (5, "STOPPING=1")]

    _run(tmp_path, talk)


def test_message_in_pieces(tmp_path: Path) -> None:
    async def talk(connect: Send, heard: Heard) -> None:
        with connect(3) as sock:
            for piece in (b"REA", b"DY=", b"1"):
                sock.sendall(piece)
                await asyncio.sleep(0.05)
            assert not heard
        await _until(heard, 1)
        assert heard == [(3, "READY=1")]

    _run(tmp_path, talk)


def test_endless_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.2)

    async def talk(connect: Send, heard: Heard) -> None:
        with connect(3) as long, connect(4) as slow:
            long.sendall(b"STATUS=" + b"x" * 100_000)
            slow.sendall(b"STATUS=slow")
            await _until(heard, 2)
        assert heard == [(3, "STATUS=" + "x" * 200), (4, "STATUS=slow")]

    _run(tmp_path, talk)


def test_flood_of_one_is_no_other_ones(tmp_path: Path) -> None:
    async def talk(connect: Send, heard: Heard) -> None:
        for _ in range(200):
            with connect(3) as sock:
                sock.sendall(b"STATUS=flood")
            await asyncio.sleep(0)
        with connect(4) as sock:
            sock.sendall(b"READY=1")
        await asyncio.sleep(1)
        assert (4, "READY=1") in heard
        assert 1 < len(heard) < 80

    _run(tmp_path, talk)


def test_connections_that_say_nothing(tmp_path: Path) -> None:
    async def talk(connect: Send, heard: Heard) -> None:
        silent = [connect(3) for _ in range(20)]
        await asyncio.sleep(0.2)
        closed = 0
        for sock in silent:
            sock.setblocking(False)
            try:
                closed += sock.recv(1) == b""
            except BlockingIOError:
                continue
        assert closed == 20 - notify.MAX_AT_ONCE
        for sock in silent:
            sock.close()

    _run(tmp_path, talk)


def test_those_that_are_no_guests(tmp_path: Path) -> None:
    """The host's own processes have context ids too (vsock(7))."""

    async def talk(connect: Send, heard: Heard) -> None:
        for cid in (0, 1, 2):
            with connect(cid) as sock:
                sock.sendall(b"READY=1")
        await asyncio.sleep(0.2)
        assert not heard

    _run(tmp_path, talk)


def test_host_without_vsock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "DEVICE", str(tmp_path / "none"))
    assert notify.open(lambda cid, fields: None) is None
