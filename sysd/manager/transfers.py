# SPDX-License-Identifier: Apache-2.0
"""Instances that go from one host to another: each of the two daemons does its side as an operation of its own.

    source                          target
    instance: what it is      ->    is the name free, are its profiles here, which snapshots are missing?
                              <-    wanted: those snapshots
    a backup, on the stream   ->    is unpacked, as hostile as any
    sent: it was all          ->    the instance is made of it
                              <-    made
    bye                       ->

Until the target has all of it there is nothing there but images in use by the operation, which go with it. A move has
kept, yours and mine in the place of made (see sysd.manager.settlements), and of a virtual machine that runs there is
more between sent and kept (sysd.manager.living). A container that runs is sent as a copy; when the target has said
"settled", it is stopped, and the stream goes on with what has changed since (sysd.storage.pack_rest).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sysd.manager.arrivals import Arrival, Arrivals
from sysd.manager.backups import Backups
from sysd.manager.catalog import Catalog
from sysd.manager.copies import DEFAULT_POOL, check_pool
from sysd.manager.departures import FAREWELL, Departures, Peer, Send, to_the_end
from sysd.manager.images import Images
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.living import Living
from sysd.manager.meetings import Awaited, Meetings
from sysd.manager.operations import Handle, Operations
from sysd.manager.refreshes import Refreshes
from sysd.manager.settlements import Settlements
from sysd.manager.table import Table
from sysd.manager.talks import Talk, talking
from sysd.model import backup as form
from sysd.model import names
from sysd.model.errors import FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.image import Image
from sysd.model.instance import Instance
from sysd.model.operation import Operation
from sysd.model.restrictions import check_allowed
from sysd.model.transfer import Introduction, Move, Offer, Taken, read_introduction


@dataclass(frozen=True, slots=True)
class Receive:
    """name: ``PROJECT:`` alone for the source's own name in that project. move: as of Send. refresh: there may be one
    of this name already, which becomes what the source is. The others as in NewCopy."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] | None = None
    ephemeral: bool | None = None
    move: bool = False
    refresh: bool = False
    pool: str = DEFAULT_POOL


Work = Callable[[Handle, Talk, Peer], Awaitable[None]]


