# SPDX-License-Identifier: Apache-2.0
"""What a card says and is told of its virtual functions, and their links, over rtnetlink(7).

These few messages are put together here: whoever sends them is a program that runs at each start of an instance, and
would take longer to load pyroute2 than for all else that it does.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

REQUEST, DUMP = 0x1, 0x300
_ACK = 0x4
_ERROR, _DONE = 2, 3
_NEW_LINK, _GET_LINK, _GET_ADDRESS = 16, 18, 22
_NESTED, _KIND = 0x8000, 0x3FFF
_HWADDR, _NAME, _MTU, _FUNCTIONS, _WHAT = 1, 3, 4, 22, 29
_FUNCTION = 1
_MAC, _VLAN, _SPOOF = 1, 2, 4
_WITH_FUNCTIONS = 1 | 8
"""RTEXT_FILTER_VF, and not their counters."""
_UP = 1
_HEADER, _LINK, _ADDRESS = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_MOST = 1 << 20
_MAX_ADDRESS = 32
_UNKNOWN = 0xFFFFFFFF
NO_MAC = "00:00:00:00:00:00"
_TIMEOUT = 10.0
"""Seconds: a card may take its time over what it is told."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a virtual function, as its card has them. mac: all zeros for one that the function chooses by itself. spoof:
    whether it is held to that address and VLAN; None where the card does not say."""

    mac: str
    vlan: int = 0
    qos: int = 0
    spoof: bool | None = None


def settings(card: int) -> dict[int, Settings]:
    """Of all functions of a card, whose link has this index, by number. Raises OSError."""
    request = _LINK.pack(0, 0, card, 0, 0) + attribute(_WHAT, struct.pack("=I", _WITH_FUNCTIONS))
    found: dict[int, Settings] = {}
    for body in ask(_GET_LINK, REQUEST, request):
        for kind, functions in attributes(body[_LINK.size :]):
            if kind == _FUNCTIONS:
                found |= dict(_function(one) for what, one in attributes(functions) if what == _FUNCTION)
    return found


def _function(data: bytes) -> tuple[int, Settings]:
    number, said = 0, Settings(NO_MAC)
    for kind, value in attributes(data):
        if kind == _MAC:
            number = int(struct.unpack_from("=I", value)[0])
            said = replace(said, mac=value[4:10].hex(":"))
        elif kind == _VLAN:
            _, vlan, qos = struct.unpack_from("=III", value)
            said = replace(said, vlan=vlan, qos=qos)
        elif kind == _SPOOF:
            (spoof,) = struct.unpack_from("=4xI", value)
            said = replace(said, spoof=None if spoof == _UNKNOWN else bool(spoof))
    return number, said


def change(card: int, number: int, before: Settings, after: Settings) -> None:
    """Tell a card what is other than before of a function. Raises OSError."""
    values = []
    if after.mac != before.mac:
        mac = bytes.fromhex(after.mac.replace(":", ""))
        values.append(attribute(_MAC, struct.pack("=I", number) + mac.ljust(_MAX_ADDRESS, b"\0")))
    if (after.vlan, after.qos) != (before.vlan, before.qos):
        values.append(attribute(_VLAN, struct.pack("=III", number, after.vlan, after.qos)))
    if after.spoof is not None and after.spoof != before.spoof:
        values.append(attribute(_SPOOF, struct.pack("=II", number, after.spoof)))
    for value in values:  # one by one: a card that refuses one is known by it
        _change(card, attribute(_FUNCTIONS | _NESTED, attribute(_FUNCTION | _NESTED, value)))


def rename(index: int, name: str) -> None:
    """A link that is down. Raises OSError."""
    _change(index, attribute(_NAME, name.encode() + b"\0"))


def set_hwaddr(index: int, hwaddr: str) -> None:
    _change(index, attribute(_HWADDR, bytes.fromhex(hwaddr.replace(":", ""))))


def set_mtu(index: int, mtu: int) -> None:
    _change(index, attribute(_MTU, struct.pack("=I", mtu)))


def bring_up(index: int) -> None:
    _change(index, b"", _UP, _UP)


def bring_down(index: int) -> None:
    _change(index, b"", 0, _UP)


def has_addresses(index: int) -> bool:
    """Whether the host has any address on a link."""
    found = ask(_GET_ADDRESS, REQUEST | DUMP, _ADDRESS.pack(0, 0, 0, 0, index))
    return any(_ADDRESS.unpack_from(body)[4] == index for body in found)


def _change(index: int, attributes: bytes, flags: int = 0, changed: int = 0) -> None:
    for _ in ask(_NEW_LINK, REQUEST | _ACK, _LINK.pack(0, 0, index, flags, changed) + attributes):
        pass


def ask(kind: int, flags: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> Iterator[bytes]:
    """The answers, without what begins each of them. Raises OSError with the kernel's number for a refusal."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(_TIMEOUT)
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            data = sock.recv(_MOST)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                answer, data = data[_HEADER.size : size], data[(size + 3) & ~3 :]
                if kind == _ERROR and (number := int(struct.unpack_from("=i", answer)[0])):
                    raise OSError(-number, os.strerror(-number))
                if kind in (_ERROR, _DONE):
                    return
                yield answer
            if not flags & DUMP:
                return


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            return
        yield kind & _KIND, data[4:size]
        data = data[(size + 3) & ~3 :]
