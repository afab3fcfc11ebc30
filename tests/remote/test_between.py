# SPDX-License-Identifier: Apache-2.0
"""copy and move between hosts, as the command asks for them: of whom, for what, and what it says when it goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sysd.manager.talks import talking
from sysd.model.errors import CancelledError, FailedError, NotFoundError, UnreachableError
from sysd.model.server import HTTPS_ADDRESS
from sysd.model.transfer import Offer
from sysd.varlink.service import Call
from tests.remote.lab import Host, free_port
from tests.remote.test_cli_far import FarCommand, token

IDLE = {"id": "op1", "kind": "x", "target": "x", "status": "running", "stage": "", "done": 0, "total": 0}


class Daemon:
    """One that meets the other, says a word and does nothing. asked: what it was asked for; wrong: what goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.wrong: Exception | None = None
        self.result: dict[str, str] = {}
        self.nowhere = self.lost = False
        self.host = Host(folder, self.methods)

    @property
    def methods(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        return {
            "GetIdentity": self.identity,
            "SendInstance": self.meet("SendInstance"),
            "ReceiveInstance": self.meet("ReceiveInstance"),
            "CancelOperation": self.cancel,
        }

    async def identity(self, call: Call) -> None:
        certificate, addresses = self.host.trust.told()
        call.reply({"certificate": certificate, "addresses": [] if self.nowhere else addresses})

    async def cancel(self, call: Call) -> None:
        self.asked.append(("CancelOperation", call.parameters))
        for one in self.host.meetings._awaited:
            one.line.set_exception(CancelledError("it was cancelled"))
        call.reply({})

    def meet(self, method: str) -> Callable[[Call], Awaitable[None]]:
        async def run(call: Call) -> None:
            plain = {key: value for key, value in call.parameters.items() if key not in ("peer", "offer")}
            self.asked.append((method, plain))
            if self.wrong:
                raise self.wrong
            way: Any
            if call.has("peer"):
                offer, way = self.host.meetings.offer(call.text("peer"))
                call.reply({"offer": asdict(offer), "operation": IDLE}, continues=True)
            else:
                said = call.object("offer")
                way = Offer(said.texts("addresses"), said.text("certificate"), said.text("secret"), 0)
                if self.lost:
                    raise UnreachableError("nobody there")
            async with self.host.meetings.line(way) as line, talking(line) as talk:
                talk.say("word")
                await talk.hear("word")
            call.reply({"operation": {**IDLE, "status": "done", "result": self.result}})

        return run


@pytest.fixture
def syscont(tmp_path: Path) -> FarCommand:
    return FarCommand(tmp_path)


@pytest.fixture
def a(tmp_path: Path, syscont: FarCommand) -> Iterator[Daemon]:
    yield from known(tmp_path, syscont, "a")


@pytest.fixture
def b(tmp_path: Path, syscont: FarCommand) -> Iterator[Daemon]:
    yield from known(tmp_path, syscont, "b")


def known(folder: Path, syscont: FarCommand, name: str) -> Iterator[Daemon]:
    made = Daemon(folder / name)
    assert syscont("remote", "add", name, token(made.host)).returncode == 0
    yield made
    made.host.close()


ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "copy a:web1 b:": ({"source": "web1"}, {"name": "default:"}),
    "copy a:web1/s b:web2": ({"source": "web1/s"}, {"name": "default:web2"}),
    "copy a:lab:web1 b:prod:web2": ({"source": "lab:web1"}, {"name": "prod:web2"}),
    "copy a:web1 b: --target-project lab --instance-only": (
        {"source": "web1", "instanceOnly": True}, {"name": "lab:"}
    ),
    "copy a:web1 b: --project lab": ({"source": "lab:web1"}, {"name": "lab:"}),
    "copy a:web1 b: -c user.a=b -d root,size=1GiB -p one -p two -e -s default --refresh": (
        {"source": "web1"},
        {"name": "default:", "config": {"user.a": "b"}, "devices": {"root": {"size": "1GiB"}}, "pool": "default",
         "profiles": ["one", "two"], "ephemeral": True, "refresh": True},
    ),
    "copy a:web1 b: --no-profiles": ({"source": "web1"}, {"name": "default:", "profiles": []}),
    "move a:web1 b:": ({"source": "web1", "move": True}, {"name": "default:", "move": True}),
    "mv a:web1 b:web2 -c user.a=b": (
        {"source": "web1", "move": True}, {"name": "default:web2", "move": True, "config": {"user.a": "b"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", ASKED)
@pytest.mark.parametrize("mode", ["auto", "pull", "push"])
def test_what_is_asked_of_whom(a: Daemon, b: Daemon, syscont: FarCommand, line: str, mode: str) -> None:
    done = syscont(*line.split(), "--mode", mode)
    assert (done.returncode, done.stderr) == (0, "")
    send, receive = ASKED[line]
    assert a.asked == [("SendInstance", send)]
    assert b.asked == [("ReceiveInstance", receive)]


def test_a_default_host(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    """Names without a host are on that."""
    assert syscont("remote", "switch", "b").returncode == 0
    assert syscont("copy", "a:web1", "web1").returncode == 0
    assert syscont("move", "web2", "a:").returncode == 0
    assert [method for method, _ in a.asked] == ["SendInstance", "ReceiveInstance"]


def test_one_that_can_not_be_called(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    b.nowhere = True
    assert syscont("copy", "a:web1", "b:").returncode == 0
    done = syscont("copy", "a:web1", "b:", "--mode", "push")
    assert "b can't be reached by the other host" in done.stderr
    assert "core.https_address=:8443' on b" in done.stderr
    a.nowhere = True
    done = syscont("copy", "a:web1", "b:")
    assert "neither host can be reached by the other" in done.stderr
    assert len(a.asked) == 1


def test_one_that_is_not_reached(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    """The other way round is tried then."""
    a.lost = True
    assert syscont("copy", "a:web1", "b:").returncode == 0
    assert [method for method, _ in b.asked] == ["ReceiveInstance", "CancelOperation", "ReceiveInstance"]
    b.lost = True
    done = syscont("copy", "a:web1", "b:")
    assert (done.returncode, "nobody there" in done.stderr) == (1, True)


@pytest.mark.parametrize("at", ["a", "b"])
@pytest.mark.parametrize("mode", ["pull", "push"])
def test_what_goes_wrong(a: Daemon, b: Daemon, syscont: FarCommand, at: str, mode: str) -> None:
    (a if at == "a" else b).wrong = NotFoundError("there is none", "make one")
    done = syscont("copy", "a:web1", "b:", "--mode", mode)
    assert done.returncode == 3
    assert done.stderr == "syscont: there is none (make one)\n"


def test_what_is_left_out(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    b.result = {"left-out": "device eth0", "name": "web1"}
    assert "left out, as b has no use for it: device eth0" in syscont("copy", "a:web1", "b:").stderr


WRONG = ["copy a:web1", "copy a:web1 a:", "move a:web1", "copy a:web1 a:web2 --refresh", "move a:web1 a:web2 -c a=b",
         "copy a:web1 b: -p x --no-profiles", "move a:web1 b: -p x --no-profiles", "copy a:web1 b: --mode relay",
         "move a:web1 b: --refresh", "move a:web1 b: --ephemeral"]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_usage(a: Daemon, b: Daemon, syscont: FarCommand, line: str) -> None:
    done = syscont(*line.split())
    assert done.returncode == 2, done.stderr
    assert a.asked == b.asked == []


def test_a_host_that_nobody_knows(a: Daemon, syscont: FarCommand) -> None:
    assert syscont("copy", "a:web1", "c:").returncode == 3
    assert a.asked == []


def test_addresses_by_which_the_user_knows_it_come_first(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    """A host may not know the one by which it is reached."""

    def lie() -> None:
        b.host.catalog.remember_server_config({HTTPS_ADDRESS: f"127.0.0.1:{free_port()}"})

    b.host.do(lie)
    assert syscont("copy", "a:web1", "b:", "--mode", "push").returncode == 0


def test_internal_errors_are_no_traceback(a: Daemon, b: Daemon, syscont: FarCommand) -> None:
    a.wrong = FailedError("internal error: x")
    done = syscont("copy", "a:web1", "b:")
    assert "Traceback" not in done.stderr
