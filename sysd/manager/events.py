# SPDX-License-Identifier: Apache-2.0
"""The one in-process bus: what happened, told to whoever asked. Doors turn it into signals and streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sysd.model.names import qualified

log = logging.getLogger(__name__)


class Kind(StrEnum):
    INSTANCE_ADDED = "instance-added"
    INSTANCE_CHANGED = "instance-changed"
    INSTANCE_REMOVED = "instance-removed"
    IMAGE_ADDED = "image-added"
    IMAGE_CHANGED = "image-changed"
    IMAGE_REMOVED = "image-removed"
    NETWORK_ADDED = "network-added"
    NETWORK_CHANGED = "network-changed"
    NETWORK_REMOVED = "network-removed"
    ACL_ADDED = "acl-added"
    ACL_CHANGED = "acl-changed"
    ACL_REMOVED = "acl-removed"
    ZONE_ADDED = "zone-added"
    ZONE_CHANGED = "zone-changed"
    ZONE_REMOVED = "zone-removed"
    PROFILE_ADDED = "profile-added"
    PROFILE_CHANGED = "profile-changed"
    PROFILE_REMOVED = "profile-removed"
    PROJECT_ADDED = "project-added"
    PROJECT_CHANGED = "project-changed"
    PROJECT_REMOVED = "project-removed"
    SERVER_CHANGED = "server-changed"
    OPERATION_ADDED = "operation-added"
    OPERATION_CHANGED = "operation-changed"
    OPERATION_REMOVED = "operation-removed"


@dataclass(frozen=True, slots=True)
class Event:
    """name: an instance's, network's, ACL's, zone's, profile's or project's name, an image's fingerprint or an
    operation's id; nothing for the host as a whole.
    changed: names of the D-Bus properties that have new values."""

    kind: Kind
    name: str
    project: str = ""
    changed: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The name as doors say it: qualified where there are projects."""
        return qualified(self.project, self.name) if self.project else self.name


Listener = Callable[[Event], None]


class EventBus:
    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns the function that ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event.kind)
