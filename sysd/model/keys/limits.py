# SPDX-License-Identifier: Apache-2.0
"""What an instance may use of the host."""

from __future__ import annotations

from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.sizes import parse_size
from sysd.model.values import integer


def _memory(text: str) -> int:
    value = parse_size(text)
    if value < 1 << 20:
        raise InvalidError(f"too small: {text!r}", "at least 1MiB")
    return value


KEYS = (
    Key("limits.memory", _memory, "", "Most memory the instance may use (MemoryMax= of its unit).", live=True),
    Key(
        "limits.processes",
        integer(1, 4194304),
        "",
        "Most tasks the instance may have (TasksMax= of its unit).",
        live=True,
    ),
)
