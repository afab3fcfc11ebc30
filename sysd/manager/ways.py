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
async def leading_out(talk: Talk, ready: dict[str, Any], where: str) -> AsyncIterator[Ways]:
    """The source's, for the block. ready: what the target has said so; where: the address that we listen at."""
    if host := talk.line.host:
        ticket = tickets.secret(ready, "ticket")
        disk, memory = (tickets.port(ready, name) for name in ("disk", "memory"))
        yield Ways(lambda: tickets.call(host, disk), lambda: tickets.call(host, memory, ticket))
        return
    ticket = tickets.make()
    with tickets.listen(where) as disks, tickets.listen(where) as memories:
        ports = {"disk": tickets.port_of(disks), "memory": tickets.port_of(memories)}
        async with tickets.admitting(disks, ticket) as next_disk, tickets.admitting(memories, ticket) as next_memory:
            talk.say("come", ticket=ticket.hex(), **ports)
            yield Ways(next_disk, next_memory)


@asynccontextmanager
async def leading_in(talk: Talk, key: bytes, where: str, place: Place, get_ready: GetReady) -> AsyncIterator[Open]:
    """The target's, for the block: those for memory, and that for the disk is there. key: QEMU's, for the source."""
    async with (_called if talk.line.host else _awaited)(talk, key, where, place, get_ready) as memory:
        yield memory


@asynccontextmanager
async def _awaited(talk: Talk, key: bytes, where: str, _place: Place, get_ready: GetReady) -> AsyncIterator[Open]:
    ticket = tickets.make()
    with tickets.listen(where) as disks, tickets.listen(where) as memories:
        await get_ready(disks.fileno())
        ports = {"disk": tickets.port_of(disks), "memory": tickets.port_of(memories)}
        async with tickets.admitting(memories, ticket) as next_memory:
            talk.say("ready", key=key.hex(), ticket=ticket.hex(), **ports)
            yield next_memory


@asynccontextmanager
async def _called(talk: Talk, key: bytes, _where: str, place: Place, get_ready: GetReady) -> AsyncIterator[Open]:
    host = talk.line.host
    with joining.listen(place, joining.DISK) as disks:
        await get_ready(disks.fileno())
        talk.say("ready", key=key.hex())
        come = await talk.hear("come")
        ticket, memory = tickets.secret(come, "ticket"), tickets.port(come, "memory")
        async with joining.joining() as join:
            await join(await tickets.call(host, tickets.port(come, "disk"), ticket), joining.reach(place, joining.DISK))
            yield lambda: tickets.call(host, memory, ticket)
