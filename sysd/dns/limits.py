# SPDX-License-Identifier: Apache-2.0
"""How much strangers get."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass

from sysd.dns.access import Address

PREFIX = {4: 24, 6: 56}
"""Bits of an address whose owners count as one."""
MOST_KNOWN = 4096


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rate:
    """So many a second on average for each network, and so many at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[object, _Bucket] = OrderedDict()

    def take(self, address: Address | None = None) -> bool:
        """Whether one more is within the limit."""
        key = network_of(address) if address else None
        now = time.monotonic()
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > MOST_KNOWN:
            self._buckets.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


def network_of(address: Address) -> int:
    """A number for all addresses of one network."""
    bits = address.max_prefixlen - PREFIX[address.version]
    return int(address) >> bits << 3 | address.version


def plain(text: str) -> Address:
    """An address of a socket; IPv4's as such, though they come to sockets of IPv6 as well."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found
