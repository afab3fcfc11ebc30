# SPDX-License-Identifier: Apache-2.0
"""Short-lived helpers in transient units: a command with its streams, in a sandbox, gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dbus_next import Variant

from sysd.model.errors import FailedError
from sysd.units.bus import BusError
from sysd.units.systemd import Properties, Systemd

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP = 0, 1, 3, 4, 31
MAX_LINE = 1 << 16
TAIL = 20
TIME_LIMIT = 3600
"""Seconds until a sandboxed helper is given up."""
LONG = 24 * 3600
"""The same of one whose input comes from elsewhere, as fast as that can."""
SECRETS = ["-/etc/shadow", "-/etc/gshadow", "-/etc/ssh", "-/etc/ssl/private", "-/boot"]
_PATIENCE = 30.0

T = TypeVar("T")


def hardened() -> Properties:
    """For whatever runs as root and is spoken to by strangers: what neither a tool nor a server needs."""
    return {
        "NoNewPrivileges": Variant("b", True),
        "PrivateTmp": Variant("b", True),
        "PrivateDevices": Variant("b", True),
        "ProtectSystem": Variant("s", "strict"),
        "ProtectHome": Variant("s", "yes"),
        "ProtectKernelTunables": Variant("b", True),
        "ProtectKernelModules": Variant("b", True),
        "ProtectKernelLogs": Variant("b", True),
        "ProtectControlGroups": Variant("b", True),
        "ProtectClock": Variant("b", True),
        "ProtectProc": Variant("s", "invisible"),
        "SystemCallArchitectures": Variant("as", ["native"]),
        "SystemCallFilter": Variant("(bas)", [True, ["@system-service"]]),
        "SystemCallErrorNumber": Variant("i", errno.EPERM),
        "LockPersonality": Variant("b", True),
        "MemoryDenyWriteExecute": Variant("b", True),
        "RestrictRealtime": Variant("b", True),
        # The kinds of namespace that may be made: none.
        "RestrictNamespaces": Variant("t", 0),
    }


def only(folder: str, *, hidden: Sequence[str]) -> Properties:
    """Nothing of what is below the folders hidden but folder, which is writable."""
    return {
        "TemporaryFileSystem": Variant("a(ss)", [[path, "mode=0755,ro"] for path in hidden]),
        "BindPaths": Variant("a(ssbt)", [[folder, folder, False, 0]]),
        "ReadWritePaths": Variant("as", [folder]),
    }


def sandbox(writable: str, limit: int = TIME_LIMIT) -> Properties:
    """For work on hostile input: no network, no devices, one writable folder, the capabilities of tar.

    Set-user-id bits belong to images, so RestrictSUIDSGID= is not for it.
    """
    capabilities = sum(1 << cap for cap in (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP))
    return {
        **hardened(),
        **only(writable, hidden=("/run", "/var/lib")),
        "CapabilityBoundingSet": Variant("t", capabilities),
        "PrivateNetwork": Variant("b", True),
        # An empty list of those that are allowed. Sockets in the file system, the bus's for one, are out of reach so.
        "RestrictAddressFamilies": Variant("(bas)", [True, []]),
        "InaccessiblePaths": Variant("as", SECRETS),
        "MemoryMax": Variant("t", 1 << 30),
        "TasksMax": Variant("t", 64),
        "TimeoutStartUSec": Variant("t", limit * 1_000_000),
    }


@dataclass(frozen=True, slots=True)
class Helper:
    """A unit to run once. stdin -1 is /dev/null."""

    unit: str
    description: str
    argv: Sequence[str]
    properties: Properties
    environment: Sequence[str] = ()
    stdin: int = -1


class RunningHelper:
    """Started; its output is read line by line, then its end awaited."""

    def __init__(self, systemd: Systemd, helper: Helper, job: str, stdout: int, stderr: int) -> None:
        self._systemd = systemd
        self._unit = helper.unit
        self._job = job
        self._stdout = stdout
        self._stderr = stderr
        self.tail: list[str] = []

    async def lines(self) -> AsyncIterator[str]:
        """Of standard output, which must be lines: raises FailedError for one longer than MAX_LINE.

        Not for a helper whose output goes elsewhere.
        """
        fd, self._stdout = self._stdout, -1
        async for line in _lines(fd):
            if line is None:
                raise FailedError(f"{self._unit} wrote a line of more than {MAX_LINE >> 10} KiB")
            yield line

    async def errors(self) -> AsyncIterator[str]:
        """Of standard error; the last ones stay in tail."""
        fd, self._stderr = self._stderr, -1
        if fd < 0:
            return  # stopped before anybody listened
        async for line in _lines(fd):
            if line is None:
                continue  # longer than any line worth showing
            self.tail = [*self.tail[-TAIL:], line]
            yield line

    async def wait(self) -> bool:
        """True when the command ended with status 0. A unit that failed is not left behind."""
        result = await self._systemd.wait_job(self._job)
        if result != "done":
            await self._systemd.forget(self._unit)
        return result == "done"

    async def stop(self) -> None:
        """End it, whatever it is at. It is gone when this returns."""
        for fd in (self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)
        self._stdout = self._stderr = -1
        await see_through(self._stop())

    async def _stop(self) -> None:
        with contextlib.suppress(BusError):
            await self._systemd.wait_job(await self._systemd.stop_unit(self._unit))
        await self._systemd.forget(self._unit)


_seen_through: set[asyncio.Future[Any]] = set()


async def see_through(work: Awaitable[T]) -> T:
    """Like awaiting work; but when the caller is cancelled work goes on, and is given a while to end."""
    task = asyncio.ensure_future(work)
    _seen_through.add(task)
    task.add_done_callback(_seen_through.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task], timeout=_PATIENCE)
        raise


async def stop_all(systemd: Systemd, pattern: str) -> None:
    """Stop helpers that outlived the daemon that had started them."""
    for info in await systemd.list_units(pattern):
        with contextlib.suppress(BusError):
            await systemd.wait_job(await systemd.stop_unit(info.name))


async def start(systemd: Systemd, helper: Helper, *, stdout: int = -1) -> RunningHelper:
    """Start helper; with stdout its output goes to that descriptor instead of lines()."""
    starting = asyncio.ensure_future(_start(systemd, helper, stdout))
    try:
        return await see_through(starting)
    except asyncio.CancelledError:
        if starting.done() and not starting.cancelled() and not starting.exception():
            await starting.result().stop()
        raise


async def run(systemd: Systemd, helper: Helper, limit: float) -> None:
    """One that says nothing but errors, to its end. Raises FailedError with its last words, or after limit seconds."""
    running = await start(systemd, helper)
    try:
        async with asyncio.timeout(limit):
            async for _ in running.errors():
                pass
            well = await running.wait()
    except TimeoutError:
        raise FailedError(f"{helper.description}: it is not done after {limit:.0f} seconds") from None
    finally:
        await running.stop()
    if not well:
        raise FailedError(running.tail[-1] if running.tail else f"{helper.description}: it failed")


async def _start(systemd: Systemd, helper: Helper, stdout: int) -> RunningHelper:
    """Never cancelled half-way: the bus has the descriptors queued until it has sent them."""
    out_read, out_write = (-1, os.dup(stdout)) if stdout >= 0 else os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    fds = [out_write, err_write, *([os.dup(helper.stdin)] if helper.stdin >= 0 else [])]
    try:
        job = await systemd.start_transient(helper.unit, _unit_properties(helper), fds)
    except BaseException:
        for fd in (out_read, err_read):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in fds:
            os.close(fd)
    return RunningHelper(systemd, helper, job, out_read, err_read)


def _unit_properties(helper: Helper) -> Properties:
    """Descriptors are indices: output, errors, and input if there is any."""
    properties: Properties = {
        "Description": Variant("s", helper.description),
        "Slice": Variant("s", "syscont.slice"),
        "Type": Variant("s", "oneshot"),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "ExecStart": Variant("a(sasb)", [[helper.argv[0], list(helper.argv), False]]),
        "Environment": Variant("as", list(helper.environment)),
        "StandardOutputFileDescriptor": Variant("h", 0),
        "StandardErrorFileDescriptor": Variant("h", 1),
        **helper.properties,
    }
    if helper.stdin >= 0:
        properties["StandardInputFileDescriptor"] = Variant("h", 2)
    return properties


async def _lines(fd: int) -> AsyncIterator[str | None]:
    """None for a line that is longer than MAX_LINE."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                yield None
                continue
            if not line:
                return
            yield line.decode(errors="replace").rstrip("\r\n")
    finally:
        transport.close()
