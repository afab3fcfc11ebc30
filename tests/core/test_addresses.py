# SPDX-License-Identifier: Apache-2.0
"""The addresses of a guest, from what its kernel, or somebody in it, says."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from sysd.runtime import addresses
from sysd.runtime.addresses import AddressWatch

DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def message(text: str, kind: int = 20, flags: int = 0, scope: int = 0) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    packed = socket.inet_pton(family, text)
    body = struct.pack("=BBBBIHH", family, 24, flags, scope, 2, 4 + len(packed), 1) + packed
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


class Kernel:
    """Stands for the netlink socket: what is put into the queue comes out of it. An error is raised."""

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, int] | OSError] = deque()
        self.dumps = 0
        self.refuse = 0
        self.answers: list[bytes] = []
        self._wake, self._ready = os.pipe()
        os.write(self._ready, b"x")  # always readable

    def fileno(self) -> int:
        return self._wake

    def send(self, data: bytes) -> None:
        self.dumps += 1
        if self.refuse:
            self.refuse -= 1
            raise OSError("busy")
        self.queue.extend((said, 0) for said in self.answers)

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queue:
            raise BlockingIOError
        said = self.queue.popleft()
        if isinstance(said, OSError):
            raise said
        return said[0], (said[1], 0)

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._ready)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr("sysd._cext.netlink_socket_in", lambda *_: -1)
    monkeypatch.setattr("sysd.runtime.addresses.socket", SimpleNamespace(socket=lambda fileno: made))
    for name, value in {"SETTLE": 0.001, "BREATH": 0.002, "RETRY": 0.003}.items():
        monkeypatch.setattr(addresses, name, value)
    return made


def watch(kernel: Kernel, *steps: Any) -> list[tuple[str, ...]]:
    """All reports, when what is said in each step is settled before the next."""
    reports: list[tuple[str, ...]] = []

    async def run() -> None:
        watching = AddressWatch(-1, reports.append)
        for step in steps:
            kernel.queue.extend(said if isinstance(said, OSError | tuple) else (said, 0) for said in step)
            async with asyncio.timeout(5):
                while kernel.queue or watching._dumping or watching._stale:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        watching.close()

    asyncio.run(run())
    return reports


def test_a_dump_and_changes(kernel: Kernel) -> None:
    local = message("127.0.0.1", scope=254) + message("fe80::1", scope=253)
    dump = [message("fd42::1") + message("10.0.0.2"), local, DONE]
    changes = [message("10.0.0.3"), message("10.0.0.2", kind=21), message("10.0.0.4", flags=0x40)]
    assert watch(kernel, dump, changes) == [("10.0.0.2", "fd42::1"), ("10.0.0.3", "fd42::1")]
    assert kernel.dumps == 1


def test_lost_messages_make_no_flapping(kernel: Kernel) -> None:
    async def run() -> list[tuple[str, ...]]:
        reports: list[tuple[str, ...]] = []
        watching = AddressWatch(-1, reports.append)
        kernel.queue.extend([(message("10.0.0.2"), 0), (DONE, 0)])
        await asyncio.sleep(0.02)
        kernel.queue.append(OSError("ENOBUFS"))
        while kernel.dumps < 2:
            await asyncio.sleep(0)
        kernel.queue.extend([(message("10.0.0.2"), 0), (message("10.0.0.9"), 0), (DONE, 0)])
        await asyncio.sleep(0.02)
        watching.close()
        return reports

    assert asyncio.run(run()) == [("10.0.0.2",), ("10.0.0.2", "10.0.0.9")]


def test_a_dump_that_fails_is_asked_for_again(kernel: Kernel) -> None:
    kernel.refuse = 3

    async def run() -> int:
        watching = AddressWatch(-1, lambda _: None)
        while kernel.dumps < 4:
            await asyncio.sleep(0.001)
        watching.close()
        return kernel.dumps

    assert asyncio.run(run()) == 4


def test_a_flood_is_taken_in_pieces(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = [0]
    take, settle = AddressWatch._take, AddressWatch._settle

    def counted(self: AddressWatch, one: bytes) -> None:
        taken[-1] += 1
        take(self, one)

    def settled(self: AddressWatch) -> None:
        taken.append(0)
        settle(self)

    monkeypatch.setattr(AddressWatch, "_take", counted)
    monkeypatch.setattr(AddressWatch, "_settle", settled)
    flood = b"".join(message(f"10.1.{n // 250}.{n % 250}") for n in range(2000))
    reports = watch(kernel, [flood, DONE])
    assert len(reports[-1]) == addresses.MAX_ADDRESSES
    assert sum(taken) == 2001
    assert max(taken) <= addresses.BUDGET


def test_only_the_kernel_is_believed(kernel: Kernel) -> None:
    assert watch(kernel, [(message("10.6.6.6"), 4711), message("10.0.0.2"), DONE]) == [("10.0.0.2",)]


@pytest.mark.parametrize("wrong", [b"", b"x", b"\0" * 64, message("10.0.0.2")[:20], message("10.0.0.2")[:26]])
def test_what_is_malformed_does_not_end_it(kernel: Kernel, wrong: bytes) -> None:
    kernel.answers = [message("10.0.0.2"), DONE]
    reports = watch(kernel, [wrong], [message("10.0.0.5")])
    assert "10.0.0.5" in reports[-1]
