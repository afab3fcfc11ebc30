# SPDX-License-Identifier: Apache-2.0
"""The guest's agent: against the real one, and against guests that have something else there."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import FailedError
from sysd.runtime.vm.agent import SENTINEL, Agent, AgentError, Nonsense, Outcome, global_addresses, read_outcome
from sysd.runtime.vm.wire import Broken, Unresponsive
from tests.vm.peers import Serve, line, real_agent, serving, synchronise

Talk = Callable[[Agent], Awaitable[None]]


def _real(folder: Path, talk: Talk) -> None:
    async def all_of_it() -> None:
        agent = await Agent.connect(folder / "agent")
        await talk(agent)
        agent.close()

    with real_agent(folder):
        asyncio.run(all_of_it())


def test_real_agent(tmp_path: Path) -> None:
    async def talk(agent: Agent) -> None:
        assert (await agent.call("guest-info"))["version"]
        assert isinstance(await agent.network(), tuple)
        argv = ["/bin/sh", "-c", 'cat; echo "$A$1" >&2; exit 7', "sh", "$(x)'\""]
        found = await agent.execute(argv, environment={"A": "b c"}, stdin=b"\0\xff" * 10000)
        assert found == Outcome(7, b"\0\xff" * 10000, b"b c$(x)'\"\n")
        assert await agent.execute(["/bin/sh", "-c", "kill -9 $$"]) == Outcome(137)

    _real(tmp_path, talk)


def test_refusals_of_the_real_agent(tmp_path: Path) -> None:
    async def talk(agent: Agent) -> None:
        with pytest.raises(AgentError, match="refused guest-nonsense") as caught:
            await agent.call("guest-nonsense")
        assert caught.value.kind == "CommandNotFound"
        with pytest.raises(AgentError, match="no-such-program"):
            await agent.execute(["/no-such-program"])
        with pytest.raises(FailedError, match="wrote too much"):
            await agent.execute(["/bin/sh", "-c", "head -c 1200000 /dev/zero"])
        with pytest.raises(FailedError, match="input is too long"):
            await agent.execute(["/bin/cat"], stdin=bytes(1200000))
        with pytest.raises(Unresponsive):
            await agent.execute(["/bin/sleep", "5"], timeout=0.1)
        await agent.ping()

    _real(tmp_path, talk)


def test_many_calls_of_the_real_agent(tmp_path: Path) -> None:
    async def talk(agent: Agent) -> None:
        found = await asyncio.gather(*(agent.execute(["/bin/echo", str(n)]) for n in range(20)))
        assert [int(one.output) for one in found] == list(range(20))

    _real(tmp_path, talk)


def test_agent_that_ends(tmp_path: Path) -> None:
    with real_agent(tmp_path) as process:

        async def talk() -> None:
            agent = await Agent.connect(tmp_path / "agent")
            process.kill()
            process.wait()
            with pytest.raises(Broken):
                await agent.ping()
            assert agent.closed

        asyncio.run(talk())


def _run(tmp_path: Path, serve: Serve, talk: Callable[[Path], Awaitable[None]]) -> None:
    async def both() -> None:
        async with serving(tmp_path / "agent", serve) as path:
            await talk(path)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(both())


def test_what_was_said_before(tmp_path: Path) -> None:
    """Half an answer to someone else, a console's noise: none of it is taken for an answer."""

    async def serve(reader: Reader, writer: Writer) -> None:
        writer.write(b'login: \n{"return": {}}\n{"return": "to some')
        await synchronise(reader, writer)
        await reader.readline()
        writer.write(line({"return": {}}))
        await reader.readline()
        writer.write(line({"return": "right"}))

    async def talk(path: Path) -> None:
        agent = await Agent.connect(path)
        assert await agent.call("guest-test") == "right"
        agent.close()

    _run(tmp_path, serve, talk)


