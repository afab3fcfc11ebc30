# SPDX-License-Identifier: Apache-2.0
"""syscontd: puts store, manager and doors together, and serves until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from systemd import daemon, journal

from sysd import __version__
from sysd.dbus.manager import NAME, ManagerObject
from sysd.dbus.polkit import Polkit
from sysd.guestapi.door import Door
from sysd.guestapi.lxd import LxdServer
from sysd.guestapi.methods import INTERFACE as GUEST_INTERFACE
from sysd.guestapi.methods import VarlinkServer
from sysd.manager.actions import Authority
from sysd.manager.chronicle import Chronicle
from sysd.manager.guests import HandoverReader
from sysd.manager.manager import STATE_ROOT, Manager
from sysd.runtime.guest import stored_descriptors
from sysd.store.database import Store
from sysd.units.bus import Bus
from sysd.varlink.entrance import RemoteEntrance
from sysd.varlink.methods import Methods
from sysd.varlink.service import INTERFACE, Interface
from sysd.varlink.service import Service as VarlinkService

log = logging.getLogger("syscontd")

SETTLE = 2.0
"""Seconds that operations get to end when the daemon is stopped."""

INTERFACE_FOLDERS = (
    Path("/usr/share/varlink/interfaces"),
    Path("/usr/share/syscont"),
    Path(__file__).parent.parent / "data/varlink",
)


class Daemon:
    async def run(self) -> None:
        named = passed_descriptors()
        varlink_socket, handover_socket = take_socket(named, "varlink"), take_socket(named, "handover")
        bus = await Bus.connect()
        STATE_ROOT.mkdir(mode=0o711, exist_ok=True)
        store = Store(STATE_ROOT / "syscont.db")
        os.chmod(STATE_ROOT / "syscont.db", 0o600)
        manager = Manager(store, bus)
        manager.events.subscribe(Chronicle(manager).note)
        await manager.start(stored_descriptors(named))
        authority = Polkit(bus)
        handover = HandoverReader(handover_socket, manager.guests)
        interface = Interface(INTERFACE, interface_description(INTERFACE), Methods(manager, authority).table())
        varlink = VarlinkService(varlink_socket, interface, authority)
        remote = RemoteEntrance(manager, interface, authority)
        guests = open_in_guests(manager, authority)
        ManagerObject(manager, authority).serve(bus)
        await bus.request_name(NAME)
        gc.freeze()
        known = f"{len(manager.table.all())} instances"
        daemon.notify(f"READY=1\nSTATUS={known}")
        log.info("syscontd %s has %s", __version__, known)
        manager.autostart()
        try:
            await self._until_stopped(bus)
        finally:
            daemon.notify("STOPPING=1")
            varlink.close()
            remote.close()
            guests.close()
            handover.close()
            await manager.operations.settle(SETTLE)
            await manager.guests.leave_consoles()
            store.close()
            # Not by the way of cancelling tasks: a cancelled start would undo itself, and guests are to stay.
            os._exit(0)

    async def _until_stopped(self, bus: Bus) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        lost = asyncio.create_task(bus.wait_for_disconnect())
        stopped = asyncio.create_task(stop.wait())
        watchdog = asyncio.create_task(feed_watchdog())
        await asyncio.wait({lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
        watchdog.cancel()
        if not stopped.done():
            # systemd starts us again; instances do not notice.
            log.error("the connection to the system bus was lost")
            os._exit(1)


async def feed_watchdog() -> None:
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while period:
        daemon.notify("WATCHDOG=1")
        await asyncio.sleep(period)


def passed_descriptors() -> dict[int, str]:
    """Sockets and stored descriptors by number, with the names that systemd has for them (sd_listen_fds(3))."""
    named = daemon.listen_fds_with_names(True)
    for fd in named:
        os.set_inheritable(fd, False)
    return dict(named)


def take_socket(named: dict[int, str], name: str) -> socket.socket:
    for fd, given in named.items():
        if given == name:
            return socket.socket(fileno=fd)
    raise SystemExit(f"no socket {name!r} was passed; start syscontd by its units: systemctl start syscontd.service")


def interface_description(name: str) -> str:
    for folder in INTERFACE_FOLDERS:
        path = folder / f"{name}.varlink"
        if path.exists():
            return path.read_text()
    raise SystemExit(f"{name}.varlink is missing in {INTERFACE_FOLDERS[1]}; install syscont again")


def open_in_guests(manager: Manager, authority: Authority) -> Door:
    door = Door(manager)
    varlink = VarlinkServer(door, interface_description(GUEST_INTERFACE), authority)
    door.open({"guestapi": varlink.serve, "lxdapi": LxdServer(door).serve})
    return door


def main() -> None:
    if daemon.booted() and os.environ.get("JOURNAL_STREAM"):
        logging.root.addHandler(journal.JournalHandler(SYSLOG_IDENTIFIER="syscontd"))
    else:
        logging.root.addHandler(logging.StreamHandler(sys.stderr))
    logging.root.setLevel(logging.INFO)
    os.umask(0o077)
    asyncio.run(Daemon().run())


if __name__ == "__main__":
    main()
