# SPDX-License-Identifier: Apache-2.0
"""Sending prepared rtnetlink requests (sysd.network.nics makes them), with no netlink library at hand.

A request is the message in hex. ``-`` before it lets it fail, as in systemd's ExecStart=. ``@LINK:OFFSET:`` before it
says that the index of a link, not known before it was made, belongs at a byte of the message.
"""

from __future__ import annotations

import _socket
import posix as os
import sys

from sysd import _cext as c
from sysd.runtime.beneath import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NETNS_FD = 100
"""The number at which the guest's network namespace is held while requests for the host are sent."""
HOST_NETNS_FD = 101
"""The same of the host's namespace, while requests for the guest are sent that may put something back there."""

_NLMSG_ERROR = 2


def open_netlink() -> _socket.socket:
    """An rtnetlink socket in the network namespace that we are in."""
    return _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, c.NETLINK_ROUTE)


def replay(netlink: _socket.socket, requests: Iterable[str]) -> None:
    """Send requests one by one; each is acknowledged (netlink(7)), and must be without an error if it may not fail.

    The socket is of the network namespace that we are in, or no request has a ``@``.
    """
    for request in requests:
        may_fail = request.startswith("-")
        try:
            code = _send(netlink, request.lstrip("-"))
        except OSError as error:
            code = error.errno or 1
        if code and not may_fail:
            raise LaunchError(f"network set-up: {os.strerror(code)}")


def _send(netlink: _socket.socket, request: str) -> int:
    """The error number of the answer."""
    if request.startswith("@"):
        link, offset, text = request[1:].split(":")
        message = bytearray.fromhex(text)
        at = int(offset)
        message[at : at + 4] = _socket.if_nametoindex(link).to_bytes(4, sys.byteorder)
    else:
        message = bytearray.fromhex(request)
    netlink.send(message)
    answer = netlink.recv(65536)
    if int.from_bytes(answer[4:6], sys.byteorder) != _NLMSG_ERROR:  # also the acknowledgement
        return 0
    return -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
