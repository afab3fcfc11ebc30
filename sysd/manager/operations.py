# SPDX-License-Identifier: Apache-2.0
"""Long work: recorded before it starts, followed while it runs, kept a while after it has ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sysd.manager.events import Event, EventBus, Kind
from sysd.model.errors import ERRORS, BusyError, NotFoundError, SyscontError, failed, is_full
from sysd.model.operation import Operation, OperationStatus
from sysd.store.database import Store

log = logging.getLogger(__name__)

KEEP = 60.0
"""Seconds that an operation can still be asked about after its end."""
MAX_RUNNING = 1024
MAX_RUNNING_EACH = 128
"""Most operations at once, of all callers and of one user other than root."""


class Handle:
    """What the work itself sees of its operation."""

    def __init__(self, operations: Operations, operation_id: str) -> None:
        self._operations = operations
        self.id = operation_id

    def progress(self, stage: str, done: int = 0, total: int = 0) -> None:
        self._operations.update(self.id, stage=stage, done=done, total=total)

    def set_result(self, key: str, value: str) -> None:
        self._operations.set_result(self.id, key, value)

    def warn(self, text: str) -> None:
        """Have something told to whoever asked for the work, which goes on: a line of the result's "warning"."""
        before = self._operations.get(self.id).result.get("warning", "")
        if text:
            self.set_result("warning", f"{before}\n{text}" if before else text)


Work = Callable[[Handle], Awaitable[None]]


class Operations:
    def __init__(self, store: Store, events: EventBus) -> None:
        self._store = store
        self._events = events
        self._all: dict[str, Operation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, asyncio.Future[None]] = {}
        self._errors: dict[str, SyscontError] = {}

    def all(self) -> list[Operation]:
        return list(self._all.values())

    def has(self, operation_id: str) -> bool:
        return operation_id in self._all

    def get(self, operation_id: str) -> Operation:
        try:
            return self._all[operation_id]
        except KeyError:
            raise NotFoundError(f"no operation {operation_id!r}") from None

    def begin(
        self,
        kind: str,
        target: str,
        work: Work,
        owner: int = 0,
        *,
        record: bool = True,
        put: Callable[[], None] | None = None,
    ) -> Operation:
        """Start work. With record it is remembered on disk, from before its first step until it has ended, so a crash
        can be told; what put stores gets there together with that, and what work stores before its end is told."""
        running = [self._all[key] for key in self._tasks]
        if len(running) >= MAX_RUNNING or (owner and sum(o.owner == owner for o in running) >= MAX_RUNNING_EACH):
            raise BusyError("too many operations at once", "wait for some to end")
        operation = Operation(secrets.token_hex(8), kind, target, owner, created=time.time_ns() // 1000)
        if record:
            with self._store.later(), self._store.transaction():
                self._store.put_operation(operation)
                if put:
                    put()
        self._all[operation.id] = operation
        self._events.publish(Event(Kind.OPERATION_ADDED, operation.id))
        self._begun[operation.id] = asyncio.get_running_loop().create_future()
        self._tasks[operation.id] = asyncio.create_task(self._run(operation.id, work, record), name=kind)
        return operation

    async def _run(self, operation_id: str, work: Work, record: bool) -> None:
        kind, target = self._all[operation_id].kind, self._all[operation_id].target
        try:
            if record:
                await self._store.on_disk()
            self._begun[operation_id].set_result(None)
            await work(Handle(self, operation_id))
            if record:
                await self._store.on_disk()
        except asyncio.CancelledError:
            self._end(operation_id, ERRORS["Cancelled"](f"{kind} of {target} was cancelled"))
        except SyscontError as error:
            self._end(operation_id, error)
        except Exception as error:
            if not is_full(error):
                log.exception("%s of %s failed", kind, target)
            self._end(operation_id, failed(f"{kind} of {target} failed", error))
        else:
            self._end(operation_id, None)
        finally:
            if record:
                with self._store.later():
                    self._store.delete_operation(operation_id)

    def _end(self, operation_id: str, error: SyscontError | None) -> None:
        if error:
            self._errors[operation_id] = error
            cancelled = error.code == "Cancelled"
            status = OperationStatus.CANCELLED if cancelled else OperationStatus.FAILED
            self.update(operation_id, status=status, error=error.code, message=error.text)
        else:
            self.update(operation_id, status=OperationStatus.DONE, stage="")
        self._tasks.pop(operation_id, None)
        self._begun.pop(operation_id, None)
        asyncio.get_running_loop().call_later(KEEP, self._drop, operation_id)

    def _drop(self, operation_id: str) -> None:
        self._all.pop(operation_id, None)
        self._errors.pop(operation_id, None)
        self._events.publish(Event(Kind.OPERATION_REMOVED, operation_id))

    def update(self, operation_id: str, **changes: object) -> None:
        self._all[operation_id] = replace(self._all[operation_id], **changes)  # type: ignore[arg-type]
        self._events.publish(Event(Kind.OPERATION_CHANGED, operation_id))

    def set_result(self, operation_id: str, key: str, value: str) -> None:
        self.update(operation_id, result=self._all[operation_id].result | {key: value})

    async def wait(self, operation_id: str) -> Operation:
        """The operation when it has ended; raises the error that it ended with."""
        await self.ended(operation_id)
        if error := self._errors.get(operation_id):
            raise error
        return self.get(operation_id)

    async def ended(self, operation_id: str) -> None:
        """When it has ended, however it did."""
        if task := self._tasks.get(operation_id):
            await asyncio.wait([task])

    def cancel(self, operation_id: str) -> None:
        self.get(operation_id)
        if task := self._tasks.get(operation_id):
            # Not at once: work that has not begun would have no end either.
            self._begun[operation_id].add_done_callback(lambda _: task.cancel())

    def interrupted(self) -> list[Operation]:
        """At start: the operations that a crash cut off. They stay on disk until what they left is put right."""
        return list(self._store.operations())

    def forget(self, operation: Operation) -> None:
        self._store.delete_operation(operation.id)

    async def settle(self, seconds: float) -> None:
        """Give what is under way a moment to end. What has not is put right at the next start, as after a crash."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)
