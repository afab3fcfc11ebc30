# SPDX-License-Identifier: Apache-2.0
"""A machine that runs, from one QEMU to another (docs/devel/migration of QEMU, docs/interop/live-block-operations).

    to leave (Leaving)                            to arrive (Arriving)
    copy_disk   while the guest works             serve_disk
    send        memory, while the guest works     receive
    switch      the guest stands still from here to the end
                what is left of the disk, then of memory
                                                  arrived
                                                  run

All bytes go from QEMU to QEMU by connections that both are handed, in TLS of their own with a key that is used once.
That only one of the two runs the guest is for the caller to see to: who has sent all does not run it any more unless
told to, and who has received all does not run it yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sysd import _cext
from sysd.model.errors import FailedError
from sysd.model.keys.machine import COMPRESSIONS
from sysd.runtime.vm.joining import MEMORY, where

DISK = "root"
"""The node of the disk that moves, on both sides, and how it is called between them."""
_TLS, _FAR, _JOB = "moving", "moving-disk", "moving-disk"
_MEMORY_SOCKET, _DISK_SOCKET = "moving-memory", "moving-nbd"
_KEYS_SET = 901
_USER = "qemu"
# Both ends are ours.
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
_UNLIMITED = 1 << 50
_SHORTEST = 5
"""Milliseconds that the rest of memory may take at first; twice as long from each look on, up to the limit."""
_LOOK = 1.0
"""Seconds between looks at how far it is; its end is not waited for so."""
_SETTLE = 20.0
"""Seconds for QEMU to give up what it was told to."""
_ATTRIBUTES = _cext.ATTR_NOSUID | _cext.ATTR_NODEV | _cext.ATTR_NOEXEC | _cext.ATTR_NOSYMFOLLOW
_ENDED = ("completed", "failed", "cancelled")

Show = Callable[[str, Mapping[str, int]], None]
"""Is told of a stage and its numbers."""
Fits = Callable[[str, Mapping[str, Any]], bool]


class Monitor(Protocol):
    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any: ...

    def expecting(self, fits: Fits) -> AbstractContextManager[asyncio.Future[Mapping[str, Any]]]:
        """The next event of a name, with data, that fits; what it says."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """bandwidth: bytes a second for memory, 0 for no limit; downtime: milliseconds in which the guest may stand still
    for the rest of its memory."""

    bandwidth: int = 0
    downtime: int = 30


@dataclass(frozen=True, slots=True)
class Streams:
    """How memory goes: in one stream, or, with multifd of QEMU's, in channels beside one that tells of them, compressed
    or not. Both ends have to know."""

    channels: int = 1
    compression: str = COMPRESSIONS[0]

    @property
    def plain(self) -> bool:
        return self.channels == 1 and self.compression == COMPRESSIONS[0]

    @property
    def connections(self) -> int:
        return 1 if self.plain else self.channels + 1

    def parameters(self) -> dict[str, Any]:
        return {} if self.plain else {"multifd-channels": self.channels, "multifd-compression": self.compression}


# the key


def key_folder(key: bytes, owner: int) -> int:
    """Where QEMU finds the key, for that user alone: a file system that is nowhere, and has nothing above it."""
    options = {"mode": "0700", "uid": str(owner), "gid": str(owner), "size": "64k", "nr_inodes": "64"}
    mount = _cext.new_mount("tmpfs", options, _ATTRIBUTES)
    try:
        write_key(mount, key)
        os.chown("keys.psk", owner, owner, dir_fd=mount, follow_symlinks=False)
    except BaseException:
        os.close(mount)
        raise
    return mount


def write_key(folder: int, key: bytes) -> None:
    """As gnutls reads it (psktool(1))."""
    fd = os.open("keys.psk", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=folder)
    with os.fdopen(fd, "w") as stream:
        stream.write(f"{_USER}:{key.hex()}\n")


async def _know_key(monitor: Monitor, folder: int, end: str) -> int:
    """The number under which QEMU has the folder."""
    found = int((await monitor.execute("add-fd", {"fdset-id": _KEYS_SET}, fds=[folder]))["fd"])
    tls = {"qom-type": "tls-creds-psk", "id": _TLS, "endpoint": end, "priority": _PRIORITY}
    tls |= {"dir": f"/proc/self/fd/{found}"} | ({} if end == "server" else {"username": _USER})
    await monitor.execute("object-add", tls)
    return found


async def _forget_key(monitor: Monitor) -> None:
    for command, arguments in (("object-del", {"id": _TLS}), ("remove-fd", {"fdset-id": _KEYS_SET})):
        with contextlib.suppress(FailedError):
            await monitor.execute(command, arguments)


# both ends


async def _set(monitor: Monitor, parameters: Mapping[str, Any], **capabilities: bool) -> None:
    known = {str(one.get("capability")) for one in await monitor.execute("query-migrate-capabilities")}
    wanted = {name.replace("_", "-"): on for name, on in capabilities.items()}
    states = [{"capability": name, "state": on} for name, on in wanted.items() if name in known]
    await monitor.execute("migrate-set-capabilities", {"capabilities": states})
    await monitor.execute("migrate-set-parameters", {"tls-creds": _TLS, **parameters})


def _ways(streams: Streams) -> dict[str, bool]:
    """mapped-ram is on when the machine has been saved, or was started from what was saved."""
    return {"events": True, "mapped_ram": False, "multifd": not streams.plain}


def _migration(*statuses: str) -> Fits:
    wanted = (*statuses, "failed", "cancelled")
    return lambda name, data: name == "MIGRATION" and data.get("status") in wanted


async def _wait(
    monitor: Monitor, coming: asyncio.Future[Mapping[str, Any]], look: Callable[[], Any] | None = None
) -> Mapping[str, Any]:
    """What is coming, at once when it comes. A monitor that is gone, or a look that finds it can't come, raises."""
    while not coming.done():
        await asyncio.wait([coming], timeout=_LOOK)
        if not coming.done():
            await (look() if look else monitor.execute("query-status"))
    return coming.result()


