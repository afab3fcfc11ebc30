# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of the switch in a network card, over devlink (Documentation/networking/devlink of the
kernel's): in which mode it is, and which of the host's links leads to which virtual function."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sysd.runtime import sysfs
from sysd.runtime.sriov.netlink import DUMP, REQUEST, ask, attribute, attributes

_GENERIC = 16
"""NETLINK_GENERIC, which socket has no name for."""
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_HEADER = struct.Struct("=BBxx")
"""genlmsghdr: a command, and a version."""
_GET_PORT, _GET_SWITCH = 5, 29
_BUS, _DEVICE, _LINK, _MODE, _FLAVOUR, _FUNCTION, _EXTERNAL = 1, 2, 7, 25, 77, 128, 149
_VIRTUAL_FUNCTION = 4
_MODES = {0: "legacy", 1: "switchdev"}

Handle = tuple[str, str]
"""A card: the name of its bus, and its own there."""
_Port = dict[int, bytes]


def handle(link: str) -> Handle:
    """That of the card which a link is of; ("", "") for one that is of none."""
    place = (sysfs.SYS / "class/net" / link / "device").resolve()
    bus = (place / "subsystem").resolve().name
    return (bus, place.name) if (place / "subsystem").exists() else ("", "")


def mode(card: Handle) -> str:
    """Of its switch: legacy or switchdev; empty for a card that has none, or does not say."""
    for port in _answers(_GET_SWITCH, REQUEST, card):
        if len(port.get(_MODE, b"")) == 2:
            return _MODES.get(int(struct.unpack("=H", port[_MODE])[0]), "")
    return ""


def representors(card: Handle) -> dict[int, str]:
    """The links that lead to virtual functions of a card, by number; none when there are none, or nobody says so."""
    ports = (port for port in _answers(_GET_PORT, REQUEST | DUMP, card) if _is_of(port, card))
    functions = (port for port in ports if _number(port, _FLAVOUR) == _VIRTUAL_FUNCTION and _text(port, _LINK))
    return {_number(port, _FUNCTION): _text(port, _LINK) for port in functions}


def _is_of(port: _Port, card: Handle) -> bool:
    """Not to another computer, either, of which some cards are a part, too."""
    return (_text(port, _BUS), _text(port, _DEVICE)) == card and not any(port.get(_EXTERNAL, b""))


def _text(port: _Port, what: int) -> str:
    return port.get(what, b"").rstrip(b"\0").decode(errors="replace")


def _number(port: _Port, what: int) -> int:
    value = port.get(what, b"")
    return int(struct.unpack("=H", value)[0]) if len(value) == 2 else -1


def _answers(command: int, flags: int, card: Handle) -> Iterator[_Port]:
    """None at all where the kernel has no devlink, or the card nothing to do with it."""
    named = b"" if flags & DUMP else _named(_BUS, card[0]) + _named(_DEVICE, card[1])
    try:
        if family := _family():
            for body in ask(family, flags, _HEADER.pack(command, 1) + named, _GENERIC):
                yield dict(attributes(body[_HEADER.size :]))
    except OSError:
        return


def _family() -> int:
    request = _HEADER.pack(_GET_FAMILY, 1) + _named(_FAMILY_NAME, "devlink")
    for body in ask(_CONTROL, REQUEST, request, _GENERIC):
        found = dict(attributes(body[_HEADER.size :])).get(_FAMILY_ID, b"")
        return int(struct.unpack("=H", found)[0]) if len(found) == 2 else 0
    return 0


def _named(what: int, text: str) -> bytes:
    return attribute(what, text.encode() + b"\0")
