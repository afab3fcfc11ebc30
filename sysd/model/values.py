# SPDX-License-Identifier: Apache-2.0
"""Grammars of values, as LXD has them. Each gives the value's meaning or raises InvalidError."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from sysd.model.errors import InvalidError
from sysd.model.sizes import parse_size

MAX_DESCRIPTION = 1024


def boolean(text: str) -> bool:
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise InvalidError(f"not a boolean: {text!r}", "true or false")


def integer(low: int, high: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise InvalidError(f"out of range: {text!r}", f"a whole number from {low} to {high}")
        return int(text)

    return check


def one_of(*choices: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise InvalidError(f"not acceptable: {text!r}", f"one of {', '.join(choices)}")
        return text

    return check


def size(least: int = 0) -> Callable[[str], int]:
    """A size in bytes, with LXD's units."""

    def check(text: str) -> int:
        value = parse_size(text)
        if value < least:
            raise InvalidError(f"too small: {text!r}", f"at least {least} bytes")
        return value

    return check


def anything(text: str) -> str:
    return text


def check_description(text: str) -> str:
    """Words about an object, for people: one line."""
    if len(text) > MAX_DESCRIPTION:
        raise InvalidError("description: too long", f"at most {MAX_DESCRIPTION} characters")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise InvalidError("description: has a line break or another control character")
    return text
