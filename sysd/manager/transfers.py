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
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sysd.manager import layers
from sysd.manager.arrivals import Arrival, Arrivals
from sysd.manager.backups import Backups, Packed, Rest
from sysd.manager.catalog import Catalog
from sysd.manager.copies import DEFAULT_POOL, check_pool
from sysd.manager.guests import STOPPED
from sysd.manager.images import Images
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.living import Living
from sysd.manager.meetings import Awaited, Meetings
from sysd.manager.operations import Handle, Operations
from sysd.manager.refreshes import Refreshes
from sysd.manager.settlements import STOP, Settlements
from sysd.manager.snapshots import Snapshots
from sysd.manager.states import States
from sysd.manager.table import Table
from sysd.manager.talks import Talk, talking
from sysd.manager.trees import exclusive_layers
from sysd.model import backup as form
from sysd.model import names
from sysd.model.compression import WIRE, WIRE_IN_PARTS
from sysd.model.errors import BusyError, FailedError, InvalidError, NotFoundError, SyscontError, UnsupportedError
from sysd.model.image import Image
from sysd.model.instance import RUNS, Instance, Kind, Phase
from sysd.model.operation import Operation
from sysd.model.restrictions import check_allowed
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Introduction, Move, Offer, Taken, read_introduction
from sysd.runtime.vm.helpers import tpm_folder
from sysd.units.helper import see_through

CLOCK_STEP = 2_000_000_000
"""Nanoseconds by which the kernel's and our idea of the time may differ."""
FAREWELL = 10.0
"""Seconds for the other host to say that it knows."""


@dataclass(frozen=True, slots=True)
class Send:
    """source: an instance, or ``INSTANCE/SNAPSHOT``. move: it is to be there and no longer here."""

    source: str
    instance_only: bool = False
    move: bool = False


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


@dataclass(frozen=True, slots=True)
class Peer:
    """The other host: see Move."""

    certificate: str
    addresses: list[str]


T = TypeVar("T")
Work = Callable[[Handle, Talk, Peer], Awaitable[None]]


