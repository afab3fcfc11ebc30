# SPDX-License-Identifier: Apache-2.0
"""Telling peers that a zone has changed (NOTIFY, RFC 1996), until they have heard."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct

from sysd.dns.access import Address, Served, key_name
from sysd.dns.message import AA, HEADER, IN, NOTIFY, QR, T_SOA
from sysd.dns.tsig import Signer
from sysd.model.zones import Peer

log = logging.getLogger(__name__)

PORT = 53
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds for an answer, of each try."""
MAX_AT_ONCE = 64


class Notifier:
    """At most one task for each peer of each zone: what changes meanwhile is told by the same."""

    def __init__(self) -> None:
        self.source = ""
        """The address that NOTIFY comes from: peers want it to be that of the server. Empty: as the host routes."""
        self._zones: dict[tuple[str, str], Served] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    def changed(self, zone: Served) -> None:
        for peer in zone.peers:
            if peer.address is None:
                continue
            key = (zone.name, peer.name)
            self._zones[key] = zone
            if key not in self._tasks:
                task = self._tasks[key] = asyncio.create_task(self._tell(key, peer, peer.address))
                task.add_done_callback(lambda _, key=key: self._tasks.pop(key, None))  # type: ignore[misc]

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _tell(self, key: tuple[str, str], peer: Peer, address: Address) -> None:
        while zone := self._zones.pop(key, None):
            serial = zone.content.serial
            try:
                async with self._slots:
                    heard = await self._until_heard(key, zone, peer, address)
            except OSError as error:
                log.warning("zone %s: peer %s can't be notified: %s", zone.name, peer.name, error)
                continue
            if not heard:
                log.warning("zone %s: peer %s did not hear of serial %d", zone.name, peer.name, serial)

    async def _until_heard(self, key: tuple[str, str], zone: Served, peer: Peer, address: Address) -> bool:
        """Ends early when there is more to tell."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        loop = asyncio.get_running_loop()
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            if self.source and (":" in self.source) == (address.version == 6):
                sock.bind((self.source, 0))
            sock.connect((str(address), PORT))
            for wait in WAITS:
                number = secrets.randbelow(1 << 16)
                try:
                    await loop.sock_sendall(sock, message(zone, peer, number))
                    async with asyncio.timeout(wait):
                        await self._answer(sock, number)
                    return True
                except TimeoutError:
                    pass
                except ConnectionRefusedError:
                    await asyncio.sleep(wait)
                if key in self._zones:
                    return True
        return False

    async def _answer(self, sock: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wire = await loop.sock_recv(sock, 4096)
            if len(wire) >= HEADER and struct.unpack("!HH", wire[:4])[0] == number and wire[2] & 0x80:
                return


def message(zone: Served, peer: Peer, number: int) -> bytes:
    """With the new SOA, and signed where the peer has a key."""
    flags = (NOTIFY << 11 | AA) & ~QR
    question = zone.content.origin + struct.pack("!HH", T_SOA, IN)
    wire = struct.pack("!HHHHHH", number, flags, 1, 1, 0, 0) + question + zone.content.soa
    if peer.secret is None:
        return wire
    return Signer(key_name(zone.name, peer.name), peer.secret).sign(wire)
