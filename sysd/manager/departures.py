# SPDX-License-Identifier: Apache-2.0
"""The source's side of instances that go to another host (sysd.manager.transfers)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sysd.manager import layers
from sysd.manager.backups import Backups, Packed, Rest
from sysd.manager.guests import STOPPED
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.living import Living
from sysd.manager.operations import Handle
from sysd.manager.settlements import STOP, Settlements
from sysd.manager.snapshots import Snapshots
from sysd.manager.states import States
from sysd.manager.table import Table
from sysd.manager.talks import Talk
from sysd.manager.trees import exclusive_layers
from sysd.model.compression import WIRE, WIRE_IN_PARTS
from sysd.model.devices.nic import is_hardware
from sysd.model.errors import (
    BusyError,
    FailedError,
    InvalidError,
    NotRunningError,
    SyscontError,
    UnsupportedError,
)
from sysd.model.instance import RUNS, Instance, Kind, Phase
from sysd.model.restrictions import is_root
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Introduction, Move, Taken
from sysd.runtime.vm.helpers import tpm_folder
from sysd.units.helper import see_through

CLOCK_STEP = 2_000_000_000
"""Nanoseconds by which the kernel's and our idea of the time may differ."""
FAREWELL = 10.0
"""Seconds for the other host to say that it knows."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """source: an instance, or ``INSTANCE/SNAPSHOT``. move: it is to be there and no longer here. stateful: with what it
    has in memory, or not at all; without this, that goes along if it runs and is a virtual machine."""

    source: str
    instance_only: bool = False
    move: bool = False
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """The other host: see Move."""

    certificate: str
    addresses: list[str]


class Departures:
    def __init__(
        self,
        table: Table,
        instances: Instances,
        snapshots: Snapshots,
        lifecycle: Lifecycle,
        backups: Backups,
        settlements: Settlements,
        states: States,
        living: Living,
    ) -> None:
        self._table = table
        self._instances = instances
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._backups = backups
        self._settlements = settlements
        self._states = states
        self._living = living
        self._stopped_at: dict[str, float] = {}
        """When a container was stopped for a move, by the monotonic clock."""

    def check(self, wanted: Send) -> None:
        """Raise unless it may be sent, as it is now."""
        instance, itself = self._snapshots.find(wanted.source)
        if wanted.move:
            if itself:
                raise InvalidError("a snapshot goes where its instance goes", "copy it, as an instance of its own")
            self._instances.check_movable(instance)
        if wanted.stateful and not wanted.move:
            raise InvalidError("what an instance has in memory goes along when it moves", "a copy begins without")
        if wanted.stateful:
            self._states.check_memory(instance)

    async def send(self, handle: Handle, talk: Talk, peer: Peer, wanted: Send) -> None:
        await (self._move if wanted.move else self._copy)(handle, talk, peer, wanted)

    async def _copy(self, handle: Handle, talk: Talk, peer: Peer, wanted: Send) -> None:
        async def send() -> None:
            instance, itself = self._snapshots.find(wanted.source)
            taken = [] if itself or wanted.instance_only else self._snapshots.of(instance)
            chosen = await introduce(talk, itself.applied(instance) if itself else instance, taken)
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
            if wanted.stateful and not live:
                raise NotRunningError(f"{instance.reference} does not run: it has no memory that could go along")
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
            await to_the_end(self._part(handle, talk, move))

    async def _offer(self, handle: Handle, talk: Talk, move: Move, wanted: Send) -> None:
        """Until the other host has all of it."""
        current = self._table.ready(move.instance)
        self._instances.check_movable(current)
        taken = [] if wanted.instance_only else self._snapshots.of(current)
        self._check_whole(current, taken)
        await self._lifecycle.forget(current)
        chosen = await introduce(talk, current, taken, move.id)
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
        check_free_to_go(self._table.expanded(current))
        taken = [] if wanted.instance_only else self._snapshots.of(current)
        self._check_whole(current, taken)
        chosen = await introduce(talk, current, taken, move.id, runs=True)
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
        chosen = await introduce(talk, current, taken, move.id, live=live)
        async with self._living.base(current) as upper:
            await self._write(handle, talk, Packed(current, upper), chosen)
        self._settlements.begin(move)
        talk.say("sent")
        await self._living.send(handle, talk, current, live)

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


def check_free_to_go(expanded: Instance) -> None:
    """Raise UnsupportedError for what a container that runs has of this host and would go on without, as sysd.manager.
    living does for virtual machines."""
    found = [f"device {name} ({why})" for name, each in sorted(expanded.devices.items()) if (why := _tied(each))]
    if found:
        why = f"{expanded.reference} can't leave this host while it runs: {', '.join(found)}"
        raise UnsupportedError(why, "remove them, or stop it: it goes to another host when it is stopped")


def _tied(device: Mapping[str, str]) -> str:
    """What ties a container to its host, if anything does."""
    match device["type"]:
        case "none" | "proxy":
            return ""
        case "disk":
            return "" if is_root(device) else "a folder of this host"
        case "nic" if not is_hardware(device):
            return ""
        case _:
            return "hardware of this host"


async def introduce(
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


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What has begun is not cancelled any more; it does not take long."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
