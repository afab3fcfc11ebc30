# SPDX-License-Identifier: Apache-2.0
"""The varlink door over a real socket pair, with a service of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import varlink

from sysd.manager.actions import Action, Caller
from sysd.model.errors import DeniedError, NotFoundError
from sysd.model.instance import Instance
from sysd.varlink import encode
from sysd.varlink.methods import Methods
from sysd.varlink.service import INTERFACE, SERVICE_DESCRIPTION, Call, Interface, Method, Service

DESCRIPTION = Path(__file__).resolve().parents[2] / "data/varlink/org.syscont.Manager.varlink"
READS = ("List", "Get", "Monitor", "CancelOperation")
ASKS = {"GetConfig", "GetProfileConfig", "GetServerConfig", "GetZoneConfig"}
"""Reads that need permission."""


class Deny:
    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        raise DeniedError("no")


async def _echo(call: Call) -> None:
    call.reply({"text": call.text("text")})


async def _missing(call: Call) -> None:
    raise NotFoundError("no instance 'x'", "look")


async def _crash(call: Call) -> None:
    raise ZeroDivisionError


async def _descriptor(call: Call) -> None:
    fd = call.fd("fileFd")
    call.reply({"text": os.pread(fd, 10, 0).decode()})


async def _give(call: Call) -> None:
    call.reply_fds = [os.open("/dev/null", os.O_RDONLY)]
    call.reply({})


async def _fail_late(call: Call) -> None:
    call.fd("fileFd")
    call.reply_fds = [os.open("/dev/null", os.O_RDONLY)]
    raise NotFoundError("no")


cancelled: list[bool] = []


async def _wait(call: Call) -> None:
    call.reply({}, continues=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.append(True)
        raise


METHODS = [
    Method("Give", _give),
    Method("FailLate", _fail_late),
    Method("Wait", _wait),
    Method("Echo", _echo),
    Method("Missing", _missing),
    Method("Crash", _crash),
    Method("Descriptor", _descriptor),
    Method("Denied", _echo, Action.EXECUTE),
]

Talk = Callable[[socket.socket], Awaitable[None]]


def serve(tmp_path: Path, talk: Talk) -> None:
    """Run talk with a connected client socket."""

    async def run() -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        service = Service(listening, Interface(INTERFACE, "interface org.syscont.Manager", METHODS), Deny())
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(tmp_path / "socket"))
        try:
            async with asyncio.timeout(10):
                await talk(client)
        finally:
            client.close()
            service.close()
            listening.close()

    asyncio.run(run())


async def ask(client: socket.socket, message: bytes) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, message + b"\0")
    data = b""
    while not data.endswith(b"\0"):
        piece = await loop.sock_recv(client, 65536)
        if not piece:
            return {}
        data += piece
    answer: dict[str, Any] = json.loads(data[:-1])
    return answer


def method(name: str, **parameters: object) -> bytes:
    return json.dumps({"method": f"org.syscont.Manager.{name}", "parameters": parameters}).encode()


ANSWERS = {
    method("Echo", text="hi"): {"parameters": {"text": "hi"}},
    method("Missing"): {
        "error": "org.syscont.Manager.NotFound",
        "parameters": {"message": "no instance 'x'", "hint": "look"},
    },
    b'{"method": "org.syscont.Manager.Nope"}': {
        "error": "org.varlink.service.MethodNotFound",
        "parameters": {"method": "Nope"},
    },
    b'{"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "org.syscont.Manager"}}': {
        "parameters": {"description": "interface org.syscont.Manager"}
    },
}


@pytest.mark.parametrize(("message", "answer"), ANSWERS.items())
def test_answers(tmp_path: Path, message: bytes, answer: dict[str, Any]) -> None:
    async def talk(client: socket.socket) -> None:
        assert await ask(client, message) == answer

    serve(tmp_path, talk)


ERRORS = {
    method("Echo"): "InvalidArgument",
    method("Echo", text=5): "InvalidArgument",
    b'{"method": "org.syscont.Manager.Echo", "parameters": [1]}': "InvalidArgument",
    method("Crash"): "Failed",
    method("Denied", text="x"): "AccessDenied",
    method("Descriptor", fileFd=0): "InvalidArgument",
}


@pytest.mark.parametrize(("message", "error"), ERRORS.items())
def test_errors(tmp_path: Path, message: bytes, error: str) -> None:
    async def talk(client: socket.socket) -> None:
        assert (await ask(client, message))["error"] == f"org.syscont.Manager.{error}"
        # The connection goes on.
        assert await ask(client, method("Echo", text="x")) == {"parameters": {"text": "x"}}

    serve(tmp_path, talk)


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100000])
def test_what_is_no_message_ends_the_connection(tmp_path: Path, message: bytes) -> None:
    async def talk(client: socket.socket) -> None:
        assert await ask(client, message) == {}

    serve(tmp_path, talk)


def test_messages_in_one_piece_and_in_many(tmp_path: Path) -> None:
    async def talk(client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        wire = b"".join(method("Echo", text=str(n)) + b"\0" for n in range(3))
        for i in range(0, len(wire), 7):
            await loop.sock_sendall(client, wire[i : i + 7])
            await asyncio.sleep(0)
        data = b""
        while data.count(b"\0") < 3:
            data += await loop.sock_recv(client, 65536)
        texts = [json.loads(part)["parameters"]["text"] for part in data.split(b"\0")[:3]]
        assert texts == ["0", "1", "2"]

    serve(tmp_path, talk)


def test_descriptors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")

    async def talk(client: socket.socket) -> None:
        with (tmp_path / "file").open() as stream:
            socket.send_fds(client, [method("Descriptor", fileFd=0) + b"\0"], [stream.fileno()])
            data = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert json.loads(data[:-1]) == {"parameters": {"text": "content"}}

    serve(tmp_path, talk)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def oneway(name: str) -> bytes:
    return json.dumps({"method": f"org.syscont.Manager.{name}", "oneway": True}).encode()


def test_descriptors_are_of_the_message_they_came_with(tmp_path: Path) -> None:
    """Though messages are waiting to be read together."""
    names = ("first", "second")
    for name in names:
        (tmp_path / name).write_text(name)

    async def talk(client: socket.socket) -> None:
        echo = method("Echo", text="x") + b"\0"
        client.send(echo)
        for name in names:
            with (tmp_path / name).open() as stream:
                socket.send_fds(client, [method("Descriptor", fileFd=0) + b"\0"], [stream.fileno()])
            client.send(echo)
        data = b""
        while data.count(b"\0") < 5:
            data += await asyncio.get_running_loop().sock_recv(client, 4096)
        texts = [json.loads(part)["parameters"]["text"] for part in data.split(b"\0")[:-1]]
        assert texts == ["x", "first", "x", "second", "x"]

    serve(tmp_path, talk)


@pytest.mark.parametrize("ahead", [b"", method("Echo", text="x") + b"\0"])
def test_a_call_ends_when_its_peer_goes(tmp_path: Path, ahead: bytes) -> None:
    """Though it sent more than is read now."""
    cancelled.clear()

    async def talk(client: socket.socket) -> None:
        await ask(client, method("Wait"))
        client.send(ahead)
        await asyncio.sleep(0.02)
        client.close()
        while not cancelled:
            await asyncio.sleep(0.01)

    serve(tmp_path, talk)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    async def talk(client: socket.socket) -> None:
        await ask(client, method("Echo", text="x"))
        before = open_descriptors()
        for _ in range(10):
            client.send(oneway("Give") + b"\0")
            with open("/dev/null") as stream:
                socket.send_fds(client, [method("FailLate", fileFd=0) + b"\0"], [stream.fileno()] * 3)
            await asyncio.get_running_loop().sock_recv(client, 4096)
            await ask(client, method("Echo", text="x"))
        assert open_descriptors() == before

    serve(tmp_path, talk)


def test_no_descriptor_stays_open_when_the_peer_goes_at_once(tmp_path: Path) -> None:
    async def talk(client: socket.socket) -> None:
        await ask(client, method("Echo", text="x"))
        before = open_descriptors()
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as other, open("/dev/null") as stream:
                other.connect(str(tmp_path / "socket"))
                socket.send_fds(other, [method("Wait") + b"\0"], [stream.fileno()] * 3)
        async with asyncio.timeout(10):
            while open_descriptors() != before:
                await asyncio.sleep(0.05)

    serve(tmp_path, talk)


def test_others_do_not_shut_root_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysd.varlink.service.MAX_CONNECTIONS", 8)
    uid = 1
    monkeypatch.setattr("sysd.varlink.service.credentials", lambda _: (1, uid))

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(str(tmp_path / "socket"))
        return sock

    async def talk(client: socket.socket) -> None:
        nonlocal uid
        echo, answer = method("Echo", text="x"), {"parameters": {"text": "x"}}
        assert await ask(client, echo) == answer
        others = [connect() for _ in range(7)]
        for one in others:
            assert await ask(one, echo) == answer
        with connect() as refused, pytest.raises((AssertionError, OSError)):
            assert await ask(refused, echo) == answer
        uid = 0
        with connect() as root:
            assert await ask(root, echo) == answer
        for one in others:
            one.close()

    serve(tmp_path, talk)


def test_the_table_is_the_interface() -> None:
    described = varlink.Interface(DESCRIPTION.read_text())
    methods = {name for name, member in described.members.items() if isinstance(member, varlink.scanner._Method)}
    assert {m.name for m in Methods(MagicMock(), Deny()).table()} == methods


def test_what_changes_things_needs_permission() -> None:
    for one in Methods(MagicMock(), Deny()).table():
        if one.name not in ("Meet", "Settle"):  # for which it takes a certificate and a secret, and no user
            assert (one.action is None) == (one.name.startswith(READS) and one.name not in ASKS), one.name


SEEN = [(0, {"user.a", "environment.B", "limits.memory"}), (1000, {"limits.memory"})]


@pytest.mark.parametrize(("uid", "seen"), SEEN)
def test_secrets_are_for_root(uid: int, seen: set[str]) -> None:
    config = {"user.a": "secret", "environment.B": "secret", "limits.memory": "1GiB"}
    encoded = encode.instance(MagicMock(), Instance("u", "c1", "f", 65536, config=config), Caller(uid))
    assert set(encoded["config"]) == seen


def test_descriptions_parse() -> None:
    assert varlink.Interface(SERVICE_DESCRIPTION).name == "org.varlink.service"
