# SPDX-License-Identifier: Apache-2.0
"""What guests write: notifications, console lines, user databases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import NotFoundError
from sysd.runtime.console import clean_line
from sysd.runtime.execute import User, find_user
from sysd.runtime.guest import allowed_fields, stored_descriptors

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


@pytest.fixture
def root(tmp_path: Path) -> int:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\nbad:x:y:z::/:\nshort:x\n"
    )
    (etc / "group").write_text("users:x:100:\naudio:x:29:alice,bob\nbroken:x:n:bob\n")
    return os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)


def test_users_are_read_from_the_guest(root: int) -> None:
    bob = User(1000, 100, "bob", "/home/bob", (29,))
    assert find_user(root, "bob") == bob
    assert find_user(root, "1000") == bob
    assert find_user(root, "4711") == User(4711, 4711, "4711", "/")


@pytest.mark.parametrize("name", ["nobody", "bad", "short", "-1", "65536", "", "bob:x"])
def test_unknown_users(root: int, name: str) -> None:
    with pytest.raises(NotFoundError):
        find_user(root, name)


@pytest.mark.parametrize("kind", ["link out", "fifo", "directory", "missing"])
def test_a_user_database_that_is_no_file(tmp_path: Path, kind: str) -> None:
    passwd = tmp_path / "etc/passwd"
    passwd.parent.mkdir()
    match kind:
        case "link out":
            passwd.symlink_to("../../../../../../../../etc/passwd")
        case "fifo":
            os.mkfifo(passwd)
        case "directory":
            passwd.mkdir()
    with pytest.raises(NotFoundError):
        find_user(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY), "root")


def test_stored_descriptors_are_sorted_by_instance() -> None:
    named = {10: "console-a-b-c", 11: "notify-a-b-c", 12: "varlink", 13: "console-d"}
    assert stored_descriptors(named) == {"a-b-c": {"console": 10, "notify": 11}, "d": {"console": 13}}
