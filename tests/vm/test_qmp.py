# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: against the real one, and against one that its guest has taken over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.runtime.vm import qmp as qmp_module
from sysd.runtime.vm.qmp import Broken, Qmp, QmpError, Unresponsive
from sysd.runtime.vm.wire import parse
from tests.vm.peers import Serve, line, program, serving

GREETING = line({"QMP": {"version": {}, "capabilities": []}})


class Heard:
    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.closed = asyncio.Event()
        self.closings = 0

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        self.events.append((name, data))

    def close(self) -> None:
        self.closings += 1
        self.closed.set()

    async def connect(self, path: Path, timeout: float = 5.0) -> Qmp:
        return await Qmp.connect(path, self.event, self.close, timeout)


def test_real_qemu(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    argv = ["qemu-system-x86_64", "-machine", "none", "-accel", "tcg", "-display", "none", "-nodefaults", "-S"]
    argv += ["-qmp", f"unix:{path},server=on,wait=off"]

    async def talk() -> None:
        heard = Heard()
        qmp = await heard.connect(path)
        statuses = await asyncio.gather(*(qmp.execute("query-status") for _ in range(20)))
        assert {status["status"] for status in statuses} == {"prelaunch"}
        await _pass_many(qmp)
        with pytest.raises(QmpError, match="refused nonsense") as caught:
            await qmp.execute("nonsense")
        assert caught.value.kind == "CommandNotFound"
        await qmp.execute("cont")
        await qmp.execute("quit")
        await heard.closed.wait()
        assert [name for name, _ in heard.events][:1] == ["RESUME"]
        assert heard.closings == 1
        with pytest.raises(Broken):
            await qmp.execute("query-status")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with program(argv, path):
        asyncio.run(talk())


async def _pass_many(qmp: Qmp) -> None:
    """Descriptors passed at once are not mixed up: each pair is closed by its own command."""

    async def write(number: int) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await qmp.execute("getfd", {"fdname": f"fd{number}"}, fds=[theirs.fileno()])
            address = {"type": "fd", "data": {"str": f"fd{number}"}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            await qmp.execute("chardev-add", {"id": f"char{number}", "backend": backend})
            await qmp.execute("chardev-remove", {"id": f"char{number}"})
            theirs.close()
            # QEMU's copy was the last one of its own pair, and is gone.
            assert ours.recv(1) == b""

    await asyncio.gather(*(write(number) for number in range(20)))


def _run(tmp_path: Path, serve: Serve, talk: Callable[[Path, Heard], Any]) -> None:
    async def both() -> None:
        async with serving(tmp_path / "qmp", serve) as path:
            await talk(path, Heard())

    asyncio.run(both())


async def _negotiate(reader: Reader, writer: Writer) -> None:
    writer.write(GREETING)
    request = json.loads(await reader.readline())
    assert request["execute"] == "qmp_capabilities"
    writer.write(line({"return": {}, "id": request["id"]}))


def test_answers_in_another_order(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await _negotiate(reader, writer)
        requests = [json.loads(await reader.readline()) for _ in range(3)]
        for request in reversed(requests):
            writer.write(line({"event": "BETWEEN", "data": 7}) + line({"return": "whose?", "id": 4711}))
            writer.write(line({"return": "whose?", "id": [1]}) + line({"return": "whose?", "id": True}))
            writer.write(line({"return": request["arguments"]["n"], "id": request["id"]}))

    async def talk(path: Path, heard: Heard) -> None:
        qmp = await heard.connect(path)
        assert await asyncio.gather(*(qmp.execute("echo", {"n": n}) for n in range(3))) == [0, 1, 2]
        assert heard.events == [("BETWEEN", {})] * 3
        qmp.close()
        await asyncio.sleep(0)
        assert not heard.closings

    _run(tmp_path, serve, talk)


def test_qemu_that_does_not_answer(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await _negotiate(reader, writer)
        first = json.loads(await reader.readline())
        second = json.loads(await reader.readline())
        writer.write(line({"return": "late", "id": first["id"]}) + line({"return": "now", "id": second["id"]}))
        await reader.read()

    async def talk(path: Path, heard: Heard) -> None:
        qmp = await heard.connect(path)
        with pytest.raises(Unresponsive, match="does not answer sleep"):
            await qmp.execute("sleep", timeout=0.1)
        assert await qmp.execute("wake") == "now"
        qmp.close()

    _run(tmp_path, serve, talk)


def test_monitor_that_has_another_client(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.read()

    async def talk(path: Path, heard: Heard) -> None:
        with pytest.raises(Unresponsive):
            await heard.connect(path, timeout=0.1)

    _run(tmp_path, serve, talk)


def test_nobody_there(tmp_path: Path) -> None:
    async def talk() -> None:
        with pytest.raises(Broken, match="No such file"):
            await Heard().connect(tmp_path / "qmp")

    asyncio.run(talk())


NONSENSE = {
    "no JSON": b"hello\n",
    "no object": b"[]\n",
    "no message": b"{}\n",
    "no text": b'{"event": 7}\n',
    "no error": b'{"error": "x", "id": 2}\n',
    "not UTF-8": b'{"event": "\xff"}\n',
    "deep": b"[" * 200_000 + b"\n",
    "a number without an end": b'{"event": "X", "data": ' + b"9" * 5000 + b"}\n",
    "the end": b"",
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await _negotiate(reader, writer)
        await reader.readline()
        writer.write(said)
        await writer.drain()
        writer.close()

    async def talk(path: Path, heard: Heard) -> None:
        qmp = await heard.connect(path)
        with pytest.raises(Broken):
            await qmp.execute("query-status")
        assert heard.closings == 1

    _run(tmp_path, serve, talk)


def test_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp_module, "MAX_LINE", 1 << 20)
    sent = 0

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await _negotiate(reader, writer)
        while True:
            writer.write(b" " * 65536)
            sent += 65536
            await writer.drain()

    async def talk(path: Path, heard: Heard) -> None:
        await heard.connect(path)
        await asyncio.wait_for(heard.closed.wait(), 5)
        assert sent < 4 << 20

    _run(tmp_path, serve, talk)


def test_flood_of_events(tmp_path: Path) -> None:
    """The loop has time for others, and events are taken at a pace."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await _negotiate(reader, writer)
        while True:
            writer.write(line({"event": "RTC_CHANGE"}) * 1000)
            await writer.drain()

    async def talk(path: Path, heard: Heard) -> None:
        qmp = await heard.connect(path)
        begun = time.monotonic()
        await asyncio.sleep(0.5)
        assert time.monotonic() - begun < 2
        assert len(heard.events) < 2 * qmp_module.BURST
        qmp.close()

    _run(tmp_path, serve, talk)


@given(st.binary(max_size=200))
def test_any_line(said: bytes) -> None:
    """Nothing but ValueError, and nothing but an object."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse(said), dict)


KEYS = st.sampled_from(["event", "return", "error", "class", "desc", "id", "data"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES))
def test_any_message(said: dict[str, Any]) -> None:
    """A message is an event, an answer, or an end to the connection; never a crash of what reads."""

    async def take() -> None:
        qmp = Qmp.__new__(Qmp)
        qmp._pending = {1: asyncio.get_running_loop().create_future()}
        heard = Heard()
        qmp._on_event = heard.event
        try:
            assert qmp._take(said) == bool(heard.events)
        except ValueError:
            assert not heard.events
            assert not qmp._pending[1].done()

    asyncio.run(take())
