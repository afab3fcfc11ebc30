# SPDX-License-Identifier: Apache-2.0
"""Which processor a guest sees: the host's, or one of a level that processors of many hosts have, so that it can go
from one of these to another. Levels are those of the x86-64 psABI (3.1.1, "Micro-Architecture Levels"), with AES and
carry-less multiplication, which are of no level, and which all but the very first such processors have.
"""

from __future__ import annotations

import platform

from sysd.model.errors import UnsupportedError
from sysd.model.keys.machine import HOST, LEVELS

_SECOND = ("cx16", "lahf-lm", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2", "aes", "pclmulqdq")
_THIRD = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_FOURTH = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_FEATURES = dict(zip(LEVELS, (_SECOND, _SECOND + _THIRD, _SECOND + _THIRD + _FOURTH), strict=True))
"""As QEMU calls them (qemu-system-x86_64 -cpu help)."""


MOST_MEMORY = 960 << 30
"""Bytes: a level's processor has addresses of 40 bits, of which devices take some."""


def most_memory(model: str, host: int) -> int:
    """That a machine can be given while it runs, of the host's."""
    return host if model == HOST else min(host, MOST_MEMORY)


def option(model: str, *, accelerated: bool) -> str:
    """QEMU's -cpu. It refuses to start where the host can't do all of it. Raises UnsupportedError."""
    if model == HOST:
        return "host" if accelerated else "max"
    if platform.machine() != "x86_64":
        raise UnsupportedError(f"limits.cpu.model: {model} is a processor of x86_64", f"this host has {HOST} alone")
    return ",".join(["qemu64", "enforce=on", *(f"{name}=on" for name in _FEATURES[model])])
