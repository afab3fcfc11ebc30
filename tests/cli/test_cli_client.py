# SPDX-License-Identifier: Apache-2.0
"""The varlink client against a daemon that behaves, and one that does not."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sysd.cli import client
from sysd.cli.errors import CliError
from tests.cli.conftest import Command, Serve
from tests.cli.fake_daemon import Call

ERRORS = [
    ("NotFound", "no instance 'x'", "see 'syscont list'", 3),
    ("AccessDenied", "not allowed", "", 4),
    ("InvalidArgument", "invalid name '..'", "letters", 2),
    ("AlreadyExists", "'x' exists", "", 1),
    ("Busy", "'x' is being changed", "", 1),
    ("Failed", "no", "", 1),
    ("org.varlink.service.MethodNotFound", "", "", 1),
    ("org.varlink.service.PermissionDenied", "", "", 4),
    ("com.example.Other", "", "", 1),
]


@pytest.mark.parametrize(("name", "message", "hint", "status"), ERRORS)
def test_errors_become_one_line_and_a_status(
    serve: Serve, syscont: Command, name: str, message: str, hint: str, status: int
) -> None:
    serve({"GetInstance": lambda call: call.error(name, message, hint)})
    done = syscont("info", "x")
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("syscont: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not hint or f"({hint})" in done.stderr


def test_messages_can_not_steer_the_terminal(serve: Serve, syscont: Command) -> None:
    serve({"GetInstance": lambda call: call.error("Failed", "a\x1b[2Jb\nc")})
    assert syscont("info", "x").stderr == "syscont: a?[2Jb?c\n"


def test_no_daemon(syscont: Command) -> None:
    done = syscont("list")
    assert done.returncode == 1
    assert "systemctl start syscontd.socket" in done.stderr


def test_no_access(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: object, _path: str) -> None:
        raise PermissionError

    class Refusing:
        AF_UNIX = SOCK_STREAM = SOCK_CLOEXEC = 0

        class socket:
            def __init__(self, *_: int) -> None: ...

            connect = refuse

    monkeypatch.setattr(client, "_socket", Refusing)
    with pytest.raises(CliError) as caught:
        client.connect()
    assert caught.value.code == 4
    assert "group 'syscont'" in caught.value.hint


def answering(path: Path, answer: bytes) -> None:
    """One connection that gets exactly these bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.sendall(answer)
        connection.close()
        listener.close()

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed the connection"),
        (b'{"parameters":{}', "closed the connection"),
        (b"nonsense\0", "not JSON"),
        (b"\xff\0", "not JSON"),
        (b"[]\0", "not an object"),
    ],
)
def test_a_broken_daemon_is_reported(socket_path: Path, answer: bytes, text: str) -> None:
    answering(socket_path, answer)
    with pytest.raises(CliError, match=text):
        client.call("GetInfo")


def test_replies_may_come_together(socket_path: Path) -> None:
    answering(socket_path, b'{"parameters":{"a":1},"continues":true}\0{"parameters":{"a":2}}\0')
    connection = client.connect()
    connection.send("Monitor", {}, more=True)
    assert connection.receive() == ({"a": 1}, True)
    assert connection.receive() == ({"a": 2}, False)


def test_large_messages_both_ways(serve: Serve) -> None:
    serve({"Echo": lambda call: call.reply(call.parameters)})
    text = "ü\0\U0001f600" * 1_000_000
    assert client.call("Echo", {"text": text}) == {"text": text}


def test_descriptors_both_ways(serve: Serve) -> None:
    def swap(call: Call) -> None:
        assert os.read(call.fds[1], 10) == b"second"
        read, write = os.pipe()
        os.write(write, b"back")
        call.reply({"aFd": 0}, fds=(read,))
        os.close(read)
        os.close(write)

    serve({"Swap": swap})
    pipes = [os.pipe(), os.pipe()]
    os.write(pipes[1][1], b"second")
    connection = client.connect()
    reply = connection.call("Swap", {}, [pipes[0][0], pipes[1][0]])
    fd = connection.take_fd(reply, "aFd")
    assert os.read(fd, 10) == b"back"
    assert not os.get_inheritable(fd)
    for number in (fd, *pipes[0], *pipes[1]):
        os.close(number)


@pytest.mark.parametrize("index", [None, 0, -1, "0", 1.5])
def test_a_descriptor_that_did_not_come(serve: Serve, index: object) -> None:
    serve({"OpenConsole": lambda call: call.reply({"streamFd": index})})
    connection = client.connect()
    with pytest.raises(CliError, match="streamFd"):
        connection.take_fd(connection.call("OpenConsole", {}), "streamFd")


def test_arguments_that_are_no_text_are_refused(serve: Serve, syscont: Command) -> None:
    serve({})
    done = syscont("info", os.fsdecode(b"a\xffb"))
    assert done.returncode == 2
    assert "UTF-8" in done.stderr
    assert "a\\udcffb" in done.stderr


def test_parameters_that_are_none_are_left_out(serve: Serve) -> None:
    daemon = serve({"StartInstance": lambda call: call.reply({})})
    client.call("StartInstance", {"name": "c1", "wait": None})
    assert daemon.calls[0].parameters == {"name": "c1"}