def test_what_is_behind_nonsense_is_no_answer(tmp_path: Path) -> None:
    """One that has talked without an end, and does so no more, is understood again."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await synchronise(reader, writer)
        await reader.readline()
        writer.write(line({"return": {}}))
        await reader.readline()
        writer.write(line({"return": {}}) * 200_000)
        await synchronise(reader, writer)
        await reader.readline()
        writer.write(line({"return": {"pid": 7}}))
        await reader.read()

    async def talk(path: Path) -> None:
        agent = await Agent.connect(path)
        with pytest.raises(Nonsense):
            await agent.begin(["true"])
        assert await agent.begin(["true"]) == 7
        agent.close()

    _run(tmp_path, serve, talk)


def test_answer_that_comes_late(tmp_path: Path) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await synchronise(reader, writer)
        await reader.readline()
        writer.write(line({"return": {}}))
        await reader.readline()
        request = await reader.readline()
        writer.write(line({"return": "late"}))
        number = json.loads(request.rpartition(SENTINEL)[2])["arguments"]["id"]
        writer.write(SENTINEL + line({"return": number + 1}) + SENTINEL + line({"return": number}))
        await reader.readline()
        writer.write(line({"return": "in time"}))
        await reader.read()

    async def talk(path: Path) -> None:
        agent = await Agent.connect(path)
        with pytest.raises(Unresponsive):
            await agent.call("guest-slow", timeout=0.1)
        assert not agent.closed
        assert await agent.call("guest-fast") == "in time"
        agent.close()

    _run(tmp_path, serve, talk)


async def _silent(reader: Reader, writer: Writer) -> None:
    await reader.read()


async def _endless_line(reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def _endless_lines(reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(line({"return": 1}) * 5000)
        await writer.drain()


async def _empty_lines(reader: Reader, writer: Writer) -> None:
    while True:
        writer.write(b"\n" * 65536)
        await writer.drain()


async def _goes(reader: Reader, writer: Writer) -> None:
    await reader.readline()
    writer.close()


@pytest.mark.parametrize("serve", [_silent, _endless_line, _endless_lines, _empty_lines, _goes])
def test_guests_that_are_no_agents(tmp_path: Path, serve: Serve) -> None:
    """Each ends in time, and meanwhile others have theirs."""

    async def talk(path: Path) -> None:
        begun = time.monotonic()
        turns = asyncio.ensure_future(_turns())
        with pytest.raises(FailedError):
            await Agent.connect(path, timeout=0.5)
        assert time.monotonic() - begun < 2
        turns.cancel()
        assert await asyncio.gather(turns, return_exceptions=True)
        assert max(LATE, default=0) < 0.5

    LATE.clear()
    _run(tmp_path, serve, talk)


@pytest.mark.parametrize("serve", [_endless_line, _endless_lines, _empty_lines])
def test_guests_that_never_end_cost_little(tmp_path: Path, serve: Serve) -> None:
    """However long they might: what they say is not read for as long as there is time."""

    async def talk(path: Path) -> None:
        used = time.process_time()
        with pytest.raises(FailedError, match=r"without an end|a line of more than"):
            await Agent.connect(path, timeout=60)
        assert time.process_time() - used < 1

    _run(tmp_path, serve, talk)


LATE: list[float] = []


async def _turns() -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        LATE.append(time.monotonic() - before)


ANSWERS = {
    "no JSON": b"hello\n",
    "no object": b"[]\n",
    "nothing": b"{}\n",
    "error of a wrong type": b'{"error": 7}\n',
    "error of wrong types": b'{"error": {"class": 1, "desc": []}}\n',
    "deep": b'{"return": ' + b"[" * 200_000 + b"\n",
    "a number without an end": b'{"return": ' + b"9" * 5000 + b"}\n",
    "huge": b'{"return": "' + b"x" * (5 << 20) + b'"}\n',
    "no process": b'{"return": {"pid": true}}\n',
    "a text": b'{"return": "x"}\n',
}


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS.keys())
def test_wrong_answers(tmp_path: Path, said: bytes) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await synchronise(reader, writer)
        await reader.readline()
        writer.write(line({"return": {}}))
        await reader.readline()
        writer.write(said)
        await writer.drain()
        await reader.read()

    async def talk(path: Path) -> None:
        agent = await Agent.connect(path)
        with pytest.raises(FailedError):
            await agent.begin(["/bin/true"])
        agent.close()

    _run(tmp_path, serve, talk)


def _interface(*addresses: str) -> dict[str, Any]:
    return {"name": "x", "ip-addresses": [{"ip-address": one, "ip-address-type": "x"} for one in addresses]}


def test_addresses() -> None:
    local = _interface("127.0.0.1", "::1", "fe80::1", "169.254.1.1", "fec0::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::")
    shown = _interface("2001:db8::2", "fd00::1", "10.0.0.9", "10.0.0.10", "203.0.113.7")
    odd = _interface("10.0.0.9", "fe80::1%eth0", "2001:db8::3%eth0", "x", "10.0.0.1/8", "", "1" * 5000)
    assert global_addresses([local, shown, {"name": "none"}, odd]) == (
        "10.0.0.9",
        "10.0.0.10",
        "203.0.113.7",
        "2001:db8::2",
        "fd00::1",
    )
    assert len(global_addresses([_interface(f"10.0.{n >> 8}.{n & 255}") for n in range(1000)])) == 64


@pytest.mark.parametrize("found", [None, 7, "x", {}, [7], [{}], [{"ip-addresses": 7}], [_interface()], [[]]])
def test_addresses_of_wrong_types(found: Any) -> None:
    assert global_addresses(found) == ()


WORDS = ["ip-addresses", "ip-address", "exited", "exitcode", "signal", "out-data", "err-data", "out-truncated"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.ip_addresses().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner),
    max_leaves=20,
)


@given(VALUES)
def test_any_addresses(found: Any) -> None:
    for one in global_addresses(found):
        assert global_addresses([_interface(one)]) == (one,)


@given(VALUES | st.dictionaries(st.sampled_from(WORDS), VALUES))
def test_any_outcome(found: Any) -> None:
    try:
        outcome = read_outcome(found)
    except FailedError:
        return
    assert outcome is None or 0 <= outcome.status < 256
