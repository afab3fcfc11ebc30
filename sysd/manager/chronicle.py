# SPDX-License-Identifier: Apache-2.0
"""What happened, for the journal: a line per event that an administrator would look for.

Fields to search by: SYSCONT_EVENT, SYSCONT_PROJECT, SYSCONT_INSTANCE, SYSCONT_UNIT, SYSCONT_OPERATION, SYSCONT_IMAGE,
SYSCONT_PROFILE, SYSCONT_NETWORK, SYSCONT_ZONE.
"""

from __future__ import annotations

import logging

from sysd.manager.events import Event, Kind
from sysd.manager.manager import Manager
from sysd.model.names import unit_name
from sysd.model.operation import OperationStatus

log = logging.getLogger("syscontd")


class Chronicle:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def note(self, event: Event) -> None:
        noun = event.kind.partition("-")[0]
        match noun:
            case "instance":
                self._instance(event)
            case "operation":
                self._operation(event)
            case "image" if event.kind is not Kind.IMAGE_CHANGED:
                log.info("%s %s", event.kind, event.name[:12], extra=_fields(event, SYSCONT_IMAGE=event.name))
            case "profile":
                fields = _fields(event, SYSCONT_PROJECT=event.project, SYSCONT_PROFILE=event.name)
                log.info("%s %s", event.kind, event.reference, extra=fields)
            case "network":
                log.info("%s %s", event.kind, event.name, extra=_fields(event, SYSCONT_NETWORK=event.name))
            case "zone" if event.changed != ("Serial",):  # that is told where it happens
                log.info("%s %s", event.kind, event.name, extra=_fields(event, SYSCONT_ZONE=event.name))
            case "project":
                log.info("%s %s", event.kind, event.name, extra=_fields(event, SYSCONT_PROJECT=event.name))
            case "server":
                log.info("%s", event.kind, extra=_fields(event))

    def _instance(self, event: Event) -> None:
        fields = _fields(
            event,
            SYSCONT_PROJECT=event.project,
            SYSCONT_INSTANCE=event.name,
            SYSCONT_UNIT=unit_name(event.project, event.name),
        )
        if event.kind is not Kind.INSTANCE_CHANGED:
            log.info("%s %s", event.kind, event.name, extra=fields)
        elif "State" in event.changed:
            status = self._manager.table.status(self._manager.table.get(event.reference))
            log.info("%s is %s", event.name, status.state, extra=fields)

    def _operation(self, event: Event) -> None:
        if event.kind is not Kind.OPERATION_CHANGED:
            return
        operation = self._manager.operations.get(event.name)
        if operation.status is OperationStatus.FAILED:
            fields = _fields(event, SYSCONT_OPERATION=operation.id)
            log.warning("%s of %s failed: %s", operation.kind, operation.target, operation.message, extra=fields)


def _fields(event: Event, **fields: str) -> dict[str, str]:
    return {"SYSCONT_EVENT": event.kind.value, **fields}