class Transfers:
    def __init__(
        self,
        operations: Operations,
        catalog: Catalog,
        table: Table,
        images: Images,
        instances: Instances,
        snapshots: Snapshots,
        lifecycle: Lifecycle,
        backups: Backups,
        arrivals: Arrivals,
        meetings: Meetings,
        settlements: Settlements,
        states: States,
        refreshes: Refreshes,
        living: Living,
    ) -> None:
        self._refreshes = refreshes
        self._living = living
        self._stopped_at: dict[str, float] = {}
        self._operations = operations
        self._catalog = catalog
        self._table = table
        self._images = images
        self._instances = instances
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._backups = backups
        self._arrivals = arrivals
        self._meetings = meetings
        self._settlements = settlements
        self._states = states

    def send(self, wanted: Send, way: Offer | str, owner: int) -> tuple[Operation, Offer | None]:
        """way: the offer of a host that waits for us; or the certificate of one that is to come, for which the offer is
        returned that it has to be told."""
        instance, itself = self._snapshots.find(wanted.source)
        if wanted.move:
            if itself:
                raise InvalidError("a snapshot goes where its instance goes", "copy it, as an instance of its own")
            self._instances.check_movable(instance)

        async def work(handle: Handle, talk: Talk, peer: Peer) -> None:
            await (self._move if wanted.move else self._copy)(handle, talk, peer, wanted)

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

    # the source's side

    async def _copy(self, handle: Handle, talk: Talk, peer: Peer, wanted: Send) -> None:
        async def send() -> None:
            instance, itself = self._snapshots.find(wanted.source)
            taken = [] if itself or wanted.instance_only else self._snapshots.of(instance)
            chosen = await _introduce(talk, itself.applied(instance) if itself else instance, taken)
            async with self._packed(handle, instance, itself) as what:
                await self._write(handle, talk, what, chosen)
            talk.say("sent")
            await talk.hear("made")
            talk.say("bye")

        await talk.run(send())

    @contextlib.asynccontextmanager
    async def _packed(self, handle: Handle, instance: Instance, itself: Snapshot | None) -> AsyncIterator[Packed]:
        """What is to be packed, without snapshots, as it is for the block."""
        if itself:
            found = self._snapshots.get(self._table.ready(instance.uuid), itself.name)
            yield Packed(found.applied(instance), self._snapshots.layer(instance, found), (), found)
            return
        if instance.kind is Kind.VM and await self._lifecycle.refresh(instance) not in STOPPED:
            raise BusyError(f"{instance.reference} is running", "a virtual machine has to be stopped for this")
        handle.progress("copy")
        async with self._backups.copied(instance.uuid) as (current, upper):
            yield Packed(current, upper)

    async def _write(
        self, handle: Handle, talk: Talk, what: Packed, chosen: Sequence[Snapshot], rest: Rest | None = None
    ) -> None:
        now = {each.uuid: each for each in self._snapshots.of(what.instance)}
        if missing := next((each for each in chosen if each.uuid not in now), None):
            raise BusyError(f"snapshot {missing.name} was deleted meanwhile", "nothing was made")
        whole = replace(what, snapshots=[now[each.uuid] for each in chosen])
        await self._backups.write(handle, whole, talk.line.give, WIRE_IN_PARTS if rest else WIRE, rest)
        talk.line.end_giving()

    async def _move(self, handle: Handle, talk: Talk, peer: Peer, wanted: Send) -> None:
        """What is moved is neither started nor changed meanwhile."""
        instance = self._table.get(wanted.source)
        async with self._table.lock(instance.uuid):
            await self._lifecycle.refresh(instance)
            runs = self._table.status(instance).state not in STOPPED
            live = runs and instance.kind is Kind.VM
            move = Move(
                secrets.token_hex(32), True, instance.uuid, instance.reference, peer.certificate, peer.addresses,
                live=live, runs=runs and not live,
            )  # fmt: skip
            offer = self._offer_living if live else self._offer_running if runs else self._offer
            try:
                await talk.run(offer(handle, talk, move, wanted))
                self._settlements.give_away(self._table.by_uuid(move.instance), move)
            except BaseException:
                await see_through(self._keep(move))
                raise
            await _to_the_end(self._part(handle, talk, move))

    async def _offer(self, handle: Handle, talk: Talk, move: Move, wanted: Send) -> None:
        """Until the other host has all of it."""
        current = self._table.ready(move.instance)
        self._instances.check_movable(current)
        taken = [] if wanted.instance_only else self._snapshots.of(current)
        self._check_whole(current, taken)
        await self._lifecycle.forget(current)
        chosen = await _introduce(talk, current, taken, move.id)
        async with exclusive_layers(current):
            await self._write(handle, talk, Packed(current, layers.upper(current)), chosen)
        self._settlements.begin(move)
        talk.say("sent")
        await talk.hear("kept")

    async def _offer_running(self, handle: Handle, talk: Talk, move: Move, wanted: Send) -> None:
        """The same of a container that runs: when the other host has a copy, it is stopped, and what it has changed
        meanwhile follows."""
        current = self._table.ready(move.instance)
        self._instances.check_movable(current)
        if (now := self._table.status(current).state) not in RUNS:
            raise BusyError(f"{current.reference} is {now}", "it is moved when it runs, or is stopped")
        taken = [] if wanted.instance_only else self._snapshots.of(current)
        self._check_whole(current, taken)
        chosen = await _introduce(talk, current, taken, move.id, runs=True)
        handle.progress("copy")
        since = time.time_ns() - CLOCK_STEP
        async with contextlib.AsyncExitStack() as stack:

            async def still() -> None:
                await talk.hear("settled")
                handle.progress("stop")
                self._settlements.begin(move)
                self._stopped_at[move.id] = time.monotonic()
                await self._lifecycle.stop(current, timeout=STOP)
                await self._lifecycle.forget(current)
                await stack.enter_async_context(exclusive_layers(current))

            async with self._backups.copy_of(current) as upper:
                await self._write(handle, talk, Packed(current, upper), chosen, Rest(since, still))
        talk.say("sent")
        await talk.hear("kept")

    async def _offer_living(self, handle: Handle, talk: Talk, move: Move, wanted: Send) -> None:
        """The same of one that runs, and has to stand still at the end of it."""
        current = self._table.ready(move.instance)
        self._instances.check_movable(current)
        self._living.check(current)
        live = await self._living.describe(current)
        taken = [] if wanted.instance_only else self._snapshots.of(current)
        self._check_whole(current, taken, live=True)
        chosen = await _introduce(talk, current, taken, move.id, live=live)
        async with self._living.base(current) as upper:
            await self._write(handle, talk, Packed(current, upper), chosen)
        self._settlements.begin(move)
        talk.say("sent")
        await self._living.send(handle, talk, current)

    async def _keep(self, move: Move) -> None:
        """It goes on here; the other host is told, if it might not know."""
        instance = self._table.find_uuid(move.instance)
        kept = instance if instance and instance.phase is Phase.READY else None
        if kept and move.live and self._settlements.has_begun(move):
            await self._living.stay(kept)  # else nobody has touched it, and it may not even run
        if move.addresses:
            self._settlements.settle(move)
        else:
            self._settlements.forget(move)
        if kept and move.runs:
            await self._settlements.start_again(move)
        elif kept and not move.live:
            await self._lifecycle.load([kept])

    def _check_whole(self, instance: Instance, taken: Sequence[Snapshot], *, live: bool = False) -> None:
        """Raise UnsupportedError for what a backup does not hold, which would be lost with the source. live: QEMU tells
        the other one what its TPM keeps."""
        what = ""
        if self._states.is_kept(instance):
            what = "the memory with which it was stopped"
        elif stateful := next((each.name for each in taken if each.stateful), ""):
            what = f"the memory of snapshot {stateful}"
        elif not live and instance.kind is Kind.VM and tpm_folder(instance).exists():
            what = "what its TPM keeps"
        if what:
            raise UnsupportedError(f"{instance.reference} can't be moved: {what} would be lost", "copy it")

    async def _part(self, handle: Handle, talk: Talk, move: Move) -> None:
        """The other host is told that it has it now."""
        talk.say("yours")
        try:
            async with asyncio.timeout(FAREWELL):
                await talk.hear("mine")
        except (SyscontError, TimeoutError):
            handle.warn(f"{move.name} is the other host's now, which has yet to say that it knows")
            self._settlements.settle(move)
        else:
            if move.live:
                self._living.tell_pause(handle, move.instance)
            if begin := self._stopped_at.pop(move.id, 0.0):
                handle.set_result("stopped", f"{time.monotonic() - begin:.1f} s")
            self._settlements.forget(move)
            talk.say("bye")
        if move.live:
            await self._living.end(self._table.by_uuid(move.instance))
        await self._instances.destroy(self._table.by_uuid(move.instance))

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
            await _to_the_end(self._take_over(talk, move))
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
        )


