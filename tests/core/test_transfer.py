# SPDX-License-Identifier: Apache-2.0
"""What hosts say to each other before and while an instance goes from one to the other, and what strangers might."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sysd.manager import talks
from sysd.manager.lines import Line
from sysd.manager.talks import Talk, talking
from sysd.model.errors import BusyError, CancelledError, FailedError, InvalidError, SyscontError, UnsupportedError
from sysd.model.instance import Kind
from sysd.model.transfer import Introduction, Taken, read_introduction

WAIT = 10.0
UUID = "265bafa7-606b-445b-a733-199a45a1450a"
GOOD = Introduction(Kind.CONTAINER, "web1", UUID, 5, "a" * 64, ["default"], [Taken("s1", 3, 0), Taken("s2", 4, 9)])


def said(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(GOOD.said()))
    return {**found, **changes}


def test_what_is_said_is_what_is_heard() -> None:
    assert read_introduction(said()) == GOOD


def test_of_another_version() -> None:
    for version in (0, 1, 3, "2", None):
        with pytest.raises(UnsupportedError):
            read_introduction(said(version=version))


SNAPSHOT = {"name": "s", "created": 1, "expires": 0}
BAD: dict[str, Any] = {
    "runs": ["", 1, None, "true"],
    "kind": ["", "volume", None, 1, []],
    "name": ["", "../x", "a/b", "a b", "x" * 64, None, 7, "localhost"],
    "uuid": ["", "x", "../../etc", UUID + "0", None, {}],
    "created": [-1, 1.5, "1", None, True, 1 << 60],
    "move": ["x", "a" * 63, "A" * 64, "../" + "a" * 61, None, True],
    "profiles": [None, "default", [1], ["x" * 300], ["x"] * 2000],
    "snapshots": [
        None,
        {},
        [1],
        [[]],
        [{"name": "s"}],
        [{**SNAPSHOT, "name": "../s"}],
        [{**SNAPSHOT, "name": ""}],
        [{**SNAPSHOT, "created": -1}],
        [{**SNAPSHOT, "expires": None}],
        [SNAPSHOT, SNAPSHOT],
        [{**SNAPSHOT, "name": f"s{number}"} for number in range(1001)],
    ],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_what_is_not_taken(field: str, value: object) -> None:
    with pytest.raises(InvalidError):
        read_introduction(said(**{field: value}))


@pytest.mark.parametrize("field", sorted(set(GOOD.said()) - {"version"}))
def test_what_is_missing(field: str) -> None:
    with pytest.raises(InvalidError):
        read_introduction({key: value for key, value in said().items() if key != field})


def test_fuzz_of_introductions() -> None:
    """Whatever it is made of, it is read or refused, and never anything else."""
    chance = random.Random(1)
    values: list[Any] = [None, 0, -1, 1 << 70, 1.5, "", "x", "\ud800", [], {}, [[]], [{}], True, "a" * 5000, SNAPSHOT]
    for _ in range(3000):
        changed = said()
        for field in chance.sample(sorted(changed), chance.randint(1, 4)):
            changed[field] = chance.choice(values)
        with contextlib.suppress(SyscontError):
            read_introduction(changed)


# talks


def run(work: Callable[[Talk, Line], Awaitable[Any]], *lines: bytes, ends: bool = True) -> Any:
    """work, with one who says lines, and then nothing more."""

    async def go() -> Any:
        hear, theirs = os.pipe()
        ours, say = os.pipe()
        line = Line((hear, say, os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)))
        writing = asyncio.create_task(asyncio.to_thread(_write, theirs, b"".join(lines), ends))
        try:
            async with talking(line) as talk:
                return await asyncio.wait_for(work(talk, line), WAIT)
        finally:
            os.close(ours)
            await line.close()
            await writing
            if not ends:
                os.close(theirs)

    return asyncio.run(go())


def _write(fd: int, data: bytes, ends: bool) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
    if ends:
        os.close(fd)


async def hear(talk: Talk, line: Line) -> dict[str, Any]:
    return await talk.run(talk.hear("word"))


def test_a_word() -> None:
    assert run(hear, b'{"say": "word", "x": 1}\n') == {"say": "word", "x": 1}


STRANGE = [
    b"x\n",
    b"\n",
    b"[]\n",
    b"null\n",
    b'{"say": 1}\n',
    b'{"x": 1}\n',
    b'{"say": "other"}\n',
    b'{"say": "word"',
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b'{"say": "' + b"x" * talks.MOST + b'"}\n',
    b"\0" * 100_000,
]


@pytest.mark.parametrize("data", STRANGE, ids=range(len(STRANGE)))
def test_what_is_not_understood(data: bytes) -> None:
    with pytest.raises(FailedError):
        run(hear, data)


def test_more_than_is_listened_to() -> None:
    async def work(talk: Talk, line: Line) -> None:
        await talk.run(asyncio.sleep(WAIT))

    with pytest.raises(FailedError, match="not understood"):
        run(work, b'{"say": "word"}\n' * 100, ends=False)


def test_fuzz_of_talks() -> None:
    chance = random.Random(2)
    good = b'{"say": "word", "x": [1, {"y": null}]}\n'
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(SyscontError):
            run(hear, bytes(data))


def test_an_error_of_the_others() -> None:
    error = b'{"say": "error", "code": "Busy", "message": "no room", "hint": "wait"}\n'
    with pytest.raises(BusyError) as caught:
        run(hear, error)
    assert (caught.value.message, caught.value.hint) == ("no room", "wait")
    for strange in (b'{"say": "error"}\n', b'{"say": "error", "code": [], "message": {}}\n'):
        with pytest.raises(SyscontError):
            run(hear, strange)


def test_trouble_ends_what_is_under_way() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.sleep(WAIT)
        finally:
            ended.append(True)

    async def work(talk: Talk, line: Line) -> None:
        await talk.run(long())

    with pytest.raises(FailedError, match="lost"):
        run(work)
    assert ended == [True]


def test_the_line_is_lost() -> None:
    async def work(talk: Talk, line: Line) -> None:
        asyncio.get_running_loop().call_later(0.05, line.lose, BusyError("gone"))
        await talk.run(asyncio.sleep(WAIT))

    with pytest.raises(BusyError, match="gone"):
        run(work, ends=False)


def test_what_goes_wrong_here_is_told() -> None:
    """One side's error is the other one's; a cancelled one's, too."""

    async def go(raised: BaseException) -> tuple[Any, Any]:
        one_hears, two_says = os.pipe()
        two_hears, one_says = os.pipe()
        nothing = [os.open("/dev/null", os.O_RDWR) for _ in range(4)]
        one, two = Line((one_hears, one_says, *nothing[:2])), Line((two_hears, two_says, *nothing[2:]))

        async def fail() -> None:
            raise raised

        async with talking(one) as left, talking(two) as right:
            wrong = await asyncio.gather(left.run(fail()), right.run(asyncio.sleep(WAIT)), return_exceptions=True)
        await one.close()
        await two.close()
        return wrong[0], wrong[1]

    here, there = asyncio.run(go(InvalidError("bad", "good")))
    assert (type(here), type(there), there.message, there.hint) == (InvalidError, InvalidError, "bad", "good")
    assert isinstance(asyncio.run(go(ValueError("x")))[1], FailedError)
    here, there = asyncio.run(go(asyncio.CancelledError()))
    assert isinstance(there, (CancelledError, FailedError))
