# SPDX-License-Identifier: Apache-2.0
"""Memory and processors of a machine that runs, made more or less."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from sysd import _cext
from sysd.model.errors import FailedError
from sysd.runtime.core_scheduling import processors
from sysd.runtime.vm.machine import MachineGuest

LET_GO = 30.0
MEMORY_DEVICE = "/machine/peripheral/mem0"


async def set_memory(machine: MachineGuest, size: int) -> None:
    """Beyond what the machine was started with, memory is plugged; below, the guest is asked to give some back. Both
    take the guest's help, and time. Raises FailedError."""
    at_start = int((await machine.execute("query-memory-size-summary"))["base-memory"])
    devices = [one["data"] for one in await machine.execute("query-memory-devices") if one["type"] == "virtio-mem"]
    most = at_start + sum(int(one["max-size"]) for one in devices)
    if size > most:
        raise FailedError(f"{machine.name} can't have more than {most >> 20}MiB while it runs", "restart it")
    if devices:
        more = max(0, size - at_start)
        await machine.execute("qom-set", {"path": MEMORY_DEVICE, "property": "requested-size", "value": more})
    await machine.execute("balloon", {"value": min(size, at_start)})


async def set_processors(machine: MachineGuest, count: int) -> None:
    """Raises FailedError."""
    there = await machine.execute("query-hotpluggable-cpus")
    running = [one for one in there if "qom-path" in one]
    free = sorted((one for one in there if "qom-path" not in one), key=_place)
    if count > len(there):
        raise FailedError(f"{machine.name} can't have more than {len(there)} processors while it runs", "restart it")
    for one in free[: max(0, count - len(running))]:
        await _add(machine, one)
    for one in sorted(running, key=_place, reverse=True)[: max(0, len(running) - count)]:
        await _remove(machine, one)


def _place(one: dict[str, Any]) -> tuple[int, ...]:
    props = one["props"]
    return tuple(int(props.get(name, 0)) for name in ("socket-id", "die-id", "core-id", "thread-id"))


def _name(one: dict[str, Any]) -> str:
    return "cpu-" + "-".join(map(str, _place(one)))


async def _add(machine: MachineGuest, one: dict[str, Any]) -> None:
    """It has the machine's cookie before the guest can run on it."""
    before = set(processors(machine.leader))
    frozen = machine.frozen
    if not frozen:
        await machine.execute("stop")
    try:
        await machine.execute("device_add", {"driver": one["type"], "id": _name(one), **one["props"]})
        for thread in set(processors(machine.leader)) - before:
            await asyncio.to_thread(share_cookie, min(before), thread)
    finally:
        if not frozen:
            await machine.execute("cont")


async def _remove(machine: MachineGuest, one: dict[str, Any]) -> None:
    name = os.path.basename(str(one["qom-path"]))
    if not name.startswith("cpu-"):
        raise FailedError("processors that the machine was started with can't be taken away", "restart it")
    gone = asyncio.ensure_future(machine.event("DEVICE_DELETED", lambda data: data.get("device") == name, LET_GO))
    try:
        await asyncio.sleep(0)
        await machine.execute("device_del", {"id": name})
        await gone
    finally:
        gone.cancel()


def share_cookie(source: int, target: int) -> None:
    """Give a thread the cookie of another. By a thread of our own that ends with it: it has the cookie meanwhile."""
    failed: list[OSError] = []

    def work() -> None:
        try:
            _cext.share_core_cookie(source, target)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise FailedError(f"core scheduling: {failed[0].strerror}")
