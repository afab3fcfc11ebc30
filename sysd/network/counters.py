# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts of links (rtnetlink(7), IFLA_STATS64): the host's, and those in a guest."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from sysd import _cext
from sysd.network.netlink import NLM_REQUEST, attribute, message

_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_HEADER, _LINK = 16, 16
"""Bytes of a nlmsghdr, and of the ifinfomsg behind it."""
_STATS = struct.Struct("=4Q")
_KERNEL = 0
"""Its port: a guest's root may send messages, too."""
_TRIES = 16
_TIMEOUT = 1.0
"""Seconds; the kernel answers at once."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the link was made, from its own side."""

    received_packets: int
    sent_packets: int
    received_bytes: int
    sent_bytes: int


def of_host(names: Iterable[str]) -> dict[str, Counters]:
    """Of links of the host's, by name; without those that are not there."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        return _ask(sock, names)


def of_guest(pidfd: int, names: Iterable[str]) -> dict[str, Counters]:
    """Of links in the network namespace of a process. Raises OSError when it is gone."""
    with socket.socket(fileno=_cext.netlink_socket_in(pidfd, _cext.NETLINK_ROUTE, 0)) as sock:
        return _ask(sock, names)


def _ask(sock: socket.socket, names: Iterable[str]) -> dict[str, Counters]:
    sock.settimeout(_TIMEOUT)
    found = {}
    for name in names:
        sock.send(message(_RTM_GETLINK, NLM_REQUEST, bytes(_LINK) + attribute(_IFLA_IFNAME, name.encode() + b"\0")))
        if counters := parse(_answer(sock)):
            found[name] = counters
    return found


def _answer(sock: socket.socket) -> bytes:
    for _ in range(_TRIES):
        data, (sender, _) = sock.recvfrom(1 << 16)
        if sender == _KERNEL:
            return bytes(data)
    return b""


def parse(answer: bytes) -> Counters | None:
    """None for an answer that is an error, or has no counters."""
    if len(answer) < _HEADER + _LINK or struct.unpack_from("=H", answer, 4)[0] != _RTM_NEWLINK:
        return None
    at = _HEADER + _LINK
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _IFLA_STATS64 and at + 4 + _STATS.size <= len(answer):
            return Counters(*_STATS.unpack_from(answer, at + 4))
        at += max(4, length + -length % 4)
    return None
