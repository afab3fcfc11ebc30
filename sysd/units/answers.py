# SPDX-License-Identifier: Apache-2.0
"""What a worker says on its standard output, a line of JSON each: how far it is, then a result or why there is none.

Both ends of it. A worker reads what strangers wrote and may have been taken over by it, so the daemon checks each line
field by field before it believes any.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sysd.model.errors import ERRORS, FailedError, SyscontError

MAX_TEXT = 2000
MAX_STAGE = 64
MAX_NUMBER = 1 << 62
PROGRESS_INTERVAL = 0.1
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str
    done: int
    total: int


# the daemon's end


def parse(line: str, result: Callable[[Any], T], whose: str) -> Progress | T | SyscontError:
    """What a line says: how far it is, what result makes of the result, or the error that it ended with. Raises
    FailedError for a line that says none of these."""
    try:
        return _parse(json.loads(line), result)
    except (KeyError, TypeError, ValueError, RecursionError, SyscontError) as error:
        raise FailedError(f"{whose} worker gave a wrong answer: {clean(str(error))}") from None


def _parse(message: Any, result: Callable[[Any], T]) -> Progress | T | SyscontError:
    if not isinstance(message, dict):
        raise TypeError("it is not an object")
    if "error" in message:
        error = message["error"]
        kind = ERRORS[text(error["code"], MAX_STAGE)]
        return kind(clean(text(error["message"], MAX_NUMBER)), clean(text(error["hint"], MAX_NUMBER)))
    if "result" in message:
        return result(message["result"])
    stage = text(message["stage"], MAX_STAGE)
    return Progress(clean(stage), number(message["done"], MAX_NUMBER), number(message["total"], MAX_NUMBER))


def printable(value: str) -> bool:
    """Whether a text may be shown on a terminal's line as it is."""
    return not any(unicodedata.category(char) in _UNPRINTABLE for char in value)


def clean(value: str) -> str:
    """Fit for a message: one line, nothing a terminal would act on, not too long."""
    return "".join(char if printable(char) else "?" for char in value[:MAX_TEXT])


def text(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError("a text is none, or is too long")
    return value


def number(value: Any, limit: int) -> int:
    # True and False are ints, too.
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError("a number is none, or is out of range")
    return value


# the worker's end


def emit(message: dict[str, Any]) -> None:
    """One line in one write, so that lines of two threads can't mix."""
    try:
        line = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        data = memoryview(line.encode(errors="backslashreplace") + b"\n")
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]
    except BrokenPipeError:
        os._exit(1)  # nobody waits for it any more


def emit_error(error: SyscontError) -> None:
    emit({"error": {"code": error.code, "message": error.message[:MAX_TEXT], "hint": error.hint[:MAX_TEXT]}})


@dataclass(slots=True)
class Reporter:
    """Tells how far a stage has come, at most ten times a second."""

    stage: str
    _last: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_INTERVAL or done == total:
            self._last = now
            emit({"stage": self.stage, "done": done, "total": total})
