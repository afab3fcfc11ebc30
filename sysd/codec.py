# SPDX-License-Identifier: Apache-2.0
"""JSON by the interpreter's own accelerator, without the json package, which costs 5 ms to import (it imports re)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    SCANNER: Callable[[str, int], tuple[Any, int]] | None

    def quote(text: str, /) -> str: ...
    def quote_ascii(text: str, /) -> str: ...

else:
    try:
        from _json import encode_basestring as quote
        from _json import encode_basestring_ascii as quote_ascii
        from _json import make_scanner
    except ImportError:
        from json.encoder import py_encode_basestring as quote
        from json.encoder import py_encode_basestring_ascii as quote_ascii

        SCANNER = None
    else:

        class _Context:
            """What json.JSONDecoder would hand to the scanner."""

            strict = True
            object_hook = None
            object_pairs_hook = None
            array_hook = None  # since 3.15
            parse_float = float
            parse_int = int
            parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__

        SCANNER = make_scanner(_Context)

SPACE = " \t\n\r"


def decode(text: str) -> Any:
    """The value that text holds; raises ValueError when it is not one JSON value."""
    if SCANNER is None:
        import json

        return json.loads(text)
    start = len(text) - len(text.lstrip(SPACE))
    try:
        value, end = SCANNER(text, start)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text) and text[end:].strip(SPACE):
        raise ValueError("more than one JSON value")
    return value


def encode(value: object, string: Callable[[str], str] = quote, indent: str | None = None) -> str:
    """JSON text of dicts with string keys, lists, tuples, strings, numbers, booleans and None.

    string writes a string; with indent None all is on one line, else a level deeper is written one indent
    (two spaces) further in.
    """
    if isinstance(value, str):
        return string(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float(value)
    deeper = None if indent is None else indent + "  "
    if isinstance(value, dict):
        colon = ":" if indent is None else ": "
        items = [string(key) + colon + encode(item, string, deeper) for key, item in value.items()]
        return _enclose("{", items, "}", indent, deeper)
    if isinstance(value, list | tuple):
        return _enclose("[", [encode(item, string, deeper) for item in value], "]", indent, deeper)
    raise TypeError(f"not representable as JSON: {type(value).__name__}")


def pretty(value: object) -> str:
    """For people and programs alike: indented, and in ASCII, so that nothing in it can steer a terminal."""
    return encode(value, quote_ascii, "")


def _enclose(start: str, items: list[str], end: str, indent: str | None, deeper: str | None) -> str:
    if indent is None or not items:
        return start + ",".join(items) + end
    return f"{start}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{end}"


def _float(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not representable as JSON: a float that is not finite")
    return float.__repr__(value)
