# SPDX-License-Identifier: Apache-2.0
"""The D-Bus door: finds the object and method that a message is for, asks for permission, answers."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dbus_next import Message, MessageFlag, Variant

from sysd.dbus.interface import DOCTYPE, OBJECT_MANAGER, STANDARD, Call, Interface, Method
from sysd.manager.actions import Authority, Caller
from sysd.manager.background import Background
from sysd.model.errors import BusyError, FailedError, SyscontError
from sysd.model.names import path_decode, path_encode
from sysd.units.bus import DBUS, Bus, BusError, take_fds

log = logging.getLogger(__name__)

ROOT = "/org/syscont/Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
MANAGER_OF_OBJECTS = "org.freedesktop.DBus.ObjectManager"
ERROR = "org.freedesktop.DBus.Error."
MAX_CALLS_EACH = 256
"""Most calls of one peer that are under way at once."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object below ROOT: its path element, its interface, and the names there are now."""

    element: str
    interface: Interface
    names: Callable[[], Iterable[str]]
    has: Callable[[str], bool]

    def path(self, name: str) -> str:
        return f"{ROOT}/{self.element}/{path_encode(name)}"


class DBusError(Exception):
    """An error of D-Bus's own, such as UnknownMethod."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = ERROR + name


class Service:
    def __init__(self, bus: Bus, manager: Interface, kinds: list[Kind], authority: Authority) -> None:
        self._bus = bus
        self._manager = manager
        self._kinds = {kind.element: kind for kind in kinds}
        self._authority = authority
        self._uids: OrderedDict[str, int] = OrderedDict()
        self._calls: dict[str, int] = {}
        self._background = Background()
        bus.on_call(self._incoming)

    # objects

    def find(self, path: str) -> tuple[Interface, str]:
        """The interface and name of the object at path; raises DBusError."""
        if path == ROOT:
            return self._manager, ""
        if path.startswith(ROOT + "/"):
            element, _, encoded = path[len(ROOT) + 1 :].partition("/")
            kind, name = self._kinds.get(element), path_decode(encoded)
            if kind and name and kind.path(name) == path and kind.has(name):
                return kind.interface, name
        raise DBusError("UnknownObject", f"no object {path}")

    def managed_objects(self) -> dict[str, dict[str, dict[str, Variant]]]:
        return {
            kind.path(name): {kind.interface.name: kind.interface.values(name)}
            for kind in self._kinds.values()
            for name in kind.names()
        }

    def introspect(self, path: str) -> str:
        parts: list[str] = []
        children: Iterable[str] = ()
        if path == ROOT:
            parts = [STANDARD, OBJECT_MANAGER, self._manager.xml()]
            children = self._kinds
        elif path == "/" or f"{ROOT}/".startswith(path + "/"):
            rest = ROOT[len(path) :].strip("/")
            children = [rest.split("/")[0]]
        elif path.startswith(ROOT + "/") and (kind := self._kinds.get(path[len(ROOT) + 1 :])):
            children = [path_encode(name) for name in kind.names()]
        else:
            interface, _ = self.find(path)
            parts = [STANDARD, interface.xml()]
        nodes = [f' <node name="{child}"/>' for child in children]
        return f"{DOCTYPE}<node>\n" + "\n".join([*parts, *nodes]) + "\n</node>\n"

    # signals

    def changed(self, kind: str, name: str, properties: Iterable[str]) -> None:
        """Tell the new values of properties of an object."""
        found = self._kinds[kind]
        if found.has(name):
            values = found.interface.values(name, list(properties))
            self._bus.emit(
                found.path(name), PROPERTIES, "PropertiesChanged", "sa{sv}as", [found.interface.name, values, []]
            )

    def manager_changed(self, properties: Iterable[str]) -> None:
        """Tell the new values of properties of the main object."""
        values = self._manager.values("", list(properties))
        self._bus.emit(ROOT, PROPERTIES, "PropertiesChanged", "sa{sv}as", [self._manager.name, values, []])

    def added(self, kind: str, name: str) -> None:
        found = self._kinds[kind]
        values = {found.interface.name: found.interface.values(name)}
        self._bus.emit(ROOT, MANAGER_OF_OBJECTS, "InterfacesAdded", "oa{sa{sv}}", [found.path(name), values])

    def removed(self, kind: str, name: str) -> None:
        found = self._kinds[kind]
        self._bus.emit(ROOT, MANAGER_OF_OBJECTS, "InterfacesRemoved", "oas", [found.path(name), [found.interface.name]])

    def emit(self, signal: str, *values: object) -> None:
        """A signal of the main interface."""
        declared = next(s for s in self._manager.signals if s.name == signal)
        signature = "".join(part for part, _ in declared.arguments)
        self._bus.emit(ROOT, self._manager.name, signal, signature, list(values))

    def path(self, kind: str, name: str) -> str:
        return self._kinds[kind].path(name)

    # calls

    def _incoming(self, message: Message) -> bool:
        if message.interface == "org.freedesktop.DBus.Peer":
            return False  # dbus-next answers these
        sender = message.sender or ""
        if self._calls.get(sender, 0) >= MAX_CALLS_EACH:
            self._fail(message, BusyError("too many calls at once").dbus_name, "too many calls at once")
            return True
        self._calls[sender] = self._calls.get(sender, 0) + 1
        self._background.run(self._answer(message, sender, take_fds(message)))
        return True

    async def _answer(self, message: Message, sender: str, fds: list[int]) -> None:
        try:
            self._reply(message, *await self._dispatch(message, fds))
        except SyscontError as error:
            self._fail(message, error.dbus_name, error.text)
        except DBusError as error:
            self._fail(message, error.name, str(error))
        except Exception as error:
            log.exception("%s.%s failed", message.interface, message.member)
            self._fail(message, FailedError("").dbus_name, f"internal error: {error}")
        finally:
            _close_all(fds)
            self._calls[sender] -= 1
            if not self._calls[sender]:
                del self._calls[sender]

    def _reply(self, message: Message, signature: str, body: list[Any], fds: list[int]) -> None:
        """Closes fds once they are sent, or when they can't be."""
        if message.flags & MessageFlag.NO_REPLY_EXPECTED:
            _close_all(fds)
            return
        try:
            written = self._bus.send(Message.new_method_return(message, signature, body, fds))
        except BaseException:
            _close_all(fds)
            raise
        written.add_done_callback(lambda _: _close_all(fds))

    def _fail(self, message: Message, name: str, text: str) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._bus.send(Message.new_error(message, name, text))

    async def _dispatch(self, message: Message, fds: list[int]) -> tuple[str, list[Any], list[int]]:
        member, interface_name = message.member, message.interface
        if (interface_name or member) in ("org.freedesktop.DBus.Introspectable", "Introspect"):
            return "s", [self.introspect(message.path)], []
        interface, name = self.find(message.path)
        if interface_name == PROPERTIES:
            return (*self._property(interface, name, message), [])
        if interface_name == MANAGER_OF_OBJECTS and member == "GetManagedObjects" and message.path == ROOT:
            return "a{oa{sa{sv}}}", [self.managed_objects()], []
        method = interface.method(member) if interface_name in (None, "", interface.name) else None
        if method is None:
            raise DBusError("UnknownMethod", f"no method {interface_name}.{member} at {message.path}")
        if not method.accepts(message.signature):
            raise DBusError("InvalidArgs", f"{member} takes ({method.signature}), not ({message.signature})")
        return await self._run(method, name, message, fds)

    async def _run(
        self, method: Method, name: str, message: Message, fds: list[int]
    ) -> tuple[str, list[Any], list[int]]:
        caller = Caller(await self._uid(message.sender), bus_name=message.sender)
        if method.action:
            details = {"verb": method.name, "instance": name}
            await self._authority.check(caller, method.action, details)
        call = Call(message.body, caller, fds)
        values = await method.run(name, call)
        return "".join(signature for signature, _ in method.gives), values, call.reply_fds

    def _property(self, interface: Interface, name: str, message: Message) -> tuple[str, list[Any]]:
        match message.member, message.signature:
            case "GetAll", "s":
                known = message.body[0] in ("", interface.name)
                return "a{sv}", [interface.values(name) if known else {}]
            case "Get", "ss":
                found = interface.property(message.body[1]) if message.body[0] in ("", interface.name) else None
                if found is None:
                    raise DBusError("UnknownProperty", f"no property {message.body[1]}")
                return "v", [Variant(found.signature, found.get(name))]
            case "Set", "ssv":
                raise DBusError("PropertyReadOnly", f"{message.body[1]} can't be set; use the methods")
        raise DBusError("InvalidArgs", f"no such call of {PROPERTIES}")

    async def _uid(self, sender: str) -> int:
        """Of a peer, asked of the bus once: unique names are never used again."""
        if sender not in self._uids:
            try:
                (uid,) = await self._bus.call(*DBUS, "GetConnectionUnixUser", "s", sender)
            except BusError as error:
                raise DBusError("AccessDenied", f"who calls is not known: {error.message}") from None
            self._uids[sender] = uid
            while len(self._uids) > 512:
                self._uids.popitem(last=False)
        return self._uids[sender]


def _close_all(fds: Iterable[int]) -> None:
    """Those that are -1 belong to another by now."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
