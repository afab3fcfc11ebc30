# SPDX-License-Identifier: Apache-2.0
"""A host's door on the loopback, in a thread: real TLS, real trust, and methods of the test's own behind it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import socket
import ssl
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import MagicMock

from sysd.codec import decode, encode
from sysd.manager.actions import Action, Caller
from sysd.manager.catalog import Catalog
from sysd.manager.events import EventBus
from sysd.manager.meetings import Meetings
from sysd.manager.settlements import Settlements
from sysd.manager.table import Table
from sysd.manager.trust import Trust
from sysd.model.errors import FailedError, NotFoundError
from sysd.model.server import HTTPS_ADDRESS
from sysd.remote import certificate
from sysd.remote.calling import Calling
from sysd.remote.certificate import Identity
from sysd.remote.dial import dial
from sysd.runtime.files.actions import write_all
from sysd.store.database import Store
from sysd.varlink.meetings import MeetingMethods
from sysd.varlink.protocol import close_all
from sysd.varlink.remote import RemoteDoor
from sysd.varlink.service import INTERFACE, Call, Interface, Method

T = TypeVar("T")
WAIT = 20.0


class Permit:
    async def check(self, caller: Caller, action: Action, details: dict[str, str]) -> None:
        assert caller.is_root


class Host:
    """methods: by name, what they do. Its trust and its door are to be touched in its own thread only: see do()."""

    def __init__(self, folder: Path, methods: dict[str, Callable[[Call], Awaitable[None]]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.callers: list[Caller] = []
        self._links: list[Calling] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = free_port()
        self.do(lambda: self._open(methods))

    def _open(self, methods: dict[str, Callable[[Call], Awaitable[None]]]) -> None:
        self.store = Store(self.folder / "db")
        catalog = Catalog(self.store)
        catalog.remember_server_config({HTTPS_ADDRESS: self.address})
        self.catalog = catalog
        self.trust = Trust(self.store, catalog, EventBus(), self.folder)
        self.trust.start()
        table = [Method(name, self._noting(run), Action.MANAGE_INSTANCES) for name, run in methods.items()]
        self.meetings = Meetings(self.trust)
        known = Table(EventBus(), lambda instance: instance)
        self.settlements = Settlements(
            self.store, known, MagicMock(), self.trust, self.meetings, MagicMock(), MagicMock()
        )
        table += MeetingMethods(self.meetings, self.settlements).table()
        interface = Interface(INTERFACE, f"interface {INTERFACE}", table)
        self.door = RemoteDoor(self.trust, self.meetings, self.settlements, interface, Permit())
        self.door.listen(self.address)

    def _noting(self, run: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
        async def noted(call: Call) -> None:
            self.callers.append(call.caller)
            await run(call)

        return noted

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def do(self, work: Callable[[], T]) -> T:
        """Run work in the host's thread."""

        async def run() -> T:
            return work()

        return self.wait(run())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    def trust_client(self, name: str) -> Identity:
        """A client's identity, which the host trusts."""
        made = stranger(self.folder, name)
        self.do(lambda: self.trust.add(certificate.pem(made.certificate), name))
        return made

    @property
    def certificate(self) -> bytes:
        return self.do(lambda: self.trust.identity().certificate)

    def call(self, client: Identity) -> Calling:
        """A connection of a client's."""
        return self.linked(dial([self.address], client, self.certificate))

    def linked(self, connection: ssl.SSLSocket) -> Calling:
        link = Calling(connection, self.address)
        link.start()
        self._links.append(link)
        return link

    def close(self) -> None:
        if self._loop.is_closed():
            return
        for link in self._links:
            link.abort()
            link.local.close()

        async def end() -> None:
            self.door.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            deadline = time.monotonic() + 3
            while self.door._visitors and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            self.store.close()

        self.wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()


def stranger(folder: Path, name: str) -> Identity:
    return certificate.load_or_make(str(folder / f"{name}.pem"))


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Talk:
    """One call after the other on a link's local end, and what it replies."""

    def __init__(self, link: Calling) -> None:
        self.link = link
        self._data = b""
        link.local.settimeout(WAIT)

    def send(self, method: str, **parameters: Any) -> None:
        message: dict[str, Any] = {"method": f"{INTERFACE}.{method}", "parameters": parameters}
        with contextlib.suppress(BrokenPipeError):  # why it is broken is told to who reads
            self.link.local.sendall(encode(message).encode() + b"\0")

    def send_with(self, method: str, fds: list[int], written: set[int], more: bool = False, **parameters: Any) -> None:
        """With descriptors, or with some to come."""
        streams = self.link.attach(fds, written)
        message = {"method": f"{INTERFACE}.{method}", "parameters": parameters, "upgrade": True, "streams": streams}
        self.link.local.sendall(encode(message | {"more": more}).encode() + b"\0")

    def reply(self) -> dict[str, Any]:
        """Empty at the end."""
        while b"\0" not in self._data:
            try:
                piece = self.link.local.recv(1 << 16)
            except ConnectionResetError:  # what was sent last was not read
                return {}
            if not piece:
                return {}
            self._data += piece
        message, _, self._data = self._data.partition(b"\0")
        found = decode(message.decode())
        assert isinstance(found, dict)
        return found

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.send(method, **parameters)
        return self.reply()

    def close(self) -> None:
        self.link.local.close()


