# SPDX-License-Identifier: Apache-2.0
"""The connection to a database: away, dying, coming back, and what is none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import FailedError, InvalidError
from sysd.network.ovn.database import Identity, check_remotes
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.rows import Owner, Ref, Row, View, settle
from tests.ovn.servers import VSWITCH, Northd, Server

OWNER = Owner("8b1b9f0c-0000-4000-8000-000000000001", "part")


def run(remote: str, use: Callable[[Northbound], Coroutine[Any, Any, Any]], patience: float = 5) -> None:
    """And see that no thread and no descriptor stays behind."""

    async def all_of_it() -> None:
        north = Northbound(remote, patience=patience)
        try:
            await use(north)
        finally:
            await north.close()

    with leaving_nothing():
        asyncio.run(all_of_it())


@contextlib.contextmanager
def leaving_nothing() -> Iterator[None]:
    before = descriptors()
    yield
    gc.collect()  # what errors hold on to
    assert not [each for each in threading.enumerate() if each.name.startswith("syscont-")]
    assert descriptors() == before


def descriptors() -> set[str]:
    found = set()
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{each}"))
    # libuuid, which the library has identifiers by, keeps one for each thread.
    return {each for each in found if not each.startswith("/var/lib/libuuid/")}


SWITCH = Row("Logical_Switch", "one", {"name": "one", "other_config": {"subnet": "10.1.0.0/24"}})


def make(view: View) -> None:
    settle(view, OWNER, [SWITCH])


def names(view: View) -> list[str]:
    return sorted(row.name for row in view.table("Logical_Switch").rows.values())


def test_a_change_is_made_once(north: Server) -> None:
    async def use(database: Northbound) -> None:
        assert await database.change(make)
        once = north.dump()
        assert not await database.change(make)
        assert north.dump() == once
        assert await database.read(names) == ["one"]

    run(north.remote, use)
    assert [row["name"] for row in north.rows("Logical_Switch")] == ["one"]


def test_what_others_change_is_seen(north: Server) -> None:
    async def use(database: Northbound) -> None:
        await database.change(make)
        north.transact({"op": "update", "table": "Logical_Switch", "where": [], "row": {"name": "two"}})
        north.transact({"op": "insert", "table": "Logical_Switch", "row": {"name": "three"}})
        assert await database.change(make)
        assert await database.read(names) == ["one", "three"]

    run(north.remote, use)


def test_what_others_change_is_news(north: Server) -> None:
    """And so is that the server has gone, and, as such, what is answered; what was done here, what others have for
    themselves and what only tells of guests is none."""

    async def use() -> None:
        heard: asyncio.Queue[bool] = asyncio.Queue()
        here, other = Northbound(north.remote, news=heard.put_nowait), Northbound(north.remote)
        port = Row("Logical_Switch_Port", "nic", {"name": "p"}, (Ref("Logical_Switch", "one", "part"),))

        async def set_column(name: str, value: object) -> None:
            def work(view: View) -> None:
                setattr(view.find(OWNER, "Logical_Switch_Port", "nic"), name, value)

            await other.change(work)

        try:
            assert await here.change(make)
            await here.change(lambda view: settle(view, OWNER, (SWITCH, port)))
            await other.change(lambda view: setattr(view.transaction.insert(view.table("Logical_Switch")), "name", "x"))
            await set_column("up", [True])
            await asyncio.sleep(0.3)
            assert heard.empty()
            await set_column("dynamic_addresses", ["02:00:00:00:00:01 10.1.0.2"])
            assert await asyncio.wait_for(heard.get(), 5) is False
            await other.change(lambda view: settle(view, OWNER, ()))
            assert await asyncio.wait_for(heard.get(), 5) is True
            await asyncio.to_thread(north.stop)
            assert await asyncio.wait_for(heard.get(), 5) is True
        finally:
            await here.close()
            await other.close()

    with leaving_nothing():
        asyncio.run(use())


def test_the_loop_goes_on_meanwhile(north: Server) -> None:
    async def use(database: Northbound) -> None:
        going = asyncio.create_task(database.read(lambda view: time.sleep(0.3)))
        ticks = 0
        while not going.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10

    run(north.remote, use)


@pytest.mark.parametrize("remote", ["unix:/nowhere/at/all", "tcp:127.0.0.1:1", "tcp:127.0.0.1:1,unix:/nowhere"])
def test_away_at_start(remote: str) -> None:
    async def use(database: Northbound) -> None:
        begun = time.monotonic()
        with pytest.raises(FailedError, match="can't be reached") as caught:
            await database.read(names)
        assert caught.value.hint
        assert 0.5 < time.monotonic() - begun < 2

    run(remote, use, 1)


def test_those_who_wait_behind_it_fail_with_it() -> None:
    async def use(database: Northbound) -> None:
        begun = time.monotonic()
        found = await asyncio.gather(*(database.read(names) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(each, FailedError) for each in found)
        assert time.monotonic() - begun < 2.5

    run("unix:/nowhere", use, 1)


def test_comes_while_it_is_waited_for(north: Server) -> None:
    async def use(database: Northbound) -> None:
        north.stop()
        going = asyncio.create_task(database.change(make))
        await asyncio.sleep(0.4)
        assert not going.done()
        await asyncio.to_thread(north.start)
        assert await going

    run(north.remote, use, 10)


def test_dies_and_comes_back(north: Server) -> None:
    async def use(database: Northbound) -> None:
        await database.change(make)
        north.stop()
        with pytest.raises(FailedError):
            await database.change(make)
        await asyncio.to_thread(north.start)
        assert not await database.change(make)
        assert await database.read(names) == ["one"]

    run(north.remote, use, 2)


def test_falls_silent(north: Server) -> None:
    async def use(database: Northbound) -> None:
        await database.read(names)
        os.kill(north.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(FailedError, match="no answer within 1 s"):
                await database.change(make)
            with pytest.raises(FailedError, match="no answer within 1 s"):
                await database.change(make)
            assert time.monotonic() - begun < 4
        finally:
            os.kill(north.pid, signal.SIGCONT)
        await database.change(make)
        assert await database.read(names) == ["one"]

    run(north.remote, use, 1)


@contextlib.contextmanager
def saying(path: Path, answers: list[bytes]) -> Iterator[str]:
    """A server that says one of these to everybody, whatever is asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
                kept.append(peer)
                for answer in answers:
                    peer.recv(1 << 16)
                    peer.sendall(answer)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"unix:{path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for peer in kept:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        thread.join()
        listener.close()


