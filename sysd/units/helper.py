# SPDX-License-Identifier: Apache-2.0
"""Short-lived helpers in transient units: a command with its streams, in a sandbox, gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from dbus_next import Variant

from sysd.units.bus import BusError
from sysd.units.systemd import Properties, Systemd

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP = 0, 1, 3, 4, 31
MAX_LINE = 1 << 16
TAIL = 20


def sandbox(writable: str) -> Properties:
    """For work on hostile input: no network, no devices, one writable folder, the capabilities of tar."""
    capabilities = sum(1 << cap for cap in (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP))
    return {
        "CapabilityBoundingSet": Variant("t", capabilities),
        "NoNewPrivileges": Variant("b", True),
        "PrivateNetwork": Variant("b", True),
        "PrivateDevices": Variant("b", True),
        "PrivateTmp": Variant("b", True),
        "ProtectSystem": Variant("s", "strict"),
        "ProtectHome": Variant("s", "yes"),
        "ProtectKernelTunables": Variant("b", True),
        "ProtectControlGroups": Variant("b", True),
        "ReadWritePaths": Variant("as", [writable]),
        "MemoryMax": Variant("t", 1 << 30),
        "TasksMax": Variant("t", 64),
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
        """Of standard output. Not for a helper whose output goes elsewhere."""
        async for line in _lines(self._stdout):
            yield line

    async def errors(self) -> AsyncIterator[str]:
        """Of standard error; the last ones stay in tail."""
        async for line in _lines(self._stderr):
            self.tail = [*self.tail[-TAIL:], line]
            yield line

    async def wait(self) -> bool:
        """True when the command ended with status 0. A unit that failed is not left behind."""
        result = await self._systemd.wait_job(self._job)
        if result != "done":
            await self._systemd.forget(self._unit)
        return result == "done"

    async def stop(self) -> None:
        with contextlib.suppress(BusError):
            await self._systemd.wait_job(await self._systemd.stop_unit(self._unit))
        await self._systemd.forget(self._unit)


async def stop_all(systemd: Systemd, pattern: str) -> None:
    """Stop helpers that outlived the daemon that had started them."""
    for info in await systemd.list_units(pattern):
        with contextlib.suppress(BusError):
            await systemd.wait_job(await systemd.stop_unit(info.name))


async def start(systemd: Systemd, helper: Helper, *, stdout: int = -1) -> RunningHelper:
    """Start helper; with stdout its output goes to that descriptor instead of lines()."""
    out_read, out_write = (-1, stdout) if stdout >= 0 else os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    fds = [out_write, err_write]
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
        fds.append(helper.stdin)
        properties["StandardInputFileDescriptor"] = Variant("h", 2)
    try:
        job = await systemd.start_transient(helper.unit, properties, fds)
    except BaseException:
        for fd in (out_read, err_read):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        os.close(err_write)
        if stdout < 0:
            os.close(out_write)
    return RunningHelper(systemd, helper, job, out_read, err_read)


async def _lines(fd: int) -> AsyncIterator[str]:
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
                continue  # longer than any line worth showing
            if not line:
                return
            yield line.decode(errors="replace").rstrip("\r\n")
    finally:
        transport.close()
