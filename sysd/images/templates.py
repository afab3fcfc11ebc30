# SPDX-License-Identifier: Apache-2.0
"""Templates of an image: the files below templates/, and what metadata.yaml says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sysd.model.errors import InvalidError
from sysd.model.templates import TRIGGERS, Template

MAX_TEMPLATES = 64
MAX_PATH = 1024
# As JSON. The worker's answer has them on its one line (see helper.MAX_LINE), beside the image's properties.
MAX_TOTAL = 24 << 10


@dataclass(frozen=True, slots=True)
class Entry:
    """What metadata.yaml says of one: file is the name of its text below templates/."""

    path: str
    file: str
    when: list[str]
    properties: dict[str, str] = field(default_factory=dict)
    create_only: bool = False


def resolve(entries: list[Entry], texts: Mapping[str, bytes]) -> list[Template]:
    """Put entries and texts together; one without its text is an error, a text without an entry is of no use."""
    found = []
    for entry in entries:
        if entry.file not in texts:
            raise _wrong(entry.path, f"has no file templates/{entry.file[:80]}")
        try:
            text = texts[entry.file].decode()
        except UnicodeDecodeError:
            raise _wrong(entry.path, f"has a text that is not UTF-8, templates/{entry.file[:80]}") from None
        found.append(Template(entry.path, text, entry.when, entry.properties, entry.create_only))
    return check(found)


def check(templates: list[Template]) -> list[Template]:
    """Raise InvalidError for what could not be made in a guest, or not be remembered."""
    for template in templates:
        _check_path(template.path)
        if not template.when or not set(template.when) <= set(TRIGGERS):
            raise _wrong(template.path, f"is made neither at {', '.join(TRIGGERS[:-1])} nor {TRIGGERS[-1]}")
    if len(templates) > MAX_TEMPLATES:
        raise InvalidError(f"metadata.yaml: more than {MAX_TEMPLATES} templates")
    if len(dump(templates)) > MAX_TOTAL:
        raise InvalidError(f"the image's templates have more than {MAX_TOTAL >> 10} KiB in all")
    return templates


def dump(templates: list[Template]) -> str:
    return json.dumps([asdict(template) for template in templates])


def load(found: Any) -> list[Template]:
    """From JSON of dump's; raises ValueError, TypeError or InvalidError for any other."""
    templates = [Template(**each) for each in found]
    for each in templates:
        texts = [each.path, each.text, *each.when, *each.properties, *each.properties.values()]
        if not isinstance(each.create_only, bool) or not all(isinstance(text, str) for text in texts):
            raise TypeError("a template has a field of a wrong kind")
    return check(templates)


def _check_path(path: str) -> None:
    parts = path.split("/")
    bad = len(parts) < 2 or parts[0] or any(part in ("", ".", "..") for part in parts[1:])
    if bad or len(path) > MAX_PATH or not path.isprintable():
        raise _wrong(path, "is not the path of a file in a guest")


def _wrong(path: str, why: str) -> InvalidError:
    return InvalidError(f"metadata.yaml: template {path[:80]!r} {why}")
