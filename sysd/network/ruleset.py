# SPDX-License-Identifier: Apache-2.0
"""Word of tables of nftables of which something is gone, whoever took it away (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator

_NETLINK_NETFILTER, _GROUP = 12, 7
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GONE = {10 << 8 | kind for kind in (2, 5, 8)}
"""A table, a chain, a rule."""
_NAME, _HEAD = 1, 20
_ROOM = 1 << 21
"""Bytes of news that may wait for us."""


class Watch:
    def __init__(self, gone: Callable[[str], None]) -> None:
        """gone: told a table's name; an empty one when news were lost and any may be gone."""
        self._gone = gone

    def start(self) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        sock.bind((0, 0))
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        asyncio.get_running_loop().add_reader(sock, self._read, sock)

    def _read(self, sock: socket.socket) -> None:
        try:
            names = set(tables_gone(sock.recv(1 << 16)))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            names = {""}
        for name in names:
            self._gone(name)


def tables_gone(news: bytes) -> Iterator[str]:
    """Their names, of messages one after the other."""
    at = 0
    while at + _HEAD <= len(news):
        size, kind = struct.unpack_from("=IH", news, at)
        if kind in _GONE:
            yield from _names(news[at + _HEAD : at + size])
        at += max(_HEAD, size + -size % 4)


def _names(attributes: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(attributes):
        size, kind = struct.unpack_from("=HH", attributes, at)
        if kind == _NAME:
            yield attributes[at + 4 : at + size].rstrip(b"\0").decode(errors="replace")
        at += max(4, size + -size % 4)
