# SPDX-License-Identifier: Apache-2.0
"""A managed bridge network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_NETWORK = "syscontbr0"
DNS_DOMAIN = "syscont"


@dataclass(frozen=True, slots=True)
class Network:
    """ipv4 and ipv6 are the bridge's own address with prefix length, such as ``10.87.3.1/24``."""

    name: str
    ipv4: str
    ipv6: str
    domain: str = DNS_DOMAIN

    @property
    def ipv4_interface(self) -> ipaddress.IPv4Interface:
        return ipaddress.IPv4Interface(self.ipv4)

    @property
    def ipv6_interface(self) -> ipaddress.IPv6Interface:
        return ipaddress.IPv6Interface(self.ipv6)