async def _why(monitor: Monitor) -> str:
    found = await monitor.execute("query-migrate")
    return str(found.get("error-desc") or found.get("status"))[:300]


class Arriving:
    """The machine was started to wait for what comes (-incoming defer), with an empty disk of the right size."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._coming = contextlib.ExitStack()

    async def get_ready(self, folder: int, disks: int) -> None:
        """folder: key_folder's; disks: a socket that listens for the other QEMU. Both stay the caller's."""
        monitor = self._monitor
        self._folder = await _know_key(monitor, folder, "server")
        await monitor.execute("getfd", {"fdname": _DISK_SOCKET}, fds=[disks])
        where = {"type": "fd", "data": {"str": _DISK_SOCKET}}
        serve = {"addr": where, "tls-creds": _TLS, "max-connections": 1}
        await monitor.execute("nbd-server-start", serve)
        export = {"type": "nbd", "id": DISK, "node-name": DISK, "name": DISK, "writable": True}
        await monitor.execute("block-export-add", export)

    async def receive(self, connection: int) -> None:
        """Memory, as it comes by the connection; returns when QEMU is ready for it."""
        await self._monitor.execute("getfd", {"fdname": _MEMORY_SOCKET}, fds=[connection])
        await self._expect(f"fd:{_MEMORY_SOCKET}", Streams())

    async def listen(self, streams: Streams) -> None:
        """The same, by connections that QEMU takes at a socket in the folder (sysd.runtime.vm.joining)."""
        await self._expect(f"unix:{where(self._folder, MEMORY)}", streams)

    async def _expect(self, uri: str, streams: Streams) -> None:
        await _set(self._monitor, streams.parameters(), **_ways(streams))
        self.arrival = self._coming.enter_context(self._monitor.expecting(_migration("completed")))
        await self._monitor.execute("migrate-incoming", {"uri": uri})

    async def arrived(self) -> None:
        """Until all has come, and nothing more of the disk can. Raises FailedError when it does not come."""
        with self._coming:
            found = await _wait(self._monitor, self.arrival)
        if found.get("status") != "completed":
            raise FailedError(f"the memory did not arrive: {await _why(self._monitor)}")
        await self._monitor.execute("nbd-server-stop")

    async def run(self) -> None:
        await self._monitor.execute("cont")

    async def tidy(self) -> None:
        await _forget_key(self._monitor)


class Leaving:
    """The machine runs, or stands still, where it is."""

    def __init__(self, monitor: Monitor, show: Show) -> None:
        self._monitor = monitor
        self._show = show
        self._coming = contextlib.ExitStack()
        self._mirrored = False
        self._limits, self._downtime = Limits(), 0
        self.still_since = 0.0
        """By the monotonic clock."""

    async def get_ready(self, folder: int) -> None:
        self._folder = await _know_key(self._monitor, folder, "client")

    async def copy_disk(self, connection: int) -> None:
        """Until the other has all but what is being written; from then on it has that as well, before the guest knows
        that it is written. The connection stays the caller's."""
        monitor = self._monitor
        await monitor.execute("getfd", {"fdname": _DISK_SOCKET}, fds=[connection])
        far = {"driver": "nbd", "node-name": _FAR, "export": DISK, "tls-creds": _TLS, "discard": "unmap"}
        await monitor.execute("blockdev-add", far | {"server": {"type": "fd", "str": _DISK_SOCKET}}, timeout=60.0)
        ended = self._coming.enter_context(monitor.expecting(_job("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")))
        with monitor.expecting(_job("BLOCK_JOB_READY")) as ready:
            mirror = {"job-id": _JOB, "device": DISK, "target": _FAR, "sync": "top"}
            await monitor.execute("blockdev-mirror", mirror)
            self._mirrored = True
            await _wait(monitor, ready, lambda: self._look_at_disk(ended))
        with contextlib.suppress(FailedError):  # QEMU before 8.2 sends it later, and has a little more to do at the end
            await monitor.execute("block-job-change", {"id": _JOB, "type": "mirror", "copy-mode": "write-blocking"})
        self._disk_ended = ended

    async def _look_at_disk(self, ended: asyncio.Future[Mapping[str, Any]]) -> None:
        if ended.done():
            raise FailedError(f"the disk can't be copied: {ended.result().get('error', 'it was broken off')}")
        for job in await self._monitor.execute("query-jobs"):
            if job.get("id") == _JOB:
                done, total = int(job.get("current-progress", 0)), int(job.get("total-progress", 0))
                self._show("disk", {"bytes": done, "of": total})

    async def send(self, connection: int, limits: Limits) -> None:
        """Memory, until the guest stands still, as no more than it can do without for a moment is left."""
        await self._monitor.execute("getfd", {"fdname": _MEMORY_SOCKET}, fds=[connection])
        await self._migrate(f"fd:{_MEMORY_SOCKET}", limits, Streams())

    async def spread(self, streams: Streams, limits: Limits) -> None:
        """The same, by connections that QEMU makes at a socket in the folder (sysd.runtime.vm.joining)."""
        await self._migrate(f"unix:{where(self._folder, MEMORY)}", limits, streams)

    async def _migrate(self, uri: str, limits: Limits, streams: Streams) -> None:
        monitor = self._monitor
        self._downtime, self._limits = min(_SHORTEST, limits.downtime), limits
        parameters = {"max-bandwidth": limits.bandwidth or _UNLIMITED, "downtime-limit": self._downtime}
        more = {"pause_before_switchover": True, "auto_converge": True}
        await _set(monitor, parameters | streams.parameters(), **_ways(streams), **more)
        stop, end = monitor.expecting(lambda name, _: name == "STOP"), monitor.expecting(_migration("pre-switchover"))
        with stop as stopped, end as still:
            stopped.add_done_callback(self._stands_still)
            await monitor.execute("migrate", {"uri": uri})
            found = await _wait(monitor, still, self._look_at_memory)
        if found.get("status") != "pre-switchover":
            raise FailedError(f"the memory can't be sent: {await _why(monitor)}")

    def _stands_still(self, coming: asyncio.Future[Mapping[str, Any]]) -> None:
        if not coming.cancelled():
            self.still_since = time.monotonic()

    async def _look_at_memory(self) -> None:
        found = await self._monitor.execute("query-migrate")
        ram = found.get("ram", {})
        numbers = {
            "bytes": int(ram.get("transferred", 0)),
            "of": int(ram.get("total", 0)),
            "left": int(ram.get("remaining", 0)),
            "rate": int(float(ram.get("mbps", 0)) * 125000),
            "dirtied": int(ram.get("dirty-pages-rate", 0)) * int(ram.get("page-size", 4096)),
            "pause": int(found.get("expected-downtime", 0)),
        }
        self._show("memory", numbers)
        await self._allow_more()

    async def _allow_more(self) -> None:
        if self._downtime < self._limits.downtime:
            self._downtime = min(2 * self._downtime, self._limits.downtime)
            await self._monitor.execute("migrate-set-parameters", {"downtime-limit": self._downtime})

    async def switch(self) -> None:
        """Send what is left of both. The other has all when this returns, and this one runs no more unless told to."""
        monitor = self._monitor
        if self._mirrored:
            await monitor.execute("block-job-cancel", {"device": _JOB})
            ended = await _wait(monitor, self._disk_ended)
            self._mirrored = False
            if "error" in ended:
                raise FailedError(f"the disk can't be copied: {str(ended['error'])[:300]}")
            await monitor.execute("blockdev-del", {"node-name": _FAR})
        with monitor.expecting(_migration("completed")) as sent:
            await monitor.execute("migrate-continue", {"state": "pre-switchover"})
            found = await _wait(monitor, sent)
        self._coming.close()
        if found.get("status") != "completed":
            raise FailedError(f"the memory can't be sent: {await _why(monitor)}")

    async def stay(self, *, runs: bool) -> None:
        """Give it up: the machine goes on here, if it ran. As far as QEMU still answers."""
        monitor = self._monitor
        self._coming.close()
        with contextlib.suppress(FailedError):
            await monitor.execute("migrate_cancel")
        with contextlib.suppress(FailedError):
            await monitor.execute("block-job-cancel", {"device": _JOB, "force": True})
        with contextlib.suppress(FailedError, TimeoutError):
            async with asyncio.timeout(_SETTLE):
                await self._settled()
            await monitor.execute("blockdev-del", {"node-name": _FAR})
        await _forget_key(monitor)
        if runs:
            with contextlib.suppress(FailedError):
                await monitor.execute("cont")

    async def _settled(self) -> None:
        """Neither memory nor disk are sent any more."""
        while (await self._monitor.execute("query-migrate")).get("status") not in (None, "none", *_ENDED):
            await asyncio.sleep(_LOOK / 20)
        while any(job.get("id") == _JOB for job in await self._monitor.execute("query-jobs")):
            await asyncio.sleep(_LOOK / 20)


def _job(*names: str) -> Fits:
    return lambda name, data: name in names and data.get("device") == _JOB
