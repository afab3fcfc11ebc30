# SPDX-License-Identifier: Apache-2.0
"""systemd-resolved, where it runs: names of instances on the host (org.freedesktop.resolve1(5))."""

from __future__ import annotations

import ipaddress
import logging

from sysd.units.bus import Bus, BusError

log = logging.getLogger(__name__)

RESOLVED = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")


class Resolved:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def set_link(self, index: int, servers: list[ipaddress.IPv4Address], domain: str) -> None:
        """Ask servers for names in domain, and for nothing else. Without resolved nothing is done."""
        try:
            addresses = [[2, server.packed] for server in servers]
            await self._bus.call(*RESOLVED, "SetLinkDNS", "ia(iay)", index, addresses)
            await self._bus.call(*RESOLVED, "SetLinkDomains", "ia(sb)", index, [[domain, True]])
            await self._bus.call(*RESOLVED, "SetLinkDefaultRoute", "ib", index, False)
        except BusError as error:
            log.info("names of instances are not set up in systemd-resolved: %s", error)
