# SPDX-License-Identifier: Apache-2.0
"""The ways by which a machine that runs gets from one QEMU to another: one for its disk, one or more for its memory.

    who is called, on the line                          who has called
    waits at two ports, tells of them and a ticket  ->
                                                    <-  comes, and shows it

As QEMU has no network, it is handed connections. Where it wants to take or to make them itself it does so at a socket
of its own, and they are joined (sysd.runtime.vm.joining).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sysd.manager import tickets
from sysd.manager.talks import Talk
from sysd.runtime.vm import joining
from sysd.runtime.vm.joining import DISK, Open, Place

GetReady = Callable[[int], Awaitable[None]]
"""Hands QEMU a socket at which it takes who comes for the disk."""


@dataclass(frozen=True, slots=True)
class Ways:
    disk: Open
    memory: Open


@asynccontextmanager
async def leading_out(talk: Talk, ready: Mapping[str, Any], where: str, most: int) -> AsyncIterator[Ways]:
    """The source's, for the block. ready: what the target has said so; where: the address that we listen at; most: so
    many for memory."""
    if talk.line.host:
        yield _calling(talk.line.host, ready)
        return
    async with _waiting(where, most) as (told, found):
        talk.say("come", **told)
        yield found


@asynccontextmanager
async def leading_in(
    talk: Talk, key: bytes, where: str, most: int, place: Place, get_ready: GetReady
) -> AsyncIterator[Open]:
    """The target's, for the block: those for memory; that for the disk is there. key: QEMU's, for the source."""
    with joining.listen(place, DISK) as disks:
        await get_ready(disks.fileno())
        async with _told(talk, key, where, most) as found, joining.joining() as join:
            await join(await found.disk(), joining.reach(place, DISK))
            yield found.memory


@asynccontextmanager
async def _told(talk: Talk, key: bytes, where: str, most: int) -> AsyncIterator[Ways]:
    """Once the source knows that we are ready."""
    if talk.line.host:
        talk.say("ready", key=key.hex())
        yield _calling(talk.line.host, await talk.hear("come"))
        return
    async with _waiting(where, most) as (told, found):
        talk.say("ready", key=key.hex(), **told)
        yield found


def _calling(host: str, told: Mapping[str, Any]) -> Ways:
    ticket = tickets.secret(told, "ticket")
    disk, memory = (tickets.port(told, name) for name in ("disk", "memory"))
    return Ways(lambda: tickets.call(host, disk, ticket), lambda: tickets.call(host, memory, ticket))


@asynccontextmanager
async def _waiting(where: str, most: int) -> AsyncIterator[tuple[dict[str, Any], Ways]]:
    """What to tell who is to come, and the ways on which it does."""
    ticket = tickets.make()
    with tickets.listen(where) as disks, tickets.listen(where) as memories:
        told = {"ticket": ticket.hex(), "disk": tickets.port_of(disks), "memory": tickets.port_of(memories)}
        to_disk, to_memory = tickets.admitting(disks, ticket, 1), tickets.admitting(memories, ticket, most)
        async with to_disk as next_disk, to_memory as next_memory:
            yield told, Ways(next_disk, next_memory)
