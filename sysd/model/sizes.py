# SPDX-License-Identifier: Apache-2.0
"""Sizes in LXD's grammar: a whole number and an optional unit (``512MiB``, ``2GB``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sysd.model.errors import InvalidError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{p}B": 1000**i for i, p in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_UNITS |= {f"{p}iB": 1024**i for i, p in enumerate(("K", "M", "G", "T", "P", "E"), 1)}
_BITS = {"": 1, "bit": 1}
_BITS |= {f"{p}bit": 1000**i for i, p in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_BITS |= {f"{p}ibit": 1024**i for i, p in enumerate(("K", "M", "G", "T", "P", "E"), 1)}
_SIZE = re.compile(r"([0-9]{1,18})([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is in use of something, and the most that may be; numbers, or bytes."""

    used: int
    most: int


def parse_size(text: str) -> int:
    """Bytes in text; raises InvalidError when it is not a size or does not fit 63 bits."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _UNITS:
        raise InvalidError(f"not a size: {text!r}", "a whole number with a unit such as MiB, GiB, MB or GB")
    value = int(match[1]) * _UNITS[match[2]]
    if value >= 1 << 63:
        raise InvalidError(f"size out of range: {text!r}", "less than 8EiB")
    return value


def parse_bits(text: str) -> int:
    """Bits in text; raises InvalidError when it is not a number of bits or does not fit 63 bits."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _BITS:
        raise InvalidError(f"not a number of bits: {text!r}", "a whole number with a unit such as kbit, Mbit or Gbit")
    value = int(match[1]) * _BITS[match[2]]
    if value >= 1 << 63:
        raise InvalidError(f"out of range: {text!r}", "less than 8Eibit")
    return value


def format_size(size: int) -> str:
    """Bytes for people, in binary units with two decimals as `lxc` prints them."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{size}B" if unit == "B" else f"{value:.2f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
