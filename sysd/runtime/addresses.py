# SPDX-License-Identifier: Apache-2.0
"""The addresses inside a guest, as they come and go: an rtnetlink socket in its network namespace, no polling."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterator

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from sysd import _cext

log = logging.getLogger(__name__)

HEADER = 16
"""Bytes of a nlmsghdr, which an ifaddrmsg follows (netlink(7))."""
NLMSG_DONE = 3
KERNEL = 0
"""Its port: a guest's root may send messages too."""
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
SCOPE_UNIVERSE = 0
UNUSABLE = 0x40 | 0x08
"""IFA_F_TENTATIVE, IFA_F_DADFAILED: nobody answers at such an address, yet or ever."""
SETTLE = 0.02
"""Seconds in which changes are gathered: a guest that changes addresses all the time costs little."""
BUDGET = 256
BREATH = 0.1
"""So many messages are read in one go, and the rest after a pause."""
RETRY = 1.0
"""Seconds until addresses are asked for that could not be read."""
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
        self._messages: Iterator[bytes] = iter(())
        self._dumping = False
        self._stale = True
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._dump()
        self._listen(True)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._timer:
            self._timer.cancel()
        self._socket.close()

    def _dump(self) -> None:
        """Ask for all addresses anew; what was known is forgotten, but holds for others until the dump has ended."""
        try:
            self._socket.send(_DUMP)
        except OSError as error:
            log.info("the addresses of a guest can't be asked for now: %s", error)
            return
        self._addresses.clear()
        self._dumping, self._stale = True, False

    def _wake(self) -> None:
        self._loop.remove_reader(self._socket)
        self._later(SETTLE)

    def _later(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._settle)

    def _settle(self) -> None:
        self._timer = None
        drained = False
        try:
            drained = self._read()
            if not self._dumping:
                self._report()
        except Exception:  # whatever a guest managed to say, it is to be heard again
            log.exception("the addresses of a guest can't be read")
            self._stale = True
        if self._stale and not self._dumping:
            self._dump()
        self._listen(drained)

    def _listen(self, drained: bool) -> None:
        if self._stale:
            self._later(RETRY)
        elif drained:
            self._loop.add_reader(self._socket, self._wake)
        else:
            self._later(BREATH)

    def _read(self) -> bool:
        """Deal with a bounded number of messages; whether there are no more."""
        for _ in range(BUDGET):
            message = next(self._messages, None)
            if message is not None:
                self._take(message)
                continue
            try:
                data, (sender, _) = self._socket.recvfrom(65536)
            except BlockingIOError:
                # The kernel adds to a dump with each read, so one that did not end is none.
                self._stale, self._dumping = self._stale or self._dumping, False
                return True
            except OSError:
                self._stale = True  # ENOBUFS: messages were lost
                continue
            if sender == KERNEL:
                self._messages = split(data)
        return False

    def _take(self, message: bytes) -> None:
        kind = int.from_bytes(message[4:6], sys.byteorder)
        if kind in (RTM_NEWADDR, RTM_DELADDR):
            self._apply(kind, message)
        elif kind == NLMSG_DONE:
            self._dumping = False

    def _apply(self, kind: int, data: bytes) -> None:
        if len(data) < HEADER + 8:
            return
        # Of the flags the first eight, with those of UNUSABLE, are here too (rtnetlink(7), struct ifaddrmsg).
        flags, scope = data[HEADER + 2], data[HEADER + 3]
        gone = kind == RTM_DELADDR or flags & UNUSABLE
        if scope != SCOPE_UNIVERSE or (not gone and len(self._addresses) >= MAX_ADDRESSES):
            return
        message = ifaddrmsg(data)
        message.decode()
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if not text:
            return
        entry = (int(message["index"]), str(text))
        if gone:
            self._addresses.discard(entry)
        else:
            self._addresses.add(entry)

    def _report(self) -> None:
        unique = {ipaddress.ip_address(text) for _, text in self._addresses}
        ordered = tuple(str(a) for a in sorted(unique, key=lambda a: (a.version, int(a))))
        if ordered != self._reported:
            self._reported = ordered
            self._changed(ordered)


def split(data: bytes) -> Iterator[bytes]:
    """The netlink messages in data."""
    offset = 0
    while offset + HEADER <= len(data):
        length = int.from_bytes(data[offset : offset + 4], sys.byteorder)
        if length < HEADER:
            return
        yield data[offset : offset + length]
        offset += (length + 3) & ~3