NO_SCHEMA = b'{"id":0,"result":{"name":"OVN_Northbound","version":"7.0.0","tables":%s},"error":null}'


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]", b"{}", b'{"id":0}', b'{"id":0,"result":7,"error":null}',
        b'{"id":0,"result":null,"error":"none"}', NO_SCHEMA % b"{}", NO_SCHEMA % b"[]", NO_SCHEMA % b'{"DNS":7}',
        b'{"id":0,"result":{},"error":null}', b"\xff\xfe\x00", b"{" * 5000,
    ],
)  # fmt: skip
def test_nonsense(tmp_path: Path, answer: bytes) -> None:
    async def use(database: Northbound) -> None:
        begun = time.monotonic()
        with pytest.raises(FailedError):
            await database.read(names)
        assert time.monotonic() - begun < 2

    async def all_of_it(remote: str) -> None:
        database = Northbound(remote, patience=0.3)
        await use(database)
        await database.close()

    with leaving_nothing(), saying(tmp_path / "s", [answer]) as remote:
        asyncio.run(all_of_it(remote))


class Between:
    """Between us and a real server: what it says instead of the server's words from some moment on."""

    def __init__(self, path: Path, server: Path) -> None:
        self.instead = b""
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._open += [peer, server]
                for ends in ((peer, server, False), (server, peer, True)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=ends, daemon=True))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(self.instead if self.instead and answers else data)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()


UPDATE = b'{"id":null,"method":"update3","params":[null,"%s",%s]}'
NOBODY = b"00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    "words", [
        b"nonsense", b"[]", UPDATE % (NOBODY, b"7"), UPDATE % (NOBODY, b'{"DNS":{"x":{}}}'),
        UPDATE % (NOBODY, b'{"DNS":{"%s":{"modify":7}}}' % NOBODY), b'{"id":1,"result":7,"error":null}',
        UPDATE % (NOBODY, b'{"DNS":{"%s":{"insert":{"records":7}}}}' % NOBODY),
        UPDATE % (NOBODY, b'{"DNS":{"%s":{"insert":7}}}' % NOBODY),
    ],
)  # fmt: skip
def test_nonsense_later(tmp_path: Path, north: Server, words: bytes) -> None:
    async def use(database: Northbound) -> None:
        assert await database.change(make)
        between.instead = words
        begun = time.monotonic()
        with pytest.raises(FailedError):
            await database.change(lambda view: settle(view, OWNER, ()))
        assert time.monotonic() - begun < 4
        between.instead = b""
        await database.change(lambda view: settle(view, OWNER, ()))
        assert await database.read(names) == []

    async def all_of_it() -> None:
        database = Northbound(f"unix:{tmp_path / 'between'}", patience=1)
        await use(database)
        await database.close()

    with leaving_nothing():
        between = Between(tmp_path / "between", north.socket)
        asyncio.run(all_of_it())
        between.close()