class Transfers:
    def __init__(
        self,
        operations: Operations,
        catalog: Catalog,
        table: Table,
        images: Images,
        instances: Instances,
        lifecycle: Lifecycle,
        backups: Backups,
        arrivals: Arrivals,
        departures: Departures,
        meetings: Meetings,
        settlements: Settlements,
        refreshes: Refreshes,
        living: Living,
    ) -> None:
        self._refreshes = refreshes
        self._living = living
        self._departures = departures
        self._operations = operations
        self._catalog = catalog
        self._table = table
        self._images = images
        self._instances = instances
        self._lifecycle = lifecycle
        self._backups = backups
        self._arrivals = arrivals
        self._meetings = meetings
        self._settlements = settlements

    def send(self, wanted: Send, way: Offer | str, owner: int) -> tuple[Operation, Offer | None]:
        """way: the offer of a host that waits for us; or the certificate of one that is to come, for which the offer is
        returned that it has to be told."""
        self._departures.check(wanted)

        async def work(handle: Handle, talk: Talk, peer: Peer) -> None:
            await self._departures.send(handle, talk, peer, wanted)

        return self._begin("send-instance", wanted.source, way, owner, work)

    def receive(self, wanted: Receive, way: Offer | str, owner: int) -> tuple[Operation, Offer | None]:
        """way: see send. The operation's result has the name, and what was left out."""
        check_pool(wanted.pool)
        if wanted.move and wanted.refresh:
            raise InvalidError("what is moved takes nothing's place", "copy it with --refresh, and delete the source")
        project, name = names.split(wanted.name)
        self._catalog.project(names.check_project_name(project))
        if name:
            names.check_instance_name(name)
            self._instances.check_free(project, name, self._table.find(project, name) if wanted.refresh else None)

        async def work(handle: Handle, talk: Talk, peer: Peer) -> None:
            await self._receive(handle, talk, peer, wanted, owner)

        return self._begin("receive-instance", wanted.name, way, owner, work)

    def _begin(
        self, kind: str, target: str, way: Offer | str, owner: int, work: Work
    ) -> tuple[Operation, Offer | None]:
        if isinstance(way, Offer):
            return self._operations.begin(kind, target, self._meeting(way, work), owner), None
        offer, awaited = self._meetings.offer(way)
        try:
            return self._operations.begin(kind, target, self._meeting(awaited, work), owner), offer
        except BaseException:
            self._meetings.give_up(awaited)
            raise

    def _meeting(self, way: Offer | Awaited, work: Work) -> Callable[[Handle], Awaitable[None]]:
        peer = Peer(way.certificate, way.addresses if isinstance(way, Offer) else [])

        async def meet(handle: Handle) -> None:
            handle.progress("meet")
            async with self._meetings.line(way) as line, talking(line) as talk:
                await work(handle, talk, peer)

        return meet

    # the target's side

    async def _receive(self, handle: Handle, talk: Talk, peer: Peer, wanted: Receive, owner: int) -> None:
        arrived: list[Move] = []
        try:
            await talk.run(self._take(handle, talk, wanted, _Coming(peer, arrived, owner)))
            if arrived:
                await talk.run(_decision(talk))
        except BaseException as error:
            for move in arrived:
                self._settlements.settle(move)
                if isinstance(error, SyscontError):
                    why = f"{error.message}; whether {move.name} is here now is settled as soon as the hosts can speak"
                    raise type(error)(why, error.hint) from None
            raise
        for move in arrived:
            await to_the_end(self._take_over(talk, move))
        if not arrived:
            await _farewell(talk)  # the other side may hang up from here on

    async def _take(self, handle: Handle, talk: Talk, wanted: Receive, coming: _Coming) -> None:
        said = read_introduction(await talk.hear("instance"))
        present = self._present(wanted, said)
        if present:
            await self._refreshes.check(present, said.kind)
        missing = self._refreshes.missing(present, said.snapshots) if present else said.snapshots
        arrival = self._arrival(wanted, said, missing, present)
        if said.move:
            move = Move(
                said.move, False, said.uuid, arrival.reference, coming.peer.certificate, coming.peer.addresses,
                live=bool(said.live), runs=said.runs,
            )  # fmt: skip
            arrival = replace(arrival, arriving=lambda: coming.store(self._settlements, move))
        talk.say("wanted", snapshots=[each.name for each in missing])
        with contextlib.ExitStack() as stack:
            found: list[Image] = []

            def hold(images: list[Image]) -> None:
                found.extend(images)
                stack.enter_context(self._backups.holding([image.fingerprint for image in images]))

            settled = (lambda: talk.say("settled")) if said.runs else (lambda: None)
            index = await self._images.unpack_backup(
                handle, talk.line.take, hold, fresh=not said.move, settled=settled
            )
            await talk.hear("sent")
            if {image.properties.get("volume", "") for image in found} != {"", *arrival.taken}:
                raise FailedError("the other host has sent other snapshots than those that it has told of")
            handle.progress("make")
            made = form.read(index)
            if present:
                what = self._arrivals.look(arrival, made, found)
                await self._refreshes.refresh(handle, what, present.uuid, said.snapshots)
            else:
                await self._arrivals.make(handle, arrival, made, found, coming.owner)
            if said.runs:
                await self._lifecycle.check_startable(self._table.by_uuid(said.uuid))
        if said.live:
            await self._living.receive(handle, talk, said.uuid, said.live)
        talk.say("kept" if said.move else "made")

    async def _take_over(self, talk: Talk, move: Move) -> None:
        await self._settlements.take_over(move, lambda: talk.say("mine"))
        # A source that has called calls again, and is told by being told nothing.
        if await _farewell(talk) or not move.addresses:
            self._settlements.forget(move)
        else:
            self._settlements.settle(move)

    def _present(self, wanted: Receive, said: Introduction) -> Instance | None:
        """What is to be refreshed, if it is there already."""
        project, name = names.split(wanted.name)
        return self._table.find(project, name or said.name) if wanted.refresh else None

    def _arrival(
        self, wanted: Receive, said: Introduction, missing: Sequence[Taken], present: Instance | None
    ) -> Arrival:
        """What is to become of it. Raises what it will come to anyway, before all the bytes are here."""
        if wanted.move != bool(said.move):
            raise FailedError("one of the two hosts was asked for a copy, and the other one for a move")
        project, name = names.split(wanted.name)
        self._instances.check_free(project, name or said.name, present)
        if said.move:
            self._instances.check_new(said.uuid)
        if missing:
            check_allowed(self._catalog.project(project), "snapshots", f"the snapshots of {said.name}")
        try:
            profiles = self._catalog.check_profiles(
                project, said.profiles if wanted.profiles is None else wanted.profiles
            )
        except NotFoundError as error:
            hint = "--profile says others, --no-profiles none"
            raise NotFoundError(f"{error.message} where {said.name} is to be", hint) from None
        return Arrival(
            names.qualified(project, name or said.name),
            wanted.config,
            wanted.devices,
            profiles,
            wanted.ephemeral,
            uuid=said.uuid if said.move else "",
            created=said.created if said.move else 0,
            taken={each.name: each for each in missing},
            whole=said.runs or bool(said.live),
        )


@dataclass(frozen=True, slots=True)
class _Coming:
    peer: Peer
    arrived: list[Move]
    owner: int

    def store(self, settlements: Settlements, move: Move) -> None:
        self.arrived.append(move)
        settlements.arrived(move)


async def _farewell(talk: Talk) -> bool:
    """Whether the source has heard the last word."""
    with contextlib.suppress(SyscontError, TimeoutError):
        async with asyncio.timeout(FAREWELL):
            await talk.hear("bye")
        return True
    return False


async def _decision(talk: Talk) -> None:
    await talk.hear("yours")
