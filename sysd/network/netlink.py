# SPDX-License-Identifier: Apache-2.0
"""Messages of netlink(7) that pyroute2 has no words for, or would take too long to make."""

from __future__ import annotations

import os
import socket
import struct

NLM_REQUEST, NLM_ACK = 0x1, 0x4
_NLMSG_ERROR = 2
_NESTED = 0x8000
_TIMEOUT = 1.0
"""Seconds; the kernel answers at once."""


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def ask(protocol: int, request: bytes) -> bytes:
    """Send a message; the answer, which is an acknowledgement where the message asks for one. Raises OSError with the
    kernel's number for a refusal."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        return ask_on(sock, request)


def ask_on(sock: socket.socket, request: bytes) -> bytes:
    """The same, where a socket is."""
    sock.settimeout(_TIMEOUT)
    sock.send(request)
    answer = sock.recv(1 << 16)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, 16)
        if number:
            raise OSError(-number, os.strerror(-number))
    return answer
