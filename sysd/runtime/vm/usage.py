# SPDX-License-Identifier: Apache-2.0
"""What a virtual machine takes, and how it runs: QEMU is asked, and by it the guest (qemu-qmp-ref(7)).

A QEMU that its guest has taken over may say anything, or nothing: each answer is one of a number, and has a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sysd.model.errors import FailedError
from sysd.model.usage import Disk, MachineUsage, Memory, Number
from sysd.runtime import core_scheduling
from sysd.runtime.vm.hardware import Part
from sysd.runtime.vm.machine import MachineGuest

LIMIT = 2.0
"""Seconds that all of it takes at most."""
_MOST = 1 << 62
_BALLOON = "/machine/peripheral/balloon0"
_INTERVAL = "guest-stats-polling-interval"
_GUEST_LIMIT, _LOOK_AGAIN = 0.5, 0.02
"""Seconds that the guest has to say what it uses, and between looks for that."""


async def disks(machine: MachineGuest, parts: Mapping[str, Part]) -> dict[str, Disk]:
    """By device. What QEMU does not tell in time is left out."""
    nodes, counters = await asyncio.gather(
        _ask(machine, "query-named-block-nodes", flat=True), _ask(machine, "query-blockstats")
    )
    images = {str(one.get("node-name")): one.get("image") for one in _objects(nodes)}
    stats = {_device(one): one.get("stats") for one in _objects(counters)}
    found = {}
    for name, part in parts.items():
        if drive := part.device.get("drive"):
            image, counted = _object(images.get(drive)), _object(stats.get(part.device["id"]))
            found[name] = Disk(
                _number(image, "actual-size"),
                _number(image, "virtual-size"),
                _number(counted, "rd_bytes"),
                _number(counted, "wr_bytes"),
            )
    return found


def _device(one: Mapping[str, Any]) -> str:
    """Its id, of a path such as /machine/peripheral/dev-root/virtio-backend."""
    _, _, after = str(one.get("qdev", "")).partition("/peripheral/")
    return after.partition("/")[0]


async def memory(machine: MachineGuest, taken: Number, peak: Number, swap: Number) -> Memory:
    """taken, peak and swap: of its unit, where those are counted."""
    balloon, summary, used = await asyncio.gather(
        _ask(machine, "query-balloon"), _ask(machine, "query-memory-size-summary"), _used(machine)
    )
    given, plugged = _number(_object(balloon), "actual"), _number(_object(summary), "plugged-memory")
    resident = _resident(machine.leader)
    return Memory(
        current=used,
        peak=resident.get("VmHWM") if peak is None else peak,
        limit=given if given is None else given + (plugged or 0),
        swap=swap,
        host=resident.get("VmRSS") if taken is None else taken,
    )


async def _used(machine: MachineGuest) -> Number:
    """By the guest's own word. It says nothing of itself as long as nobody asks."""
    if machine.frozen:
        return None
    asked = int(time.time())
    try:
        async with asyncio.timeout(_GUEST_LIMIT):
            await _poll(machine, 1)
            while found := _object(await _ask(machine, "qom-get", path=_BALLOON, property="guest-stats")):
                if (_number(found, "last-update") or 0) >= asked:
                    return _in_use(_object(found.get("stats")))
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GUEST_LIMIT):
                await _poll(machine, 0)
    return None


async def _poll(machine: MachineGuest, seconds: int) -> None:
    await _ask(machine, "qom-set", path=_BALLOON, property=_INTERVAL, value=seconds)


def _in_use(stats: Mapping[str, Any]) -> Number:
    total = _number(stats, "stat-total-memory")
    free = _number(stats, "stat-available-memory")
    if free is None:
        free = _number(stats, "stat-free-memory")
    return None if total is None or free is None else max(0, total - free)


def _resident(leader: int) -> dict[str, int]:
    """What QEMU has of the host's memory (proc_pid_status(5))."""
    try:
        lines = Path(f"/proc/{leader}/status").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.startswith(("VmRSS:", "VmHWM:"))]
    return {name.rstrip(":"): int(kilobytes) << 10 for name, kilobytes, _ in words}


async def running(machine: MachineGuest) -> MachineUsage:
    kvm, cpus = await asyncio.gather(_ask(machine, "query-kvm"), _ask(machine, "query-cpus-fast"))
    spec = machine.spec
    enabled = _object(kvm).get("enabled")
    accelerated = enabled if isinstance(enabled, bool) else not spec.get("emulated")
    return MachineUsage(
        accelerator="kvm" if accelerated else "tcg",
        why="" if accelerated else str(spec.get("emulated", "")),
        boot=str(spec.get("boot", "")),
        secure_boot=bool(spec.get("secure_boot")),
        cid=int(spec.get("cid", 0)),
        agent=machine.has_agent,
        processors=len(cpus) if isinstance(cpus, list) and cpus else None,
        cookies=Counter(map(core_scheduling.of_thread, core_scheduling.processors(machine.leader))),
    )


async def _ask(machine: MachineGuest, command: str, **arguments: Any) -> Any:
    """None when there is no answer in time, or a refusal."""
    try:
        async with asyncio.timeout(LIMIT):
            return await machine.execute(command, arguments, timeout=LIMIT)
    except (FailedError, TimeoutError):
        return None


def _objects(answer: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in answer if isinstance(one, dict)) if isinstance(answer, Sequence) else iter(())


def _object(answer: Any) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _number(answer: Mapping[str, Any], name: str) -> Number:
    found = answer.get(name)
    return found if type(found) is int and 0 <= found <= _MOST else None
