# SPDX-License-Identifier: Apache-2.0
"""limits.* as properties of an instance's unit (systemd.resource-control(5), systemd.exec(5))."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterable, Mapping

from dbus_next import Variant

from sysd.model.config import SCHEMA
from sysd.model.errors import InvalidError
from sysd.model.keys.limits import RESOURCES, UNLIMITED, allowance, enforcement, memory, processors, rlimit, swap
from sysd.units.systemd import Properties

_MS = 1000
_SECOND = 1_000_000
_SCALE = (1 << 32) - 1
"""What systemd takes for all of the host's memory in properties that end with Scale."""

_KERNEL = "limits.kernel."
_DISK_WEIGHT_STEP = 20
"""So that limits.disk.priority=5, the default of LXD, is the default of systemd, 100."""


def live_properties(config: Mapping[str, str], cpus: Iterable[int]) -> Properties:
    """What may be set on a running unit too; cpus as choose_cpus gave them. Every property is there, so that one
    whose key was unset goes back to its default."""
    return {
        "TasksMax": Variant("t", SCHEMA.integer(config, "limits.processes")),
        **_memory(config),
        **_processor_time(config),
        "AllowedCPUs": Variant("ay", cpu_mask(cpus)),
        "IOWeight": Variant("t", _disk_weight(config)),
    }


def start_properties(config: Mapping[str, str]) -> Properties:
    """What processes of a unit are born with."""
    properties: Properties = {}
    for name, (soft, hard) in {"nofile": (1024, 524288), **rlimits(config)}.items():
        properties[f"Limit{name.upper()}Soft"] = Variant("t", soft)
        properties[f"Limit{name.upper()}"] = Variant("t", hard)
    return properties


def rlimits(config: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """limits.kernel.* by resource: soft and hard, UNLIMITED for none."""
    return {name: rlimit(config[_KERNEL + name]) for name in RESOURCES if _KERNEL + name in config}


def rlimit_numbers(config: Mapping[str, str]) -> dict[int, tuple[int, int]]:
    """The same by the kernel's numbers (setrlimit(2))."""
    return {_number(name): limit for name, limit in rlimits(config).items()}


def _number(name: str) -> int:
    # Python leaves this one out.
    return 10 if name == "locks" else int(getattr(resource, f"RLIMIT_{name.upper()}"))


def _memory(config: Mapping[str, str]) -> Properties:
    """A soft limit is memory.high: LXD 4.20 set memory.low in its place, which protects and does not limit."""
    limits = {"MemoryMax": Variant("t", UNLIMITED), "MemoryHigh": Variant("t", UNLIMITED)}
    if "limits.memory" in config:
        wanted = memory(config["limits.memory"])
        name = "MemoryMax" if enforcement(SCHEMA.text(config, "limits.memory.enforce")) else "MemoryHigh"
        if wanted.percent:
            del limits[name]
            limits[name + "Scale"] = Variant("u", _SCALE * wanted.percent // 100)
        else:
            limits[name] = Variant("t", wanted.amount)
    limits["MemorySwapMax"] = Variant("t", swap(SCHEMA.text(config, "limits.memory.swap")))
    return limits


def _processor_time(config: Mapping[str, str]) -> Properties:
    given = allowance(SCHEMA.text(config, "limits.cpu.allowance"))
    weight = max(1, given.percent - (10 - SCHEMA.integer(config, "limits.cpu.priority")))
    quota = given.quota * _SECOND // given.period if given.quota else UNLIMITED
    return {
        "CPUWeight": Variant("t", weight),
        "CPUQuotaPerSecUSec": Variant("t", quota),
        "CPUQuotaPeriodUSec": Variant("t", given.period * _MS if given.quota else UNLIMITED),
    }


def _disk_weight(config: Mapping[str, str]) -> int:
    return max(1, SCHEMA.integer(config, "limits.disk.priority") * _DISK_WEIGHT_STEP)


# processors


def choose_cpus(config: Mapping[str, str], had: frozenset[int], others: Iterable[frozenset[int]]) -> frozenset[int]:
    """The processors for an instance; none means all. Of a number of them, those that fewest others have, and rather
    those that it had. Raises InvalidError for one that the host does not have."""
    if "limits.cpu" not in config:
        return frozenset()
    available = os.sched_getaffinity(0)
    wanted = processors(config["limits.cpu"])
    if isinstance(wanted, frozenset):
        if missing := wanted - available:
            raise InvalidError(f"limits.cpu: this host has no processor {min(missing)}", f"it has {_text(available)}")
        return wanted
    used = Counter(cpu for one in others for cpu in one)
    by_use = sorted(available, key=lambda cpu: (used[cpu], cpu not in had, cpu))
    return frozenset(by_use[:wanted])


def cpu_mask(cpus: Iterable[int]) -> bytes:
    """As AllowedCPUs has it: bit 0 of byte 0 is processor 0."""
    mask = sum(1 << cpu for cpu in cpus)
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def cpus_of_mask(mask: bytes) -> frozenset[int]:
    number = int.from_bytes(mask, "little")
    return frozenset(cpu for cpu in range(number.bit_length()) if number >> cpu & 1)


def _text(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