def test_idle_costs_nothing(north: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(database: Northbound) -> None:
        for _ in range(2):
            with contextlib.suppress(FailedError):
                await database.read(names)
            await asyncio.sleep(0.1)
            begun = time.process_time()
            await asyncio.sleep(0.5)
            assert time.process_time() - begun < 0.1
            north.stop()

    run(north.remote, use, 0.3)
    monkeypatch.setitem(sys.modules, "ovsdbapp.backend.ovs_idl", None)
    monkeypatch.delitem(sys.modules, "sysd.network.ovn.replica")
    run(north.remote, use, 0.3)


def test_another_database(tmp_path: Path) -> None:
    async def use(database: Northbound) -> None:
        with pytest.raises(FailedError, match="it has no database OVN_Northbound"):
            await database.read(names)

    server = Server(tmp_path, VSWITCH)
    try:
        run(server.remote, use)
    finally:
        server.stop()


def test_closing_ends_what_waits() -> None:
    async def use(database: Northbound) -> None:
        going = asyncio.create_task(database.read(names))
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await database.close()
        assert time.monotonic() - begun < 1
        with pytest.raises(FailedError, match="closed"):
            await going

    run("unix:/nowhere", use, 30)


def test_a_bug_of_ours_is_told_and_changes_nothing(north: Server) -> None:
    def wrong(view: View) -> None:
        make(view)
        raise ZeroDivisionError

    async def use(database: Northbound) -> None:
        with pytest.raises(ZeroDivisionError):
            await database.change(wrong)
        assert await database.read(names) == []
        assert await database.change(make)

    run(north.remote, use)
    assert len(north.rows("Logical_Switch")) == 1


def test_settled_waits_for_northd(north: Server, northd: Northd) -> None:
    async def use(database: Northbound) -> None:
        assert await database.change(make, settled=True)
        assert northd.south.rows("Datapath_Binding")
        northd.stop()
        with pytest.raises(FailedError, match="ovn-northd"):
            await database.change(lambda view: settle(view, OWNER, ()), settled=True)

    run(north.remote, use, 3)


def test_no_library(north: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sysd.network.ovn.replica", raising=False)
    monkeypatch.setitem(sys.modules, "ovsdbapp", None)
    monkeypatch.setitem(sys.modules, "ovsdbapp.backend.ovs_idl", None)

    async def use(database: Northbound) -> None:
        for _ in range(2):
            with pytest.raises(FailedError) as caught:
                await database.read(names)
            assert caught.value.hint == "install python3-ovsdbapp"

    run(north.remote, use)


@pytest.mark.parametrize(
    "good", ["unix:/run/ovn/ovnnb_db.sock", "tcp:10.0.0.1:6641", "ssl:[fd00::1]:6641", "ssl:10.0.0.1:1,ssl:10.0.0.2:1"]
)
def test_remotes(good: str) -> None:
    assert ",".join(check_remotes(good)) == good


@pytest.mark.parametrize(
    "bad", ["", "unix:", "unix:x", "tcp:", "tcp:host:1", "tcp:1.2.3.4", "tcp:1.2.3.4:0", "tcp:1.2.3.4:65536", "ptcp:1",
            "ssl:[::1:2", "tcp:1.2.3.4:1,,", "unix:/a\nb", "tcp:1.2.3.400:1"],
)  # fmt: skip
def test_no_remotes(bad: str) -> None:
    with pytest.raises(InvalidError):
        check_remotes(bad)


@dataclass(frozen=True)
class Party:
    key: Path
    certificate: Path

    def __init__(self, folder: Path, name: str) -> None:
        object.__setattr__(self, "key", folder / f"{name}.key")
        object.__setattr__(self, "certificate", folder / f"{name}.pem")
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", str(self.key), "-out", str(self.certificate),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")
def test_tls(tmp_path: Path, north: Server) -> None:
    server, client, stranger = (Party(tmp_path, name) for name in ("server", "client", "stranger"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    north.stop()
    north.start(
        f"--remote=pssl:{port}:127.0.0.1", f"--private-key={server.key}", f"--certificate={server.certificate}",
        f"--ca-cert={client.certificate}",
    )  # fmt: skip

    async def use(identity: Identity) -> list[str]:
        database = Northbound(f"ssl:127.0.0.1:{port}", identity, patience=1)
        try:
            await database.change(make)
            return await database.read(names)
        finally:
            await database.close()

    good = Identity(client.key, client.certificate, server.certificate)
    with leaving_nothing():
        assert asyncio.run(use(good)) == ["one"]
        for bad in (replace(good, authority=stranger.certificate), replace(good, key=stranger.key),
                    replace(good, key=stranger.key, certificate=stranger.certificate),
                    replace(good, authority=client.key)):  # fmt: skip
            begun = time.monotonic()
            with pytest.raises(FailedError, match="OVN's northbound database at ssl:"):
                asyncio.run(use(bad))
            assert time.monotonic() - begun < 2.5
        assert asyncio.run(use(good)) == ["one"]


def test_tls_needs_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="certificate"):
        Northbound("ssl:127.0.0.1:1")
    missing = Identity(tmp_path / "key", tmp_path / "certificate", tmp_path / "authority")

    async def use() -> None:
        database = Northbound("ssl:127.0.0.1:1", missing)
        with pytest.raises(FailedError, match="there is no file"):
            await database.read(names)
        await database.close()

    asyncio.run(use())


