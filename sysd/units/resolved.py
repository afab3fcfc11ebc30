# SPDX-License-Identifier: Apache-2.0
"""systemd-resolved, where it runs: names of instances on the host (org.freedesktop.resolve1(5))."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sysd.model.addresses import Address
from sysd.units.bus import Bus, BusError

log = logging.getLogger(__name__)

RESOLVED = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")

FAMILIES = {4: 2, 6: 10}
"""AF_INET and AF_INET6 by IP version."""


class Resolved:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def set_link(self, index: int, servers: Sequence[Address], domain: str) -> None:
        """Ask servers for names in domain, and for nothing else; without either, ask them nothing. Without resolved
        nothing is done."""
        try:
            if not servers or not domain:
                await self._bus.call(*RESOLVED, "RevertLink", "i", index)
                return
            addresses = [[FAMILIES[server.version], server.packed] for server in servers]
            await self._bus.call(*RESOLVED, "SetLinkDNS", "ia(iay)", index, addresses)
            await self._bus.call(*RESOLVED, "SetLinkDomains", "ia(sb)", index, [[domain, True]])
            await self._bus.call(*RESOLVED, "SetLinkDefaultRoute", "ib", index, False)
        except BusError as error:
            log.info("names of instances are not set up in systemd-resolved: %s", error)
