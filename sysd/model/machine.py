# SPDX-License-Identifier: Apache-2.0
"""What a virtual machine has by its configuration: memory and processors."""

from __future__ import annotations

from collections.abc import Mapping

from sysd.model.errors import InvalidError
from sysd.model.keys.limits import memory, processors

DEFAULT_MEMORY = 1 << 30
DEFAULT_DISK = 10 << 30
"""As LXD has them."""
LEAST_MEMORY = 64 << 20
MEMORY_STEP = 2 << 20
"""What memory comes and goes by (virtio-mem's blocks)."""


def memory_of(config: Mapping[str, str], host: int) -> int:
    """Bytes that a guest has; host: those of the host. Raises InvalidError."""
    if "limits.memory" not in config:
        return DEFAULT_MEMORY
    wanted = memory(config["limits.memory"])
    size = host * wanted.percent // 100 if wanted.percent else wanted.amount
    size -= size % MEMORY_STEP
    if size < LEAST_MEMORY:
        least = f"at least {LEAST_MEMORY >> 20}MiB"
        raise InvalidError("limits.memory: no virtual machine starts with so little", least)
    return size


def processors_of(config: Mapping[str, str]) -> tuple[int, list[list[int]]]:
    """How many processors a guest has, and by which of the host's each of them is run; nothing where that is left to
    the host."""
    wanted = processors(config.get("limits.cpu") or "1")
    if isinstance(wanted, int):
        return wanted, []
    return len(wanted), [[cpu] for cpu in sorted(wanted)]
