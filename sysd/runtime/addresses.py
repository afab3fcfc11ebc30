# SPDX-License-Identifier: Apache-2.0
"""The addresses inside a guest, as they come and go: an rtnetlink socket in its network namespace, no polling."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from sysd import _cext

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
SCOPE_UNIVERSE = 0
UNUSABLE = 0x40 | 0x08
"""IFA_F_TENTATIVE, IFA_F_DADFAILED: nobody answers at such an address, yet or ever."""
SETTLE = 0.02
"""Seconds in which changes are gathered: a guest that changes addresses all the time costs little."""
MAX_ADDRESSES = 64

_DUMP = struct.pack("=IHHIIBBBBI", 24, RTM_GETADDR, 0x301, 1, 0, 0, 0, 0, 0, 0)
"""nlmsghdr (NLM_F_REQUEST|NLM_F_DUMP) and an empty ifaddrmsg: all families."""


class AddressWatch:
    """Calls changed with the guest's global addresses, IPv4 first, whenever they are others than before."""

    def __init__(self, pidfd: int, changed: Callable[[tuple[str, ...]], None]) -> None:
        self._socket = socket.socket(fileno=_cext.netlink_socket_in(pidfd, _cext.NETLINK_ROUTE, GROUPS))
        self._changed = changed
        self._addresses: set[tuple[int, str]] = set()
        self._reported: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._socket, self._wake)
        self._dump()

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._timer:
            self._timer.cancel()
        self._socket.close()

    def _dump(self) -> None:
        self._addresses.clear()
        self._socket.send(_DUMP)

    def _wake(self) -> None:
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(SETTLE, self._settle)

    def _settle(self) -> None:
        self._timer = None
        try:
            for _ in range(64):
                self._take(self._socket.recv(65536))
        except BlockingIOError:
            pass
        except OSError:
            self._dump()  # ENOBUFS: messages were lost
        self._report()
        self._loop.add_reader(self._socket, self._wake)

    def _take(self, data: bytes) -> None:
        offset = 0
        while offset + 16 <= len(data):
            length = int.from_bytes(data[offset : offset + 4], sys.byteorder)
            kind = int.from_bytes(data[offset + 4 : offset + 6], sys.byteorder)
            if length < 16:
                return
            if kind in (RTM_NEWADDR, RTM_DELADDR):
                self._apply(kind, data[offset : offset + length])
            offset += (length + 3) & ~3

    def _apply(self, kind: int, data: bytes) -> None:
        message = ifaddrmsg(data)
        message.decode()
        if message["scope"] != SCOPE_UNIVERSE:
            return
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        entry = (int(message["index"]), str(text))
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if kind == RTM_DELADDR or flags & UNUSABLE:
            self._addresses.discard(entry)
        elif len(self._addresses) < MAX_ADDRESSES:
            self._addresses.add(entry)

    def _report(self) -> None:
        unique = {ipaddress.ip_address(text) for _, text in self._addresses}
        ordered = tuple(str(a) for a in sorted(unique, key=lambda a: (a.version, int(a))))
        if ordered != self._reported:
            self._reported = ordered
            self._changed(ordered)
