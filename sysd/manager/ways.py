# SPDX-License-Identifier: Apache-2.0
"""The ways by which a machine that runs gets from one QEMU to another: one for its disk, one or more for its memory.

    who is called                                      who has called, on the line
    waits at two ports, tells of them and a ticket  <- comes

As QEMU has no network, it is handed the connections. Where it wants to take or to make them itself it does so at a
socket of its own, and they are joined (sysd.runtime.vm.joining).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sysd.manager import tickets
from sysd.manager.talks import Talk
from sysd.manager.tickets import Open
from sysd.runtime.vm import joining
from sysd.runtime.vm.joining import Place

GetReady = Callable[[int], Awaitable[None]]
"""Hands QEMU a socket at which the other one's is to come for the disk."""


@dataclass(frozen=True, slots=True)
class Ways:
    disk: Open
    memory: Open


@asynccontextmanager
async def leading_out(talk: Talk, ready: dict[str, Any], where: str, most: int) -> AsyncIterator[Ways]:
    """The source's, for the block. ready: what the target has said so; where: the address that we listen at; most: so
    many for memory."""
    if host := talk.line.host:
        ticket = tickets.secret(ready, "ticket")
        disk, memory = (tickets.port(ready, name) for name in ("disk", "memory"))
        yield Ways(lambda: tickets.call(host, disk), lambda: tickets.call(host, memory, ticket))
        return
    ticket = tickets.make()
    with tickets.listen(where) as disks, tickets.listen(where) as memories:
        ports = {"disk": tickets.port_of(disks), "memory": tickets.port_of(memories)}
        to_disk, to_memory = tickets.admitting(disks, ticket, 1), tickets.admitting(memories, ticket, most)
        async with to_disk as next_disk, to_memory as next_memory:
            talk.say("come", ticket=ticket.hex(), **ports)
            yield Ways(next_disk, next_memory)


@dataclass(frozen=True, slots=True)
class Entry:
    """The target's. key: QEMU's, for the source; where: the address that we listen at; most: so many for memory."""

    talk: Talk
    key: bytes
    where: str
    place: Place
    most: int

    @asynccontextmanager
    async def open(self, get_ready: GetReady) -> AsyncIterator[Open]:
        """For the block, the ways for memory; that for the disk is there."""
        async with (self._called if self.talk.line.host else self._awaited)(get_ready) as memory:
            yield memory

    @asynccontextmanager
    async def _awaited(self, get_ready: GetReady) -> AsyncIterator[Open]:
        ticket = tickets.make()
        with tickets.listen(self.where) as disks, tickets.listen(self.where) as memories:
            await get_ready(disks.fileno())
            ports = {"disk": tickets.port_of(disks), "memory": tickets.port_of(memories)}
            async with tickets.admitting(memories, ticket, self.most) as memory:
                self.talk.say("ready", key=self.key.hex(), ticket=ticket.hex(), **ports)
                yield memory

    @asynccontextmanager
    async def _called(self, get_ready: GetReady) -> AsyncIterator[Open]:
        host, place = self.talk.line.host, self.place
        with joining.listen(place, joining.DISK) as disks:
            await get_ready(disks.fileno())
            self.talk.say("ready", key=self.key.hex())
            come = await self.talk.hear("come")
            ticket, memory = tickets.secret(come, "ticket"), tickets.port(come, "memory")
            async with joining.joining() as join:
                disk = await tickets.call(host, tickets.port(come, "disk"), ticket)
                await join(disk, joining.reach(place, joining.DISK))
                yield lambda: tickets.call(host, memory, ticket)
