# SPDX-License-Identifier: Apache-2.0
"""The system bus: calls, signals and match rules, on top of dbus-next's messages."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from dbus_next import BusType, Message, MessageType, RequestNameReply
from dbus_next.aio import MessageBus

from sysd.units.reader import Reader

log = logging.getLogger(__name__)

Handler = Callable[[Message], bool]
"""Gets an incoming message; True means that it was dealt with."""

AT_ONCE = 40
"""Calls of one service that wait for replies; the bus daemon allows a connection 128 in all. More wait their turn."""

DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """An error reply: its D-Bus name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} [{name}]")
        self.name = name
        self.message = message


def take_fds(message: Message) -> list[int]:
    """The descriptors of a message; the taker closes them. What nobody took is closed after dispatch."""
    fds, message.unix_fds = list(message.unix_fds), []
    return fds


class PatientBus(MessageBus):  # type: ignore[misc]
    """dbus-next writes all queued messages in one go and takes a full socket for a broken one. One message at a
    time does not fill it: each is begun when the socket can be written, and rests of it wait for that too."""

    def __init__(self) -> None:
        super().__init__(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        self._waiting: deque[tuple[Message, asyncio.Future[None]]] = deque()
        self._writing = False

    def _create_unmarshaller(self) -> Reader:
        return Reader(self._stream, self._sock)

    def send(self, message: Message) -> asyncio.Future[None]:
        """A future that is done when the message was written."""
        message.serial = message.serial or self.next_serial()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, written))
        if not self._writing:
            self._write_next()
        return written

    def _write_next(self) -> None:
        self._writing = bool(self._waiting)
        if self._writing:
            message, written = self._waiting.popleft()
            super().send(message).add_done_callback(lambda inner: self._wrote(inner, written))

    def _wrote(self, inner: asyncio.Future[None], written: asyncio.Future[None]) -> None:
        if not written.done():
            written.set_result(None)
        if inner.exception() is None:  # else the connection is lost, and the daemon with it
            self._write_next()


class Bus:
    def __init__(self, bus: PatientBus) -> None:
        self._bus = bus
        self._on_call: Handler | None = None
        self._on_signal: list[Handler] = []
        self._turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        bus.add_message_handler(self._dispatch)

    @classmethod
    async def connect(cls) -> Bus:
        return cls(await PatientBus().connect())

    async def wait_for_disconnect(self) -> None:
        await self._bus.wait_for_disconnect()

    @property
    def unique_name(self) -> str:
        return str(self._bus.unique_name)

    async def request_name(self, name: str) -> None:
        reply = await self._bus.request_name(name)
        if reply is not RequestNameReply.PRIMARY_OWNER:
            raise RuntimeError(f"the bus name {name} belongs to another process")

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *body: object
    ) -> list[Any]:
        """The body of the reply; raises BusError for an error reply."""
        return await self.call_with_fds(destination, path, interface, member, signature, list(body), [])

    async def call_people(
        self, destination: str, path: str, interface: str, member: str, signature: str, *body: object
    ) -> list[Any]:
        """Like call, where a person may be asked for the answer: who waits for that is in nobody's way."""
        return await self._call(destination, path, interface, member, signature, list(body), [])

    async def call_with_fds(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: list[Any], fds: list[int]
    ) -> list[Any]:
        """Like call; a value of type h is an index into fds."""
        async with self._turns[destination]:
            return await self._call(destination, path, interface, member, signature, body, fds)

    async def _call(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: list[Any], fds: list[int]
    ) -> list[Any]:
        reply = await self._bus.call(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=body,
                unix_fds=fds,
            )
        )
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise BusError(reply.error_name, text)
        return list(reply.body)

    def send(self, message: Message) -> asyncio.Future[None]:
        """Queue a message; the future is done when it was written, and its descriptors may be closed."""
        return self._bus.send(message)

    def emit(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self._bus.send(Message.new_signal(path, interface, member, signature, body))

    async def add_match(self, rule: str) -> None:
        await self.call(*DBUS, "AddMatch", "s", rule)

    def on_call(self, handler: Handler) -> None:
        """The one that answers method calls."""
        self._on_call = handler

    def on_signal(self, handler: Handler) -> None:
        """Gets signals of anyone: also ones that were sent to us alone, which no match rule holds back. It must look
        at the sender (see Owner)."""
        self._on_signal.append(handler)

    def _dispatch(self, message: Message) -> bool:
        try:
            if message.message_type is MessageType.METHOD_CALL:
                return self._on_call is not None and self._on_call(message)
            if message.message_type is MessageType.SIGNAL:
                return any(handler(message) for handler in self._on_signal)
        except Exception:
            log.exception("handling %s.%s failed", message.interface, message.member)
        finally:
            if message.message_type is not MessageType.METHOD_RETURN:
                for fd in take_fds(message):
                    os.close(fd)
        return False


class Owner:
    """Who owns a well-known name now: signals in its name are believed only from that connection."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._name = name
        self._unique = ""
        bus.on_signal(self._changed)

    async def start(self) -> None:
        sender, _, interface = DBUS
        await self._bus.add_match(
            f"type='signal',sender='{sender}',interface='{interface}',member='NameOwnerChanged',arg0='{self._name}'"
        )
        (self._unique,) = await self._bus.call(*DBUS, "GetNameOwner", "s", self._name)

    def sent(self, message: Message) -> bool:
        return bool(self._unique) and message.sender == self._unique

    def _changed(self, message: Message) -> bool:
        # The bus itself fills in the sender, so that of the bus can't be forged.
        if message.sender != DBUS[0] or message.member != "NameOwnerChanged" or message.body[0] != self._name:
            return False
        self._unique = message.body[2]
        return True
