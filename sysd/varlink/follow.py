# SPDX-License-Identifier: Apache-2.0
"""Answering a call that began an operation."""

from __future__ import annotations

import asyncio

from sysd.manager.events import Event, Kind
from sysd.manager.manager import Manager
from sysd.model.operation import Operation
from sysd.varlink import encode
from sysd.varlink.service import Call


async def follow(manager: Manager, call: Call, operation: Operation) -> None:
    """Answer when the operation has ended; with "more" tell of its progress until then.

    It goes on when the caller does not wait for it; but what moves bytes from or to another host ends with the
    connection that they come by."""
    operations = manager.operations

    def progress(event: Event) -> None:
        if event.kind is Kind.OPERATION_CHANGED and event.name == operation.id:
            current = operations.get(operation.id)
            if not current.finished:
                call.reply({"operation": encode.operation(current)}, continues=True)

    end = manager.events.subscribe(progress) if call.more else lambda: None
    try:
        ended = await operations.wait(operation.id)
    except asyncio.CancelledError:
        if call.caller.remote and call.fds:
            operations.cancel(operation.id)
        raise
    finally:
        end()
    call.reply({"operation": encode.operation(ended)})
