# SPDX-License-Identifier: Apache-2.0
"""Connections that are joined, by the program that does so, and what may stand in a hostile QEMU's folder."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysd.model.errors import FailedError
from sysd.runtime.vm import joining
from sysd.runtime.vm.joining import MEMORY, Place

SIZE = 5 << 20


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOIN", Path(__file__).parents[2] / "build/join")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield Place(fd, os.geteuid())
    os.close(fd)


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


async def read_all(sock: socket.socket) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(sock, 1 << 16):
        found += data
    return found


def test_both_ways_and_their_ends() -> None:
    """One side may end and still hear."""
    data = os.urandom(SIZE)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        (left, inner), (outer, right) = pair(), pair()
        with left, right:
            async with joining.joining() as join:
                await join(inner, outer)
                sending = asyncio.ensure_future(loop.sock_sendall(left, data))
                sending.add_done_callback(lambda _: left.shutdown(socket.SHUT_WR))
                assert hashlib.sha256(await read_all(right)).digest() == hashlib.sha256(data).digest()
                await loop.sock_sendall(right, b"heard")
                right.close()
                assert await read_all(left) == b"heard"

    asyncio.run(work())


def test_one_direction_fails() -> None:
    """What goes the other way gets there to its end."""
    data = os.urandom(SIZE)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        (left, inner), (outer, right) = pair(), pair()
        with right:
            async with joining.joining() as join:
                await join(inner, outer)
                sending = asyncio.ensure_future(loop.sock_sendall(left, data))
                sending.add_done_callback(lambda _: left.close())
                head = await loop.sock_recv(right, 1 << 16)
                while not sending.done():
                    head += await loop.sock_recv(right, 1 << 16)
                await asyncio.sleep(0.1)
                await loop.sock_sendall(right, b"for nobody")
                await asyncio.sleep(0.3)
                assert head + await read_all(right) == data

    asyncio.run(asyncio.wait_for(work(), 30))


def test_last_words_get_through() -> None:
    """What ends well is not cut off; who says nothing more, and does not end, is ended."""

    async def work() -> None:
        (left, inner), (outer, right) = pair(), pair()
        with left, right:
            async with joining.joining() as join:
                await join(inner, outer)
            await asyncio.sleep(0.1)
            left.send(b"bye")
            assert await asyncio.get_running_loop().sock_recv(right, 16) == b"bye"
            assert await read_all(left) == b"" == await read_all(right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "GRACE", 1.0)
        asyncio.run(asyncio.wait_for(work(), 10))


def test_what_fails_is_cut_off() -> None:
    async def work() -> None:
        (left, inner), (outer, right) = pair(), pair()
        with left, right:
            with contextlib.suppress(FailedError):
                async with joining.joining() as join:
                    await join(inner, outer)
                    raise FailedError("it failed")
            assert await read_all(left) == b"" == await read_all(right)

    asyncio.run(asyncio.wait_for(work(), 10))


@pytest.mark.parametrize("reached", [0, 1])
def test_who_is_not_reached(place: Place, reached: int) -> None:
    """QEMU's connections end, also those that wait, and what went wrong is told in place of what QEMU says of that."""
    made: list[socket.socket] = []

    async def dial() -> socket.socket:
        if len(made) >= 2 * reached:
            raise FailedError("nobody is there")
        made.extend(pair())
        return made[-2]

    async def work() -> None:
        async with joining.outward(place, dial, 3):
            ways = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for one in ways:
                one.connect(joining.where(place.folder, MEMORY))
                one.setblocking(False)
            for one in ways[reached:]:
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(read_all(one), 10) == b""
            for one in ways:
                one.close()
            raise FailedError("QEMU: broken pipe")

    with pytest.raises(FailedError, match="nobody is there"):
        asyncio.run(work())
    for sock in made:
        sock.close()


def test_what_qemu_puts_there_meanwhile(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a file of the host's: its mode stays."""
    mine, chown = tmp_path / "mine", os.chown
    mine.write_text("")
    mine.chmod(0o644)

    def swapped(*argv: object, **options: object) -> None:
        (tmp_path / MEMORY).unlink()
        (tmp_path / MEMORY).symlink_to(mine)
        chown(*argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chown", swapped)
    joining.listen(place, MEMORY).close()
    assert mine.stat().st_mode & 0o777 == 0o644


def test_the_socket_is_for_qemu_alone(place: Place, tmp_path: Path) -> None:
    with joining.listen(place, MEMORY):
        assert (tmp_path / MEMORY).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FailedError, match="in use"):
        joining.listen(place, MEMORY)


def test_so_many_and_no_more(place: Place) -> None:
    made: list[socket.socket] = []

    async def dial() -> socket.socket:
        near, far = pair()
        made.append(far)
        return near

    async def work() -> None:
        async with joining.outward(place, dial, 2):
            writers = [(await asyncio.open_unix_connection(joining.where(place.folder, MEMORY)))[1] for _ in range(3)]
            async with asyncio.timeout(10):
                while len(made) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert len(made) == 2
            for writer in writers:
                writer.close()

    asyncio.run(work())
    for sock in made:
        sock.close()


@pytest.mark.parametrize("kind", ["nothing", "a file", "a link to a socket", "nobody listens"])
def test_what_qemu_may_put_there(place: Place, tmp_path: Path, kind: str) -> None:
    there = tmp_path / MEMORY
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "the host's"))
        other.listen()
        if kind == "a file":
            there.write_text("")
        if kind == "a link to a socket":
            there.symlink_to(tmp_path / "the host's")
        with socket.socket(socket.AF_UNIX) as dead:
            if kind == "nobody listens":
                dead.bind(str(there))
        with pytest.raises(FailedError, match="QEMU does not"):
            joining.reach(place, MEMORY)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_it_is_reached(place: Place) -> None:
    with joining.listen(place, MEMORY) as listening, joining.reach(place, MEMORY) as ours:
        theirs, _ = listening.accept()
        with theirs, contextlib.suppress(BlockingIOError):
            theirs.sendall(b"x")
        ours.setblocking(True)
        assert ours.recv(1) == b"x"
