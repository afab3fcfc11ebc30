# SPDX-License-Identifier: Apache-2.0
"""Sizes in LXD's grammar: a whole number and an optional unit (``512MiB``, ``2GB``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    return _parse(text, _UNITS, "a size", "a whole number with a unit such as MiB, GiB, MB or GB", "8EiB")


def parse_bits(text: str) -> int:
    """Bits in text; raises InvalidError when it is not a number of bits or does not fit 63 bits."""
    return _parse(text, _BITS, "a number of bits", "a whole number with a unit such as kbit, Mbit or Gbit", "8Eibit")


def _parse(text: str, units: Mapping[str, int], what: str, hint: str, too_much: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in units:
        raise InvalidError(f"not {what}: {text!r}", hint)
    value = int(match[1]) * units[match[2]]
    if value >= 1 << 63:
        raise InvalidError(f"{what.split()[-1]} out of range: {text!r}", f"less than {too_much}")
    return value


def format_size(size: int) -> str:
    """Bytes for people, in binary units with two decimals as `lxc` prints them."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{size}B" if unit == "B" else f"{value:.2f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
