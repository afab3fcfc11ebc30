# SPDX-License-Identifier: Apache-2.0
"""What guests write: notifications, console lines, user databases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import InvalidError, NotFoundError
from sysd.model.idmap import IDENTITY, make_idmap, parse_map
from sysd.runtime import guest as guest_module
from sysd.runtime.console import clean_line
from sysd.runtime.execute import Command, User, find_user
from sysd.runtime.guest import ContainerGuest, allowed_fields, stored_descriptors

NOTIFICATIONS = {
    b"READY=1": "READY=1",
    b"READY=1\nSTATUS=Up": "READY=1\nSTATUS=Up",
    b"MAINPID=1\nREADY=1": "READY=1",
    b"FDSTORE=1": "",
    b"EXTEND_TIMEOUT_USEC=999999999": "",
    b"STATUS=a\x1b[31mb": "STATUS=a[31mb",
    b"STATUS=" + b"x" * 1000: "STATUS=" + "x" * 200,
    b"\xff\xfe": "",
    b"": "",
    b"READY": "READY=",
    b"STOPPING=1\n": "STOPPING=1",
}


@pytest.mark.parametrize(("said", "passed_on"), NOTIFICATIONS.items())
def test_notifications(said: bytes, passed_on: str) -> None:
    assert allowed_fields(said) == passed_on


@given(st.binary(max_size=4096))
def test_notifications_never_carry_other_fields(said: bytes) -> None:
    for line in allowed_fields(said).splitlines():
        assert line.partition("=")[0] in ("READY", "STATUS", "STOPPING")


LINES = {
    b"plain": "plain",
    b"\x1b[0;32m  OK  \x1b[0m Started": "  OK   Started",
    b"\x1b]0;title\x07text": "text",
    b"\x1b]0;never ends": "",
    b"tab\there": "tab\there",
    b"a\x00b\x08c\x7f": "abc",
    b"\xff": "�",
    b"\x1b": "",
}


@pytest.mark.parametrize(("line", "shown"), LINES.items())
def test_console_lines(line: bytes, shown: str) -> None:
    assert clean_line(line) == shown


@given(st.binary(max_size=2048))
def test_console_lines_hold_no_control(line: bytes) -> None:
    assert not any(ord(c) < 32 and c not in "\t\n" for c in clean_line(line))


PASSWD = "root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\nbad:x:y:z::/:\nshort:x\nhomeless:x:7:7:::\n"
GROUP = "users:x:100:\naudio:x:29:alice,bob\nbroken:x:n:bob\nhuge:x:4294967295:bob\nmore:x:65536:bob\n"


IDS = make_idmap(100000, 65536, {})


def test_users_are_read_from_the_guest() -> None:
    bob = User(1000, 100, "bob", "/home/bob", (29,))
    assert find_user(PASSWD, GROUP, "bob", IDS) == bob
    assert find_user(PASSWD, GROUP, "1000", IDS) == bob
    assert find_user(PASSWD, GROUP, "4711", IDS) == User(4711, 4711, "4711", "/")
    assert find_user(PASSWD, GROUP, "homeless", IDS) == User(7, 7, "homeless", "/")


@pytest.mark.parametrize("name", ["nobody", "bad", "short", "-1", "65536", "", "bob:x"])
def test_unknown_users(name: str) -> None:
    with pytest.raises(NotFoundError):
        find_user(PASSWD, GROUP, name, IDS)


@pytest.mark.parametrize(
    "number",
    ["4294967295", "4294967296", "65536", "-1", "+0", " 0", "", "0x0", "\u0660", "99999999999999999999", "1" * 5000],
)
def test_ids_that_no_guest_has(number: str) -> None:
    """setresuid(-1) leaves a process what it is: the host's root."""
    for ids in (f"{number}:0", f"0:{number}", f"{number}:{number}"):
        with pytest.raises(NotFoundError):
            find_user(f"evil:x:{ids}::/:/bin/sh\n", "", "evil", IDS)