@dataclass(frozen=True, slots=True)
class _Coming:
    peer: Peer
    arrived: list[Move]
    owner: int

    def store(self, settlements: Settlements, move: Move) -> None:
        self.arrived.append(move)
        settlements.arrived(move)


async def _introduce(
    talk: Talk,
    instance: Instance,
    taken: Sequence[Snapshot],
    move: str = "",
    *,
    live: Mapping[str, Any] | None = None,
    runs: bool = False,
) -> list[Snapshot]:
    """Say what there is; returns the snapshots that are wanted."""
    said = Introduction(
        instance.kind,
        instance.name,
        instance.uuid,
        instance.created,
        move,
        instance.profiles,
        [Taken(each.name, each.created, each.expires) for each in taken],
        live or {},
        runs,
    )
    talk.say("instance", **said.said())
    wanted = (await talk.hear("wanted")).get("snapshots")
    if not isinstance(wanted, list) or not set(map(str, wanted)) <= {each.name for each in taken}:
        raise FailedError("the other host wants snapshots that there are not")
    return [each for each in taken if each.name in wanted]


async def _farewell(talk: Talk) -> bool:
    """Whether the source has heard the last word."""
    with contextlib.suppress(SyscontError, TimeoutError):
        async with asyncio.timeout(FAREWELL):
            await talk.hear("bye")
        return True
    return False


async def _decision(talk: Talk) -> None:
    await talk.hear("yours")


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What has begun is not cancelled any more; it does not take long."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
