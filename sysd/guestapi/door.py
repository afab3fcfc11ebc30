# SPDX-License-Identifier: Apache-2.0
"""The sockets in guests: which are open, to whom, and who is told when what he may know changes.

An instance's sockets are made by its launcher and kept in systemd's fd store, so they outlive the daemon; the
connections on them don't, and guests make new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from socket import socket
from typing import Protocol

from sysd.guestapi.view import View, view
from sysd.manager.events import Event, Kind
from sysd.manager.manager import Manager
from sysd.model.config import get_bool
from sysd.model.instance import Instance
from sysd.runtime.guest import Guest
from sysd.runtime.pace import Pace

MAX_CONNECTIONS = 32
RATE = 50.0
BURST = 100
"""What one instance may have open and ask in a second, on all its sockets together; more has to wait."""


@dataclass(slots=True, eq=False)
class Room:
    """One running guest: its connections, as calls that end them, and those in it that wait for changes."""

    uuid: str
    guest: Guest
    pace: Pace = field(default_factory=lambda: Pace(RATE, BURST))
    connections: dict[object, Callable[[], None]] = field(default_factory=dict)
    watchers: dict[object, Callable[[], None]] = field(default_factory=dict)

    def clear(self) -> None:
        for close in list(self.connections.values()):
            close()


class Host(Protocol):
    """What the servers of the two languages ask of the door."""

    def instance(self, uuid: str) -> Instance:
        """The expanded instance."""
        ...

    def view(self, uuid: str) -> View: ...

    def watch(self, uuid: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call changed when the instance's configuration may have changed. Returns what ends that."""
        ...


Serve = Callable[[Room, socket, Callable[[], None]], Callable[[], None]]
"""Serve a connection from a room: gets what to call at its end, returns what ends it."""


class Door:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._servers: dict[str, Serve] = {}
        self._rooms: dict[str, Room] = {}

    def open(self, servers: dict[str, Serve]) -> None:
        """Serve all guests, those that run and those to come; servers are by the kind of the socket."""
        self._servers = servers
        self._manager.events.subscribe(self._happened)
        for instance in self._manager.table.all():
            self._look(instance)

    def close(self) -> None:
        for room in list(self._rooms.values()):
            room.clear()

    # what servers ask for

    def instance(self, uuid: str) -> Instance:
        return self._manager.table.expanded(self._manager.table.by_uuid(uuid))

    def view(self, uuid: str) -> View:
        return view(self.instance(uuid))

    def watch(self, uuid: str, changed: Callable[[], None]) -> Callable[[], None]:
        room, key = self._rooms.get(uuid), object()
        if room is None:  # the guest has just ended, and so will the one that asks
            return lambda: None
        room.watchers[key] = changed

        def end() -> None:
            del room.watchers[key]

        return end

    # what happens

    def _happened(self, event: Event) -> None:
        if event.kind is Kind.INSTANCE_REMOVED:
            for uuid, room in list(self._rooms.items()):
                if self._manager.table.find_uuid(uuid) is None:
                    del self._rooms[uuid]
                    room.clear()
        elif instance := self._manager.table.find(event.project, event.name):
            self._look(instance)

    def _look(self, instance: Instance) -> None:
        guest = self._manager.table.live(instance).guest
        room = self._rooms.get(instance.uuid)
        if room and room.guest is not guest:
            del self._rooms[instance.uuid]
            room.clear()
            room = None
        if guest and room is None:
            room = self._rooms[instance.uuid] = Room(instance.uuid, guest)
            self._serve(room)
        if room and room.connections:
            if self._enabled(instance.uuid):
                for changed in list(room.watchers.values()):
                    changed()
            else:
                room.clear()

    def _enabled(self, uuid: str) -> bool:
        return get_bool(self.instance(uuid).config, "security.devlxd")

    def _serve(self, room: Room) -> None:
        for kind, listener in room.guest.listeners.items():
            listener.serve(partial(self._taken, room, self._servers[kind]))

    def _taken(self, room: Room, serve: Serve, sock: socket) -> None:
        if len(room.connections) >= MAX_CONNECTIONS or not self._enabled(room.uuid):
            sock.close()
            return
        key = object()

        def ended() -> None:
            room.connections.pop(key, None)

        room.connections[key] = serve(room, sock, ended)