def test_a_guest_has_as_many_ids_as_its_map() -> None:
    lent = make_idmap(100000, 131072, {"raw.idmap": "uid 1000 200000"})
    assert parse_map(lent.uid_text, lent.gid_text) == lent
    passwd, group = "far:x:131071:131071::/:/bin/sh\nlent:x:200000:5::/:\nno:x:5:200000::/:\n", "g:x:131072:far\n"
    assert find_user(passwd, group, "far", lent) == User(131071, 131071, "far", "/")
    assert find_user(passwd, group, "lent", lent) == User(200000, 5, "lent", "/")
    for wanted in ("131072", "no", "200000"):
        with pytest.raises(NotFoundError):
            find_user("" if wanted == "200000" else passwd, group, wanted, lent)
    assert find_user("", "", "4294967294", IDENTITY).uid == 4294967294


def test_a_line_with_such_an_id_is_passed_over() -> None:
    passwd = "root:x:4294967295:0::/a:/bin/sh\nroot:x:0:0::/b:/bin/sh\n"
    assert find_user(passwd, "", "root", IDS) == User(0, 0, "root", "/b")
    with pytest.raises(NotFoundError):
        find_user(passwd, "", "4294967295", IDENTITY)


def test_a_guest_without_a_user_database() -> None:
    assert find_user("", "", "0", IDS) == User(0, 0, "0", "/")
    with pytest.raises(NotFoundError):
        find_user("", "", "root", IDS)


@given(st.text(max_size=80), st.text(max_size=80))
def test_ids_are_always_a_guests(passwd: str, group: str) -> None:
    for wanted in ("root", "0", "", *passwd.replace("\n", ":").split(":")):
        with contextlib.suppress(NotFoundError):
            user = find_user(passwd, group, wanted, IDS)
            assert all(0 <= number <= 65535 for number in (user.uid, user.gid, *user.groups))


@pytest.mark.parametrize("kind", ["directory", "path"])
def test_handles_that_are_no_streams(tmp_path: Path, kind: str) -> None:
    fd = os.open(tmp_path, os.O_DIRECTORY) if kind == "directory" else os.open("/dev/null", os.O_PATH)
    with pytest.raises(InvalidError):
        Command(["true"], stdio=(-1, fd, -1)).check()
    os.close(fd)


def test_stored_descriptors_are_sorted_by_instance() -> None:
    named = {10: "console-a-b-c", 11: "notify-a-b-c", 12: "varlink", 13: "console-d"}
    assert stored_descriptors(named) == {"a-b-c": {"console": 10, "notify": 11}, "d": {"console": 13}}


class Relayed:
    """A guest's notification socket, with what reaches systemd."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.theirs.setblocking(False)
        monkeypatch.setattr("sysd.runtime.guest.daemon.notify", lambda text, pid: self.told.append(text))
        self.guest = ContainerGuest.__new__(ContainerGuest)
        self.guest.leader = os.getpid()
        self.guest._window = (0.0, 0)

    async def run(self, *said: bytes, until: str = "") -> None:
        self.guest.adopt({"notify": self.ours.detach()})
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            for one in said:
                await loop.sock_sendall(self.theirs, one)
            while until and until not in self.told:
                await asyncio.sleep(0.01)


def test_no_word_of_the_leader_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "FLOOD_PERIOD", 0.05)
    relayed = Relayed(monkeypatch)
    said = [f"STATUS={n}" for n in range(guest_module.FLOOD * 3)] + ["READY=1"]
    asyncio.run(relayed.run(*[one.encode() for one in said], until="READY=1"))
    assert relayed.told == said


def test_words_of_others_neither_count_nor_hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed = Relayed(monkeypatch)
    other = "import socket; s = socket.socket(fileno=0); [s.send(b'STATUS=other') for _ in range(200)]"

    async def run() -> None:
        relayed.theirs.setblocking(True)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", other, stdin=relayed.theirs.fileno())
        await relayed.run()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        relayed.theirs.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(relayed.theirs, b"READY=1")
        async with asyncio.timeout(10):
            while not relayed.told:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert relayed.told == ["READY=1"]
