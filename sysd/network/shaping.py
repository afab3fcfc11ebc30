# SPDX-License-Identifier: Apache-2.0
"""How much a link lets through: a token bucket as its queueing discipline (tc-tbf(8)), as an rtnetlink request.

The link's own: it goes with the link, and nothing that reloads a firewall takes it away.
"""

from __future__ import annotations

import struct

from sysd.network.links import NLM_REQUEST_ACK
from sysd.network.netlink import attribute, message

RTM_NEWQDISC, RTM_DELQDISC = 36, 37
_NLM_PUT = 0x400 | 0x100
_ROOT = 0xFFFFFFFF
_HANDLE = 0x00010000
_KIND, _OPTIONS = 1, 2
_PARAMETERS, _RATE64, _BURST = 1, 4, 6
_ETHERNET = 1
_LATENCY = 0.05
"""Seconds that a packet may wait before it is dropped."""
LEAST_BURST = 128 * 1024
"""Bytes. Packets come as large as 64 KiB from links that leave cutting them to hardware."""


def burst(rate: int) -> int:
    """Bytes that may pass at once at a rate in bytes a second: what comes in 10 ms."""
    return min(max(rate // 100, LEAST_BURST), 1 << 30)


def limit(mark: int, bits: int) -> str:
    """Let a link send so many bits a second at most, 0 for any number. mark stands for the index of the link."""
    if not bits:
        return _request(RTM_DELQDISC, 0, mark, b"", handle=0)
    rate = max(1, bits // 8)
    size = burst(rate)
    queue = min(size + int(rate * _LATENCY), (1 << 32) - 1)
    speed = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(rate, (1 << 32) - 1))
    parameters = speed + bytes(12) + struct.pack("=III", queue, 0, 0)
    options = attribute(_PARAMETERS, parameters) + attribute(_BURST, struct.pack("=I", size))
    if rate >= 1 << 32:
        options += attribute(_RATE64, struct.pack("=Q", rate))
    attributes = attribute(_KIND, b"tbf\0") + attribute(_OPTIONS, options)
    return _request(RTM_NEWQDISC, _NLM_PUT, mark, attributes, handle=_HANDLE)


def _request(kind: int, flags: int, mark: int, attributes: bytes, *, handle: int) -> str:
    """A message of tcmsg's form (rtnetlink(7), RTM_NEWQDISC)."""
    body = struct.pack("=BxxxIIII", 0, mark, handle, _ROOT, 0) + attributes
    return message(kind, NLM_REQUEST_ACK | flags, body).hex()
