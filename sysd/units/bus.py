# SPDX-License-Identifier: Apache-2.0
"""The system bus: calls, signals and match rules, on top of dbus-next's messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dbus_next import BusType, Message, MessageType, RequestNameReply
from dbus_next.aio import MessageBus

log = logging.getLogger(__name__)

Handler = Callable[[Message], bool]
"""Gets each incoming message that is not a reply; True means that it was dealt with."""

DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """An error reply: its D-Bus name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} [{name}]")
        self.name = name
        self.message = message


class Bus:
    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._handlers: list[Handler] = []
        bus.add_message_handler(self._dispatch)

    @classmethod
    async def connect(cls) -> Bus:
        return cls(await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect())

    def disconnect(self) -> None:
        self._bus.disconnect()

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

    async def call_with_fds(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: list[Any], fds: list[int]
    ) -> list[Any]:
        """Like call; a value of type h is an index into fds."""
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

    def send(self, message: Message) -> None:
        self._bus.send(message)

    def emit(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self._bus.send(Message.new_signal(path, interface, member, signature, body))

    async def add_match(self, rule: str) -> None:
        await self.call(*DBUS, "AddMatch", "s", rule)

    def add_handler(self, handler: Handler) -> None:
        self._handlers.append(handler)

    def _dispatch(self, message: Message) -> bool:
        if message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR):
            return False
        for handler in self._handlers:
            try:
                if handler(message):
                    return True
            except Exception:
                log.exception("handling %s.%s failed", message.interface, message.member)
        return False
