# SPDX-License-Identifier: Apache-2.0
"""What the daemon holds of a running guest: its leader, its console, and of a container its notification socket.

The descriptors are also kept in systemd's fd store (sd_pid_notify_with_fds(3)), so that they outlive
the daemon; a guest does not notice when it restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable

from systemd import daemon

from sysd.model.errors import FailedError
from sysd.model.instance import Instance
from sysd.runtime.addresses import AddressWatch
from sysd.runtime.console import Console
from sysd.runtime.listener import Listener
from sysd.runtime.spec import Confinement, read_confinement
from sysd.units.journal import UnitJournal

log = logging.getLogger(__name__)

API_KINDS = ("guestapi", "lxdapi")
KINDS = ("console", "notify", *API_KINDS)
"""The controlling side of the console's terminal, the socket that the guest notifies on, and those on which it asks
about itself: in our language, and in that of LXD."""

ALLOWED_FIELDS = ("READY", "STATUS", "STOPPING")
MAX_STATUS = 200
FLOOD = 50
FLOOD_PERIOD = 5.0
"""More messages of a guest's PID 1 than FLOOD in so many seconds, and it has to wait as long."""
READS = 64
BREATH = 0.1
"""So many messages are read in one go, of whichever process of the guest; with more there is a pause."""
_CREDENTIALS = struct.Struct("iII")


class Guest:
    """One running guest. Made when its launcher hands it over, or from the fd store after a restart."""

    def __init__(self, instance: Instance, leader: int) -> None:
        self.uuid = instance.uuid
        self.name = instance.name
        self.unit = instance.unit
        self.leader = leader
        self.pidfd = os.pidfd_open(leader)
        self.addresses: tuple[str, ...] = ()
        self.cgroup = ""
        self.console: Console | None = None
        self.listeners: dict[str, Listener] = {}

    def close(self) -> None:
        """Let go of everything; the fd store too."""
        if self.console:
            self.console.close()
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        forget_descriptors(self.uuid)

    def adopt(self, fds: dict[str, int]) -> None:
        """Take over descriptors by their KINDS; there may be fewer when some were lost."""
        if "console" in fds:
            self.console = Console(fds["console"], UnitJournal(self.unit, self.name, self.leader))

    @property
    def warning(self) -> str:
        """What whoever starts it should know; mostly nothing."""
        return ""

    def take(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have call made once the leader is gone (pidfd_open(2): the descriptor becomes readable)."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self.pidfd)
            call()

        loop.add_reader(self.pidfd, ended)


class ContainerGuest(Guest):
    """Its leader is its own PID 1."""

    def __init__(self, instance: Instance, leader: int, on_addresses: Callable[[tuple[str, ...]], None]) -> None:
        super().__init__(instance, leader)
        self._notify: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._window = (0.0, 0)
        self._watch: AddressWatch | None = None
        try:
            self._watch = AddressWatch(self.pidfd, on_addresses)
        except OSError as error:
            log.warning("%s: addresses can't be watched: %s", self.unit, error)

    @functools.cached_property
    def confinement(self) -> Confinement:
        """What it is held by, until it starts anew."""
        try:
            return read_confinement(self.uuid)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"how {self.name} was launched can't be read: {error}"
            raise FailedError(why, f"syscont restart {self.name}") from None

    def close(self) -> None:
        if self._watch:
            self._watch.close()
        for listener in self.listeners.values():
            listener.close()
        if self._pause:
            self._pause.cancel()
        if self._notify:
            asyncio.get_running_loop().remove_reader(self._notify)
            self._notify.close()
        super().close()

    def adopt(self, fds: dict[str, int]) -> None:
        super().adopt(fds)
        if "notify" in fds:
            self._notify = socket.socket(fileno=fds["notify"])
            self._notify.setblocking(False)
            asyncio.get_running_loop().add_reader(self._notify, self._relay)
        self.listeners = {kind: Listener(fds[kind], self.unit) for kind in API_KINDS if kind in fds}

    # What the guest says of itself goes to systemd in the name of its PID 1, if it is on the list.

    def _relay(self) -> None:
        assert self._notify
        for _ in range(READS):
            try:
                data, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except OSError:
                return
            if not _is_from(ancillary, self.leader):
                continue
            if fields := allowed_fields(data):
                daemon.notify(fields, pid=self.leader)
            if self._flooding():
                self._rest(FLOOD_PERIOD)
                return
        self._rest(BREATH)

    def _flooding(self) -> bool:
        """Whether the guest's PID 1, of which the message just passed on was, talks too much."""
        since, count = self._window
        now = time.monotonic()
        self._window = (now, 1) if now - since > FLOOD_PERIOD else (since, count + 1)
        return self._window[1] > FLOOD

    def _rest(self, seconds: float) -> None:
        """Don't listen for a while; messages queue at the guest's own cost, and none is lost."""
        loop = asyncio.get_running_loop()
        assert self._notify
        loop.remove_reader(self._notify)
        self._pause = loop.call_later(seconds, loop.add_reader, self._notify, self._relay)


def _is_from(ancillary: Iterable[tuple[int, int, bytes]], pid: int) -> bool:
    return any(
        kind == socket.SCM_CREDENTIALS and _CREDENTIALS.unpack(payload)[0] == pid for _, kind, payload in ancillary
    )


def allowed_fields(data: bytes) -> str:
    """Those lines of a notification that a guest may say, made harmless."""
    lines = []
    for line in data.decode(errors="replace").split("\n"):
        key, _, value = line.partition("=")
        if key in ALLOWED_FIELDS:
            clean = "".join(c for c in value if c.isprintable())[:MAX_STATUS]
            lines.append(f"{key}={clean}")
    return "\n".join(lines)


def store_descriptor(uuid: str, kind: str, fd: int) -> None:
    daemon.notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={kind}-{uuid}", fds=[fd])


def forget_descriptors(uuid: str) -> None:
    for kind in KINDS:
        daemon.notify(f"FDSTOREREMOVE=1\nFDNAME={kind}-{uuid}")


def bury(instance: Instance, fds: dict[str, int]) -> None:
    """Let go of the descriptors of a guest that has ended; what its console still holds is logged."""
    if "console" in fds:
        Console(fds["console"], UnitJournal(instance.unit, instance.name, 0)).close()
    for kind, fd in fds.items():
        if kind != "console":
            os.close(fd)
    if fds:
        forget_descriptors(instance.uuid)


def stored_descriptors(named: dict[int, str]) -> dict[str, dict[str, int]]:
    """From the descriptors that systemd passed to us: UUID to kind to descriptor. Doubles are closed."""
    found: dict[str, dict[str, int]] = {}
    for fd, name in named.items():
        kind, _, uuid = name.partition("-")
        if kind not in KINDS:
            continue
        if kind in found.setdefault(uuid, {}):
            with contextlib.suppress(OSError):
                os.close(found[uuid][kind])
        found[uuid][kind] = fd
    return found
