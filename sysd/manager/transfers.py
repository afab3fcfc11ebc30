# SPDX-License-Identifier: Apache-2.0
"""Instances that go from one host to another: each of the two daemons does its side as an operation of its own.

    source                          target
    instance: what it is      ->    is the name free, are its profiles here, which snapshots are missing?
                              <-    wanted: those snapshots
    a backup, on the stream   ->    is unpacked, as hostile as any
    sent: it was all          ->    the instance is made of it
                              <-    made
    bye                       ->

Until the target has all of it there is nothing there but images in use by the operation, which go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sysd.manager.arrivals import Arrival, Arrivals
from sysd.manager.backups import Backups, Packed
from sysd.manager.catalog import Catalog
from sysd.manager.copies import DEFAULT_POOL, check_pool
from sysd.manager.guests import STOPPED
from sysd.manager.images import Images
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.meetings import Meetings
from sysd.manager.operations import Handle, Operations
from sysd.manager.snapshots import Snapshots
from sysd.manager.table import Table
from sysd.manager.talks import Talk, talking
from sysd.model import backup as form
from sysd.model import names
from sysd.model.compression import WIRE
from sysd.model.errors import BusyError, FailedError, NotFoundError, SyscontError
from sysd.model.image import Image
from sysd.model.instance import Instance, Kind
from sysd.model.operation import Operation
from sysd.model.restrictions import check_allowed
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Introduction, Offer, Taken, read_introduction

FAREWELL = 10.0
"""Seconds for the source to say that it knows."""


@dataclass(frozen=True, slots=True)
class Send:
    """source: an instance, or ``INSTANCE/SNAPSHOT``."""

    source: str
    instance_only: bool = False


@dataclass(frozen=True, slots=True)
class Receive:
    """name: ``PROJECT:`` alone for the source's own name in that project. The others as in NewCopy."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] | None = None
    ephemeral: bool | None = None
    pool: str = DEFAULT_POOL


Work = Callable[[Handle, Talk], Coroutine[Any, Any, None]]


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
    ) -> None:
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

    def send(self, wanted: Send, way: Offer | str, owner: int) -> tuple[Operation, Offer | None]:
        """way: the offer of a host that waits for us; or the certificate of one that is to come, for which the offer is
        returned that it has to be told."""
        self._snapshots.find(wanted.source)

        async def work(handle: Handle, talk: Talk) -> None:
            await self._send(handle, talk, wanted)

        return self._begin("send-instance", wanted.source, way, owner, work)

    def receive(self, wanted: Receive, way: Offer | str, owner: int) -> tuple[Operation, Offer | None]:
        """way: see send. The operation's result has the name, and what was left out."""
        check_pool(wanted.pool)
        project, name = names.split(wanted.name)
        self._catalog.project(names.check_project_name(project))
        if name:
            names.check_instance_name(name)
            self._instances.check_free(project, name)

        async def work(handle: Handle, talk: Talk) -> None:
            await self._receive(handle, talk, wanted, owner)

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

    def _meeting(self, way: Any, work: Work) -> Callable[[Handle], Awaitable[None]]:
        async def meet(handle: Handle) -> None:
            handle.progress("meet")
            async with self._meetings.line(way) as line, talking(line) as talk:
                await talk.run(work(handle, talk))

        return meet

    # the source's side

    async def _send(self, handle: Handle, talk: Talk, wanted: Send) -> None:
        instance, itself = self._snapshots.find(wanted.source)
        taken = [] if itself or wanted.instance_only else self._snapshots.of(instance)
        talk.say("instance", **_introduction(itself.applied(instance) if itself else instance, taken).said())
        chosen = _chosen(await talk.hear("wanted"), taken)
        async with self._packed(handle, instance, itself) as what:
            now = {each.uuid: each for each in self._snapshots.of(what.instance)}
            if missing := next((each for each in chosen if each.uuid not in now), None):
                raise BusyError(f"snapshot {missing.name} was deleted meanwhile", "nothing was made")
            give, talk.line.give = talk.line.give, -1
            try:
                await self._backups.write(handle, _with(what, [now[each.uuid] for each in chosen]), give, WIRE)
            finally:
                os.close(give)
        talk.say("sent")
        await talk.hear("made")
        talk.say("bye")

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

    # the target's side

    async def _receive(self, handle: Handle, talk: Talk, wanted: Receive, owner: int) -> None:
        said = read_introduction(await talk.hear("instance"))
        arrival = self._arrival(wanted, said)
        talk.say("wanted", snapshots=[each.name for each in said.snapshots])
        with contextlib.ExitStack() as stack:
            found: list[Image] = []

            def hold(images: list[Image]) -> None:
                found.extend(images)
                stack.enter_context(self._backups.holding([image.fingerprint for image in images]))

            take, talk.line.take = talk.line.take, -1
            try:
                index = await self._images.unpack_backup(handle, take, hold, fresh=True)
            finally:
                os.close(take)
            await talk.hear("sent")
            if {image.properties.get("volume", "") for image in found} != {"", *arrival.taken}:
                raise FailedError("the other host has sent other snapshots than those that it has told of")
            handle.progress("make")
            await self._arrivals.make(handle, arrival, form.read(index), found, owner)
        talk.say("made")
        with contextlib.suppress(SyscontError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await talk.hear("bye")

    def _arrival(self, wanted: Receive, said: Introduction) -> Arrival:
        """What is to become of it. Raises what it will come to anyway, before all the bytes are here."""
        project, name = names.split(wanted.name)
        self._instances.check_free(project, name or said.name)
        if said.snapshots:
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
            strict=True,
            taken={each.name: each for each in said.snapshots},
        )


def _introduction(instance: Instance, taken: Sequence[Snapshot]) -> Introduction:
    return Introduction(
        instance.kind,
        instance.name,
        instance.uuid,
        instance.created,
        False,
        instance.profiles,
        [Taken(each.name, each.created, each.expires) for each in taken],
    )


def _chosen(said: Mapping[str, Any], taken: Sequence[Snapshot]) -> list[Snapshot]:
    """Of the snapshots those that the other host wants."""
    wanted = said.get("snapshots")
    if not isinstance(wanted, list) or not set(map(str, wanted)) <= {each.name for each in taken}:
        raise FailedError("the other host wants snapshots that there are not")
    return [each for each in taken if each.name in wanted]


def _with(what: Packed, chosen: Sequence[Snapshot]) -> Packed:
    return Packed(what.instance, what.upper, chosen, what.itself)
