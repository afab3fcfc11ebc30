# SPDX-License-Identifier: Apache-2.0
"""Moves from host to host, after whatever may come between: the instance is on one of the two, and on one only.

The source decides. It does so when the target has all of it on disk, by one write to its database; the instance is
the target's from then on, and is destroyed here. The target has it as arriving until it knows the decision: neither
started nor removed. Whoever has called the other one in the first place calls again until both know; a source that
knows nothing of a move, or does not know who asks, has not decided it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from sysd.manager import lines
from sysd.manager.instances import Instances
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.living import Living
from sysd.manager.meetings import Meetings, fingerprint_of
from sysd.manager.table import Table
from sysd.manager.trust import Trust
from sysd.model.errors import BusyError, CancelledError, DeniedError, InvalidError, SyscontError
from sysd.model.instance import Instance, Phase, State
from sysd.model.transfer import Move
from sysd.remote import certificate as certificates
from sysd.store.database import Store

log = logging.getLogger(__name__)

MOST_REFUSED = 1000
STOP = 30.0
"""Seconds that a container has to stop by itself before it is killed."""
AT_FIRST, AT_LAST = 1.0, 60.0
"""Seconds from one attempt to the next."""


class Settlements:
    def __init__(
        self,
        store: Store,
        table: Table,
        instances: Instances,
        trust: Trust,
        meetings: Meetings,
        lifecycle: Lifecycle,
        living: Living,
    ) -> None:
        self._lifecycle = lifecycle
        self._living = living
        self._store = store
        self._table = table
        self._instances = instances
        self._trust = trust
        self._meetings = meetings
        self._moves = {move.id: move for move in store.moves()}
        self._under_way: set[str] = set()
        self._refused: set[str] = set()
        """Moves of which it was said that they are not decided before all of them was here."""
        self._tasks: set[asyncio.Task[None]] = set()
        meetings.unsettled = lambda: [move.peer for move in self._moves.values() if not move.addresses]

    async def start(self) -> None:
        """At start: what a crash has left."""
        for move in list(self._moves.values()):
            if move.source and move.live and not move.decided and (kept := self._table.find_uuid(move.instance)):
                self._begin(self._stay(move, kept))
            elif move.runs and move.source is not move.decided:
                self._begin(self._go_on(move))
            else:
                self._settle_or_forget(move)

    async def _stay(self, move: Move, kept: Instance) -> None:
        """Nobody waits for its QEMU, which its guest may have taken over."""
        async with self._table.lock(kept.uuid):
            await self._living.stay(kept)
        self._settle_or_forget(move)

    async def _go_on(self, move: Move) -> None:
        """Remembered until it runs."""
        async with self._table.lock(move.instance):
            await self.start_again(move)
        self._settle_or_forget(move)

    def _settle_or_forget(self, move: Move) -> None:
        if move.source and not move.decided and not move.addresses:
            self.forget(move)  # who asks is told by this
        else:
            self.settle(move)

    # what the work of a move records

    def begin(self, move: Move) -> None:
        """The source's: before the target can be in doubt."""
        self._under_way.add(move.id)
        self._store.put_move(move)
        self._keep(move)

    def has_begun(self, move: Move) -> bool:
        return move.id in self._moves

    def give_away(self, instance: Instance, move: Move) -> None:
        """The source's decision: from here on the instance is the target's."""
        decided = replace(move, decided=True)
        self._instances.give_away(instance, lambda: self._store.put_move(decided))
        log.info("%s was moved to another host (%s)", move.name, fingerprint_of(move.peer)[:12])
        self._under_way.discard(move.id)
        self._keep(decided)

    def arrived(self, move: Move) -> None:
        """The target's, to be called where it is stored together with the instance."""
        if move.id in self._refused:
            raise CancelledError(f"{move.name} is not to be moved here any more")
        self._store.put_move(move)
        self._under_way.add(move.id)
        self._keep(move)

    async def take_over(self, move: Move, tell: Callable[[], None] = lambda: None) -> None:
        """The target knows that the source has decided so; tell says that to the source, as soon as it is so. A guest
        that stands still goes on first: the decision stands, whatever is recorded of it here."""
        decided, instance = replace(move, decided=True), self._table.find_uuid(move.instance)
        if instance is None:  # somebody did not want to wait for this
            self._store.put_move(decided)
        elif move.live:
            await self._living.run(instance)
            tell()
        if instance:
            await self._instances.take_over(move.instance, lambda: self._store.put_move(decided))
            if move.runs:
                await self.start_again(move)
        if not (instance and move.live):
            tell()
        self._keep(decided)
        if instance and move.live:
            await self._living.settle_in(self._table.by_uuid(instance.uuid))

    async def start_again(self, move: Move) -> None:
        """One that was stopped, or was about to be, for a move only; where it is now."""
        instance = self._table.find_uuid(move.instance)
        if instance is None or instance.phase is not Phase.READY:
            return
        try:
            if await self._lifecycle.refresh(instance) is State.STOPPING:
                await self._lifecycle.stop(instance, timeout=STOP)
            await self._lifecycle.start(instance)
        except (SyscontError, OSError) as error:
            log.error("%s was stopped to be moved, and can't be started: %s", instance.reference, error)

    async def take(self, reference: str) -> None:
        """Take over what has arrived without waiting for the source, which its user knows to be gone for good."""
        instance = self._table.get(reference)
        if instance.phase is not Phase.ARRIVING:
            raise InvalidError(f"{instance.reference} is not on its way here", "it is here already")
        move = next((one for one in self._moves.values() if one.instance == instance.uuid and not one.source), None)
        if move is None:  # what was remembered of it can't be read
            await self._instances.take_over(instance.uuid, lambda: None)
        elif move.id in self._under_way:
            raise BusyError(f"{instance.reference} is being moved here at this moment", "wait for the end of that")
        else:
            await self.take_over(move)

    def forget(self, move: Move) -> None:
        """Both know."""
        self._under_way.discard(move.id)
        self._store.delete_move(move.id)
        if self._moves.pop(move.id, None) and not move.addresses:
            self._meetings.changed()

    def settle(self, move: Move) -> None:
        """The work has ended, and one side may not know yet what the other one does."""
        self._under_way.discard(move.id)
        if move.addresses and move.id in self._moves:
            self._begin(self._settle(move.id))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keep(self, move: Move) -> None:
        is_new = move.id not in self._moves
        self._moves[move.id] = move
        if is_new and not move.addresses:
            self._meetings.changed()

    # settling

    async def _settle(self, known_as: str) -> None:
        delay, said = AT_FIRST, ""
        while move := self._moves.get(known_as):
            try:
                await self._ask(move)
                if known_as not in self._moves:
                    return
            except (SyscontError, OSError) as error:
                if str(error) != said:
                    log.warning("what has become of %s, which was being moved, is not settled: %s", move.name, error)
                said = str(error)
            await asyncio.sleep(delay)
            delay = min(AT_LAST, 2 * delay)

    async def _ask(self, move: Move) -> None:
        peer = certificates.parse(move.peer)
        try:
            said = await lines.ask(
                move.addresses, self._trust.identity(), peer, "Settle", id=move.id, decided=move.decided
            )
        except DeniedError:
            said = {}  # it has nothing to settle with us: a target knows, and a source has not decided
        if move.source or move.decided:
            self.forget(move)
        elif said.get("decided") is True:
            await self.take_over(move)
            await self._ask(self._moves[move.id])
        else:
            await self._drop(move)

    async def asked(self, peer: str, known_as: str, *, decided: bool) -> bool:
        """The other host, of this fingerprint, tells what it knows, and is told what is known here: the decision."""
        move = self._moves.get(known_as)
        if move is None or fingerprint_of(move.peer) != peer or move.addresses:
            self._refuse(known_as)
            return False
        if move.id in self._under_way:
            raise BusyError("it is not decided yet", "ask again")
        if move.source:
            if decided:
                self.forget(move)
            return move.decided
        if decided and not move.decided:
            await self.take_over(move)
        if decided:
            self.forget(move)
        else:
            await self._drop(move)
        return decided

    def _refuse(self, known_as: str) -> None:
        """Who hears that it is not known here forgets it, so it must not arrive later."""
        if known_as in self._moves or known_as in self._refused:
            return
        if len(self._refused) >= MOST_REFUSED:
            raise BusyError("too many moves that are not known here", "the daemon forgets them at its next start")
        self._refused.add(known_as)

    async def _drop(self, move: Move) -> None:
        """The source has kept it."""
        instance = self._table.find_uuid(move.instance)
        if instance and instance.phase is not Phase.READY:
            log.warning("%s was not moved here: what had arrived is removed", move.name)
            async with self._table.lock(instance.uuid):
                await self._lifecycle.stop(instance, force=True)
                await self._instances.destroy(self._table.by_uuid(instance.uuid))
        self.forget(move)

