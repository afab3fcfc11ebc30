# SPDX-License-Identifier: Apache-2.0
"""Requests that sysd.network.nics has prepared, sent from here, and taps: what the launcher of virtual machines does
(sysd/_cext/launch/replay.c, descriptors.c), for machines that run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterable

from sysd import _cext
from sysd.model.errors import FailedError
from sysd.network import netlink

_SET_IFF = 0x400454CA
_TAP, _NO_PACKET_INFO, _VNET_HEADER, _EXCLUSIVE = 0x2, 0x1000, 0x4000, 0x8000
_DELETE_LINK, _NAME, _LINK = 17, 3, 16
"""RTM_DELLINK, IFLA_IFNAME, and the bytes of an ifinfomsg (rtnetlink(7))."""
_ACKNOWLEDGED = netlink.NLM_REQUEST | netlink.NLM_ACK
_REQUEST = struct.Struct("16sH22x")


def open_tap(name: str) -> int:
    """A new tap, which is there as long as the descriptor is open (the kernel's networking/tuntap.rst)."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = _TAP | _NO_PACKET_INFO | _VNET_HEADER | _EXCLUSIVE
    try:
        fcntl.ioctl(fd, _SET_IFF, _REQUEST.pack(name.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise FailedError(f"link {name} can't be made: {error.strerror}") from None
    return fd


def drop_link(pidfd: int, name: str) -> None:
    """Of the network namespace of a process; what is gone already is no error."""
    named = bytes(_LINK) + netlink.attribute(_NAME, f"{name}\0".encode())
    request = netlink.message(_DELETE_LINK, _ACKNOWLEDGED, named)
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=_cext.netlink_socket_in(pidfd, _cext.NETLINK_ROUTE, 0)) as sock,
    ):
        netlink.ask_on(sock, request)


def replay(requests: Iterable[str]) -> None:
    """On the host. Raises FailedError."""
    for request in requests:
        with contextlib.suppress(OSError) if request.startswith("-") else contextlib.nullcontext():
            try:
                netlink.ask(socket.NETLINK_ROUTE, _message(request.removeprefix("-")))
            except OSError as error:
                if request.startswith("-"):
                    raise
                raise FailedError(f"network set-up: {error.strerror}") from None


def _message(request: str) -> bytes:
    if not request.startswith("@"):
        return bytes.fromhex(request)
    link, offset, digits = request[1:].split(":")
    message, at = bytearray.fromhex(digits), int(offset)
    message[at : at + 4] = socket.if_nametoindex(link).to_bytes(4, sys.byteorder)
    return bytes(message)
