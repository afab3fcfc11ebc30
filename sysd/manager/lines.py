# SPDX-License-Identifier: Apache-2.0
"""A connection to another host for one purpose, as both ends see it: four pipes, by which they speak and bytes go.

The daemon that listens has them from the door for other hosts (sysd.varlink.remote), the one that dials makes them
here. What moves the bytes in between is the same as for users of other hosts: sysd.remote.link.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sysd.model.errors import ERRORS, DeniedError, FailedError, SyscontError, UnreachableError

if TYPE_CHECKING:
    import ssl

    from sysd.remote.calling import Calling
    from sysd.remote.certificate import Identity

INTERFACE = "org.syscont.Manager"
STREAMS = ("r", "w", "r", "w")
"""Of a call of Meet, as the listening side sees them: hear, say, take, give."""
PIPE = 1 << 20
"""Bytes that a pipe may hold."""
PATIENCE = 20.0
"""Seconds for one reply."""
PARTING = 10.0
"""Seconds for what was said last to get to the other host."""
MOST_REPLY = 1 << 16
LOST = "the connection to the other host was lost"


class Line:
    """hear and take are read, say and give are written; whoever uses one up sets it to -1. lost is set when nothing
    more comes or goes, to why; ended when this side has closed it. host: where the other one is, if we called it."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.hear, self.say, self.take, self.give = fds
        self.host = ""
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[SyscontError] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def lose(self, why: SyscontError) -> None:
        if not self.lost.done():
            self.lost.set_result(why)

    def end_giving(self) -> None:
        """It was all. What is not all has no end before the other side is told what went wrong."""
        os.close(self.give)
        self.give = -1

    def close_fds(self) -> None:
        for name in ("hear", "say", "take", "give"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
            setattr(self, name, -1)

    async def close(self) -> None:
        """What was said before gets to the other host, if it takes it."""
        self.close_fds()
        if not self.ended.done():
            self.ended.set_result(None)


class DialledLine(Line):
    """The side that has called the other one."""

    def __init__(self, fds: Sequence[int], link: Calling) -> None:
        super().__init__(fds)
        self._link = link
        self._reply = b""
        link.local.setblocking(False)
        asyncio.get_running_loop().add_reader(link.local, self._replied)

    def _replied(self) -> None:
        """The call ends when the other side closes the line, or by the connection's end."""
        try:
            data = self._link.local.recv(MOST_REPLY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._reply += data
        if data and b"\0" not in self._reply and len(self._reply) < MOST_REPLY:
            return
        asyncio.get_running_loop().remove_reader(self._link.local)
        self.lose(_why(self._reply) if self._reply else self._link.failure or FailedError(LOST))

    async def close(self) -> None:
        await super().close()
        try:
            await asyncio.wait([self.lost], timeout=PARTING)
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link.local)
        self.close_fds()
        self._link.abort()
        self._link.local.close()
        for sock in self._link.opened:
            sock.close()
        self.lose(FailedError(LOST))


def _why(reply: bytes) -> SyscontError:
    """What the reply to Meet says, which comes at the end."""
    try:
        said = json.loads(reply.partition(b"\0")[0])
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and "error" in said:
        return error_of(str(said["error"]).rpartition(".")[2], said.get("parameters"))
    return FailedError("the other host has hung up")


def error_of(code: str, said: Any) -> SyscontError:
    """An error that the other host tells."""
    fields = said if isinstance(said, dict) else {}
    message, hint = (str(fields.get(name) or "")[:1000] for name in ("message", "hint"))
    return ERRORS.get(code, FailedError)(message or f"the other host says no more than {code[:40]!r}", hint)


async def dial(addresses: Sequence[str], own: Identity, certificate: bytes, secret: str) -> Line:
    """Call a host that waits for us. Raises SyscontError."""
    connection = await _connected(addresses, own, certificate)
    from sysd.remote import tls
    from sysd.remote.calling import Calling

    tls.expect_answers(connection)
    host = str(connection.getpeername()[0])
    link = Calling(connection, "the other host")
    ours: list[int] = []
    theirs: list[int] = []
    for direction in STREAMS:
        reader, writer = _pipe()
        ours.append(writer if direction == "r" else reader)
        theirs.append(reader if direction == "r" else writer)
    try:
        streams = link.attach(theirs, {at for at, direction in enumerate(STREAMS) if direction == "w"})
    finally:
        for fd in theirs:
            os.close(fd)
    link.start()
    call = {"method": f"{INTERFACE}.Meet", "parameters": {"secret": secret}, "upgrade": True, "streams": streams}
    with contextlib.suppress(OSError):  # then the line is lost, and says why
        link.local.sendall(json.dumps(call).encode() + b"\0")
    say, hear, give, take = ours
    line = DialledLine((hear, say, take, give), link)
    line.host = host
    return line


async def _connected(addresses: Sequence[str], own: Identity, certificate: bytes) -> ssl.SSLSocket:
    # OpenSSL costs some MB, which hosts that speak to no other one do without.
    from sysd.remote.dial import dial as connect

    dialling = asyncio.ensure_future(asyncio.to_thread(connect, addresses, own, certificate))
    try:
        return await asyncio.shield(dialling)
    except asyncio.CancelledError:
        dialling.add_done_callback(_hang_up)
        raise
    except (FailedError, DeniedError) as error:  # nobody is there, or another one
        where = ", ".join(addresses)
        raise UnreachableError(f"the other host is not reached from here at {where}: {error.message}") from None


async def ask(addresses: Sequence[str], own: Identity, certificate: bytes, method: str, **said: Any) -> dict[str, Any]:
    """One call of a host that expects it, which is then told nothing more, and its reply. Raises SyscontError: that is
    DeniedError only when it is the host itself that does not know us."""
    connection = await _connected(addresses, own, certificate)
    call = {"method": f"{INTERFACE}.{method}", "parameters": said}
    return await asyncio.to_thread(_exchange, connection, call)


def _exchange(connection: ssl.SSLSocket, call: dict[str, Any]) -> dict[str, Any]:
    from sysd.remote.dial import explained

    reply = b""
    try:
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(json.dumps(call).encode() + b"\0")
            while b"\0" not in reply and len(reply) < MOST_REPLY and (data := connection.recv(MOST_REPLY)):
                reply += data
        said = json.loads(reply.partition(b"\0")[0])
    except OSError as error:
        raise explained(error, "the other host") from None
    except (ValueError, RecursionError):
        raise FailedError("the other host says what is not understood here") from None
    if not isinstance(said, dict) or "error" in said:
        raise _why(reply)
    found = said.get("parameters")
    return found if isinstance(found, dict) else {}


def _hang_up(dialling: asyncio.Future[ssl.SSLSocket]) -> None:
    if not dialling.cancelled() and not dialling.exception():
        dialling.result().close()


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # it is only slower
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
    return reader, writer
