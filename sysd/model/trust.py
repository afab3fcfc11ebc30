# SPDX-License-Identifier: Apache-2.0
"""Who else may manage this host: other hosts and their users, known by certificate."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from sysd.model.errors import InvalidError

MOST_NAME = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}", re.ASCII)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.@+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trusted:
    """certificate: PEM. added: microseconds since the epoch."""

    fingerprint: str
    name: str
    certificate: str
    added: int = field(default_factory=lambda: time.time_ns() // 1000)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token that is out: its certificate may bring another one, until it expires (seconds since the epoch). name:
    what that is called then, "" for as its owner says."""

    fingerprint: str
    name: str
    certificate: str
    expires: int

    @property
    def expired(self) -> bool:
        return time.time() >= self.expires


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        hint = f"1 to {MOST_NAME} letters, digits, '_', '.', '@', '+' and '-', not with one of these first"
        raise InvalidError(f"invalid name {name[:80]!r}", hint)
    return name


def as_name(said: str) -> str:
    """A name like what a stranger calls itself."""
    name = _NOT_IN_NAME.sub("-", said[: 4 * MOST_NAME]).lstrip("_.@+-")[:MOST_NAME]
    return name or "unnamed"