def handshake(address: str, context: ssl.SSLContext) -> bytes:
    """Shake hands as a client and see what the host says after it; raises OSError when it says no."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT) as sock, context.wrap_socket(sock) as connection:
        connection.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
        return connection.recv(1 << 16)


# What hosts of tests do for those who come.


def listing(*instances: str) -> dict[str, Callable[[Call], Awaitable[None]]]:
    """What a host has."""
    found = [{"name": name, "project": "default", "state": "running", "type": "container"} for name in instances]

    async def list_instances(call: Call) -> None:
        call.reply({"instances": found})

    async def get_instance(call: Call) -> None:
        name = call.text("name")
        for one in found:
            if one["name"] == name:
                call.reply({"instance": one})
                return
        raise NotFoundError(f"no instance {name!r}")

    async def get_state(call: Call) -> None:
        call.reply({"state": {"tasks": 7}})

    async def list_projects(call: Call) -> None:
        call.reply({"projects": [{"name": "default"}, {"name": "lab"}]})

    async def get_info(call: Call) -> None:
        call.reply({"version": f"of {call.caller.remote}", "instances": len(found)})

    async def read_log(call: Call) -> None:
        os.write(call.fd("logFd"), f"{call.text('name')} {call.number('lines')} {call.text('output')}\n".encode())
        call.reply({})

    async def delete(call: Call) -> None:
        found.remove(next(one for one in found if one["name"] == call.text("name")))
        call.reply({"operation": {"status": "done"}})

    async def get_project(call: Call) -> None:
        call.reply({"project": {"name": call.text("name")}})

    return {
        "ListInstances": list_instances,
        "GetInstance": get_instance,
        "GetInstanceState": get_state,
        "ListProjects": list_projects,
        "GetProject": get_project,
        "GetInfo": get_info,
        "DeleteInstance": delete,
        "ReadLog": read_log,
    }


async def echo(call: Call) -> None:
    call.reply({"text": call.text("text")})


class Commands:
    """What Exec asks for is run on this machine, on the descriptors that came or on a terminal."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.signals: list[int] = []
        self.sizes: list[tuple[int, int]] = []

    @property
    def methods(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        return {"Exec": self.execute, "SignalExec": self.signal, "OpenConsole": self.open_console,
                "ResizeConsole": self.resize_console}  # fmt: skip

    async def execute(self, call: Call) -> None:
        tty = call.flag("tty")
        process = _on_terminal(call) if tty else _started(call, *call.fds[:3])
        self.running[call.text("session", "")] = process
        close_all(call.fds)
        call.fds.clear()
        try:
            status = await asyncio.to_thread(process.wait)
        except asyncio.CancelledError:
            process.send_signal(signal.SIGHUP)
            raise
        call.reply({"exitStatus": status if status >= 0 else 128 - status})

    async def open_console(self, call: Call) -> None:
        """That of a shell which repeats what it hears, until that is "end"."""
        ours, theirs = socket.socketpair()
        script = "echo login:; while read x; do echo got=$x; [ $x = end ] && break; done"
        subprocess.Popen(["sh", "-c", script], stdin=ours.fileno(), stdout=ours.fileno())
        ours.close()
        call.reply_fds = [theirs.detach()]
        call.reply({"streamFd": 0})

    async def resize_console(self, call: Call) -> None:
        self.sizes.append((call.number("rows"), call.number("columns")))
        call.reply({})

    async def signal(self, call: Call) -> None:
        process = self.running.get(call.text("session"))
        if process is None:
            raise NotFoundError("no such session")
        self.signals.append(call.number("signal"))
        process.send_signal(call.number("signal"))
        call.reply({})


def _started(call: Call, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ["PATH"], **call.mapping("environment")}
    return subprocess.Popen(
        call.texts("command"), stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
    )


def _on_terminal(call: Call) -> subprocess.Popen[bytes]:
    controller, terminal = pty.openpty()
    size = struct.pack("HHHH", call.number("rows", 0), call.number("columns", 0), 0, 0)
    fcntl.ioctl(controller, termios.TIOCSWINSZ, size)
    process = _started(call, terminal, terminal, terminal)
    os.close(terminal)
    call.reply_fds = [controller]
    call.reply({"terminalFd": 0}, continues=True)
    return process


class Files:
    """Files of instances, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def methods(self) -> dict[str, Callable[[Call], Awaitable[None]]]:
        trees = {"PushTree": self.push_tree, "PullTree": self.pull_tree}
        return {"PushFile": self.push, "PullFile": self.pull, **trees}

    def _place(self, call: Call) -> Path:
        return self.folder / call.text("path").strip("/")

    async def push(self, call: Call) -> None:
        fd = call.fd("dataFd")
        data = await asyncio.to_thread(_all_of, fd)
        if call.number("size", -1) not in (-1, len(data)):
            raise FailedError("the data ended early")
        self._place(call).write_bytes(data)
        call.reply({"operation": {"status": "done"}})

    async def pull(self, call: Call) -> None:
        fd, place = call.fd("dataFd"), self._place(call)
        if not place.exists():
            raise NotFoundError(f"{place.name} is not there")
        await asyncio.to_thread(write_all, fd, place.read_bytes())
        os.close(fd)
        call.hand_over()
        result = {"mode": "0640", "uid": str(os.getuid()), "gid": str(os.getgid())}
        call.reply({"operation": {"status": "done", "result": result}})


    async def push_tree(self, call: Call) -> None:
        data = await asyncio.to_thread(_all_of, call.fd("dataFd"))
        place = self._place(call)
        place.mkdir(exist_ok=True)
        await asyncio.to_thread(subprocess.run, ["tar", "-xC", str(place)], input=data, check=True)
        call.reply({"operation": {"status": "done"}})

    async def pull_tree(self, call: Call) -> None:
        place = self._place(call)
        made = await asyncio.to_thread(
            subprocess.run, ["tar", "-cC", str(place.parent), place.name], capture_output=True, check=True
        )
        await asyncio.to_thread(write_all, call.fd("dataFd"), made.stdout)
        call.reply({"operation": {"status": "done"}})


def _all_of(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 1 << 20):
        data += piece
    return data
