# SPDX-License-Identifier: Apache-2.0
"""What the daemon believes of a worker: each line of its output, checked field by field.

The worker reads hostile archives, so it may have been taken over by one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sysd.images import metadata
from sysd.model import names
from sysd.model.errors import ERRORS, FailedError, SyscontError
from sysd.model.image import Image, Init

MAX_TEXT = 2000
MAX_STAGE = 64
MAX_NUMBER = 1 << 62
_FIELDS = frozenset(("fingerprint", "architecture", "init", "size", "properties", "created"))


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str
    done: int
    total: int


def parse(line: str) -> Progress | Image | SyscontError:
    """What a line says: how far it is, the finished image, or why there will be none. Raises FailedError for others."""
    try:
        return _parse(json.loads(line))
    except (KeyError, TypeError, ValueError, RecursionError, SyscontError) as error:
        raise FailedError(f"the image's worker gave a wrong answer: {clean(str(error))}") from None


def clean(text: str) -> str:
    """Fit for a message: one line, nothing a terminal would act on, not too long."""
    return "".join(char if metadata.printable(char) else "?" for char in text[:MAX_TEXT])


def _parse(message: Any) -> Progress | Image | SyscontError:
    if not isinstance(message, dict):
        raise TypeError("it is not an object")
    if "error" in message:
        error = message["error"]
        kind = ERRORS[_text(error["code"], MAX_STAGE)]
        return kind(clean(_text(error["message"], MAX_NUMBER)), clean(_text(error["hint"], MAX_NUMBER)))
    if "result" in message:
        return _image(message["result"])
    stage = _text(message["stage"], MAX_STAGE)
    return Progress(clean(stage), _number(message["done"], MAX_NUMBER), _number(message["total"], MAX_NUMBER))


def _image(facts: Any) -> Image:
    if not isinstance(facts, dict) or facts.keys() != _FIELDS:
        raise ValueError("its fields are not those of an image")
    fingerprint = _text(facts["fingerprint"], MAX_STAGE)
    if not names.is_fingerprint(fingerprint):
        raise ValueError("the fingerprint is not one")
    architecture = _text(facts["architecture"], MAX_STAGE)
    if metadata.runnable(architecture) != architecture:
        raise ValueError("the architecture is not one")
    properties = _properties(facts["properties"])
    return Image(
        fingerprint=fingerprint,
        architecture=architecture,
        init=Init(_text(facts["init"], MAX_STAGE)),
        size=_number(facts["size"], MAX_NUMBER),
        description=properties.get("description", ""),
        properties=properties,
        created=_number(facts["created"], metadata.MAX_DATE * 1_000_000),
    )


def _properties(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        raise TypeError("the properties are not an object")
    return metadata.check_properties({key: _text(value, metadata.MAX_VALUE) for key, value in found.items()})


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError("a text is none, or is too long")
    return value


def _number(value: Any, limit: int) -> int:
    # True and False are ints, too.
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError("a number is none, or is out of range")
    return value
