# SPDX-License-Identifier: Apache-2.0
"""Interfaces as tables, like sd_bus_vtable(3): from them come dispatch, properties and introspection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

from dbus_next import Variant

from sysd.manager.actions import Action, Caller
from sysd.model.errors import InvalidError

Arguments = Sequence[tuple[str, str]]
"""(signature, name) pairs."""
ADD_DEVICE: Arguments = [("s", "device"), ("a{ss}", "options")]
CHANGE_DEVICE: Arguments = [("s", "device"), ("a{ss}", "set"), ("as", "unset")]
"""What methods of all that has devices take."""


@dataclass(slots=True)
class Call:
    """One call under way. Its end closes the descriptors in fds, but for those that were handed over."""

    body: list[Any]
    caller: Caller
    fds: list[int]
    reply_fds: list[int] = field(default_factory=list)
    """Closed once the reply is written."""
    _taken: set[int] = field(default_factory=set)

    @property
    def options(self) -> Options:
        """The trailing a{sv}, which callers may leave out."""
        last = self.body[-1] if self.body and isinstance(self.body[-1], dict) else {}
        return Options(last, self)

    def take_fd(self, index: int) -> int:
        """One that came with the call, once only; it is still the call's until hand_over."""
        if not 0 <= index < len(self.fds) or index in self._taken:
            raise InvalidError("a descriptor did not come with the call")
        self._taken.add(index)
        return self.fds[index]

    def hand_over(self) -> None:
        """What was taken belongs to another from now on, who closes it."""
        for index in self._taken:
            self.fds[index] = -1


class Options:
    """Options of a call: each is asked for with its signature; an unknown one is an error."""

    def __init__(self, values: dict[str, Variant], call: Call) -> None:
        self._values = dict(values)
        self._call = call

    def take(self, name: str, signature: str, default: Any) -> Any:
        variant = self._values.pop(name, None)
        if variant is None:
            return default
        if variant.signature != signature:
            raise InvalidError(f"option {name} has type {variant.signature}", f"it must be {signature}")
        return variant.value

    def flag(self, name: str) -> bool:
        return bool(self.take(name, "b", False))

    def text(self, name: str, default: str = "") -> str:
        return str(self.take(name, "s", default))

    def fd(self, name: str) -> int:
        index = self.take(name, "h", None)
        return -1 if index is None else self._call.take_fd(index)

    def end(self) -> None:
        if self._values:
            raise InvalidError(f"unknown option {next(iter(self._values))!r}")


@dataclass(frozen=True, slots=True)
class Method:
    """run gets the object (a name, or "") and the call, and returns the reply's values."""

    name: str
    takes: Arguments
    gives: Arguments
    run: Callable[[str, Call], Awaitable[list[Any]]]
    action: Action | None = None

    @property
    def signature(self) -> str:
        return "".join(signature for signature, _ in self.takes)

    def accepts(self, signature: str) -> bool:
        return signature == self.signature or (
            self.signature.endswith("a{sv}") and signature == self.signature.removesuffix("a{sv}")
        )


@dataclass(frozen=True, slots=True)
class Property:
    name: str
    signature: str
    get: Callable[[str], Any]
    changes: bool = True


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    methods: Sequence[Method] = ()
    properties: Sequence[Property] = ()
    signals: Sequence[Signal] = ()

    def method(self, name: str) -> Method | None:
        return next((m for m in self.methods if m.name == name), None)

    def property(self, name: str) -> Property | None:
        return next((p for p in self.properties if p.name == name), None)

    def values(self, target: str, names: Sequence[str] | None = None) -> dict[str, Variant]:
        """Values of the properties of an object, of all or of those in names."""
        return {
            p.name: Variant(p.signature, p.get(target)) for p in self.properties if names is None or p.name in names
        }

    def xml(self) -> str:
        """Its element in the D-Bus introspection format."""
        lines = [f" <interface name={quoteattr(self.name)}>"]
        for method in self.methods:
            lines.append(f"  <method name={quoteattr(method.name)}>")
            for direction, arguments in (("in", method.takes), ("out", method.gives)):
                for signature, name in arguments:
                    lines.append(
                        f'   <arg type={quoteattr(signature)} name={quoteattr(name)} direction="{direction}"/>'
                    )
            lines.append("  </method>")
        for signal in self.signals:
            lines.append(f"  <signal name={quoteattr(signal.name)}>")
            for signature, name in signal.arguments:
                lines.append(f"   <arg type={quoteattr(signature)} name={quoteattr(name)}/>")
            lines.append("  </signal>")
        for prop in self.properties:
            lines.append(f'  <property name={quoteattr(prop.name)} type={quoteattr(prop.signature)} access="read">')
            emits = "true" if prop.changes else "const"
            annotation = "org.freedesktop.DBus.Property.EmitsChangedSignal"
            lines.append(f'   <annotation name="{annotation}" value="{emits}"/>')
            lines.append("  </property>")
        lines.append(" </interface>")
        return "\n".join(lines)


DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)

STANDARD = """ <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
  <method name="GetMachineId">
   <arg type="s" name="machine_uuid" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect">
   <arg type="s" name="xml" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg type="s" name="interface" direction="in"/>
   <arg type="s" name="property" direction="in"/>
   <arg type="v" name="value" direction="out"/>
  </method>
  <method name="GetAll">
   <arg type="s" name="interface" direction="in"/>
   <arg type="a{sv}" name="properties" direction="out"/>
  </method>
  <signal name="PropertiesChanged">
   <arg type="s" name="interface"/>
   <arg type="a{sv}" name="changed_properties"/>
   <arg type="as" name="invalidated_properties"/>
  </signal>
 </interface>"""

OBJECT_MANAGER = """ <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects">
   <arg type="a{oa{sa{sv}}}" name="objects" direction="out"/>
  </method>
  <signal name="InterfacesAdded">
   <arg type="o" name="object"/>
   <arg type="a{sa{sv}}" name="interfaces"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg type="o" name="object"/>
   <arg type="as" name="interfaces"/>
  </signal>
 </interface>"""


def document(interface: Interface) -> str:
    """The file that data/dbus-1/interfaces ships for an interface."""
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n{DOCTYPE}<!-- SPDX-License-Identifier: Apache-2.0 -->\n'
    return f"{head}<node>\n{interface.xml()}\n</node>\n"
