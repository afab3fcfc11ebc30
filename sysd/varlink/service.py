# SPDX-License-Identifier: Apache-2.0
"""Calls on the varlink socket, looked up in a table of methods; org.varlink.service besides."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sysd
from sysd.manager.actions import NOBODY, Action, Authority, Caller
from sysd.model.errors import FailedError, InvalidError, SyscontError
from sysd.varlink.protocol import MANAGERS, Connection, HangUps, Limits, close_all, credentials

log = logging.getLogger(__name__)

T = TypeVar("T")

INTERFACE = "org.syscont.Manager"
SERVICE = "org.varlink.service"
SERVICE_DESCRIPTION = """\
# What every varlink service answers.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""
MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_EACH = 128
"""Most connections of all users, and of each, other than root."""


@dataclass(slots=True)
class Parameters:
    """What a call says, read by type. Raises InvalidError naming what is missing or of another type."""

    parameters: dict[str, Any]

    def has(self, name: str) -> bool:
        """Whether a parameter was given."""
        return self.parameters.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        return self._typed(name, str, default)

    def flag(self, name: str) -> bool:
        return self._typed(name, bool, False)

    def number(self, name: str, default: int | None = None) -> int:
        return self._typed(name, int, default)

    def texts(self, name: str, default: Sequence[str] = ()) -> list[str]:
        value = self._typed(name, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise InvalidError(f"{name}: not a list of strings")
        return value

    def mapping(self, name: str) -> dict[str, str]:
        value = self._typed(name, dict, {})
        if not all(isinstance(item, str) for item in value.values()):
            raise InvalidError(f"{name}: not a map of strings")
        return value

    def mappings(self, name: str) -> dict[str, dict[str, str]]:
        """A map of maps of strings, such as devices."""
        value = self._typed(name, dict, {})
        for inner in value.values():
            if not isinstance(inner, dict) or not all(isinstance(item, str) for item in inner.values()):
                raise InvalidError(f"{name}: not a map of maps of strings")
        return value

    def rows(self, name: str) -> list[dict[str, str]]:
        """A list of maps of strings, such as rules."""
        value = self._typed(name, list, [])
        for inner in value:
            if not isinstance(inner, dict) or not all(isinstance(item, str) for item in inner.values()):
                raise InvalidError(f"{name}: not a list of maps of strings")
        return value

    def object(self, name: str) -> Parameters:
        """An object of several fields."""
        return Parameters(self._typed(name, dict, None))

    def objects(self, name: str) -> list[Parameters]:
        """A list of objects of several fields."""
        value = self._typed(name, list, [])
        if not all(isinstance(inner, dict) for inner in value):
            raise InvalidError(f"{name}: not a list of objects")
        return [Parameters(inner) for inner in value]

    def _typed(self, name: str, kind: type[T], default: T | None) -> T:
        value = self.parameters.get(name)
        if value is None:
            if default is None:
                raise InvalidError(f"parameter {name} is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidError(f"parameter {name} has the wrong type")
        return value


@dataclass(slots=True)
class Call(Parameters):
    """One call under way: what it says, who asks, and how to answer before the end."""

    connection: Connection = field(kw_only=True)
    caller: Caller = field(kw_only=True)
    more: bool = False
    oneway: bool = False
    fds: list[int] = field(default_factory=list)
    reply_fds: list[int] = field(default_factory=list)
    """Go with the next reply, and are closed then."""
    _taken: set[int] = field(default_factory=set)

    def fd(self, name: str) -> int:
        """The descriptor that a parameter points to, once only; -1 when it is not given. It is still the call's
        until hand_over, and closed at its end."""
        index = self._typed(name, int, -1)
        if index == -1:
            return -1
        if not 0 <= index < len(self.fds) or index in self._taken:
            raise InvalidError(f"{name}: no descriptor {index} came with the call")
        self._taken.add(index)
        return self.fds[index]

    def hand_over(self) -> None:
        """What was taken belongs to another from now on, who closes it."""
        for index in self._taken:
            self.fds[index] = -1

    def close(self) -> None:
        """Called once, when all is done."""
        close_all(self.fds)
        close_all(self.reply_fds)

    def reply(self, parameters: Mapping[str, Any], *, continues: bool = False) -> None:
        message: dict[str, Any] = {"parameters": parameters}
        if continues:
            message["continues"] = True
        self.reply_raw(json.dumps(message).encode())

    def reply_raw(self, message: bytes) -> None:
        fds, self.reply_fds = self.reply_fds, []
        if self.oneway:
            close_all(fds)
        else:
            self.connection.send(message, fds)


@dataclass(frozen=True, slots=True)
class Method:
    """run answers by itself through the call. action: what the caller must be allowed."""

    name: str
    run: Callable[[Call], Awaitable[None]]
    action: Action | None = None


def check_text(value: object) -> None:
    """JSON can hold halves of surrogate pairs; nothing that takes text can."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise InvalidError("a text in the parameters is not valid Unicode") from None


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    description: str
    methods: Sequence[Method]


class Answers:
    """Answers calls of an interface on connections that it is given, and those of org.varlink.service if the interface
    is described."""

    def __init__(self, interface: Interface, authority: Authority) -> None:
        self._interface = interface
        self._authority = authority
        self._methods = {f"{interface.name}.{method.name}": method for method in interface.methods}
        if interface.description:
            self._methods[f"{SERVICE}.GetInfo"] = Method("GetInfo", self._get_info)
            self._methods[f"{SERVICE}.GetInterfaceDescription"] = Method("GetInterfaceDescription", self._describe)
        self._hang_ups = HangUps()
        self._connections: dict[Connection, asyncio.Task[None] | None] = {}

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()
        self._hang_ups.close()

    def add(
        self, sock: socket.socket, caller: Caller, on_close: Callable[[], None], limits: Limits = MANAGERS
    ) -> Connection:
        """Serve a connection until either side closes it."""

        def closed() -> None:
            if task := self._connections.pop(connection, None):
                task.cancel()
            on_close()

        def called(connection: Connection, message: dict[str, Any]) -> None:
            self._called(connection, caller, message)

        connection = Connection(sock, called, closed, self._hang_ups, limits)
        self._connections[connection] = None
        return connection

    def _called(self, connection: Connection, caller: Caller, message: dict[str, Any]) -> None:
        parameters = message.get("parameters") or {}
        call = Call(
            parameters,
            connection=connection,
            caller=caller,
            more=bool(message.get("more")),
            oneway=bool(message.get("oneway")),
            fds=connection.take_fds(),
        )
        task = self._connections[connection] = asyncio.create_task(self._run(call, str(message.get("method"))))
        # Not at the end of the task: one that is cancelled early never begins.
        task.add_done_callback(lambda _: call.close())

    async def _run(self, call: Call, name: str) -> None:
        method = self._methods.get(name)
        try:
            if call.caller.pace and (delay := call.caller.pace.step()):
                await asyncio.sleep(delay)
            if method is None:
                interface, _, member = name.rpartition(".")
                self._error(call, f"{SERVICE}.MethodNotFound", {"method": member or interface})
                return
            if not isinstance(call.parameters, dict):
                raise InvalidError("parameters are not an object")
            check_text(call.parameters)
            if method.action:
                details = {"verb": method.name, "instance": str(call.parameters.get("name", ""))}
                await self._authority.check(call.caller, method.action, details)
            await method.run(call)
        except SyscontError as error:
            self._refuse(call, error)
        except Exception as error:
            log.exception("%s failed", name)
            # What it was about is not for guests, nor for strangers.
            known = not call.caller.guest and call.caller.uid != NOBODY
            what = f"internal error: {error}" if known else "internal error"
            self._refuse(call, FailedError(what, "the journal of syscontd.service says more"))
        finally:
            if call.connection in self._connections:
                self._connections[call.connection] = None
            call.connection.done()

    def _refuse(self, call: Call, error: SyscontError) -> None:
        self._error(call, f"{self._interface.name}.{error.code}", {"message": error.message, "hint": error.hint})

    def _error(self, call: Call, name: str, parameters: dict[str, str]) -> None:
        call.reply_raw(json.dumps({"error": name, "parameters": parameters}).encode())

    async def _get_info(self, call: Call) -> None:
        call.reply(
            {
                "vendor": "syscont",
                "product": "syscont",
                "version": sysd.__version__,
                "url": "https://syscont.org",
                "interfaces": [SERVICE, self._interface.name],
            }
        )

    async def _describe(self, call: Call) -> None:
        wanted = call.text("interface")
        known = {self._interface.name: self._interface.description, SERVICE: SERVICE_DESCRIPTION}
        if wanted in known:
            call.reply({"description": known[wanted]})
        else:
            self._error(call, f"{SERVICE}.InterfaceNotFound", {"interface": wanted})


class Service:
    """The manager's own socket, which users of the host connect to."""

    def __init__(self, sock: socket.socket, interface: Interface, authority: Authority) -> None:
        self._socket = sock
        self._answers = Answers(interface, authority)
        self._uids: dict[object, int] = {}
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._accept)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._answers.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        pid, uid = credentials(sock)
        key = object()
        self._uids[key] = uid

        def closed() -> None:
            del self._uids[key]

        connection = self._answers.add(sock, Caller(uid, pid=pid), closed)
        # Root's are not counted, nor limited: others must not be able to shut it out.
        others = [other for other in self._uids.values() if other]
        if uid and (len(others) > MAX_CONNECTIONS or others.count(uid) > MAX_CONNECTIONS_EACH):
            connection.close()
