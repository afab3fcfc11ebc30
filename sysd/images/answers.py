# SPDX-License-Identifier: Apache-2.0
"""What the daemon believes of an image's worker: each fact about the image, checked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from sysd.images import metadata, templates
from sysd.model import names
from sysd.model.errors import FailedError, SyscontError
from sysd.model.image import Image, Init
from sysd.model.instance import Kind
from sysd.storage import qcow2
from sysd.units import answers
from sysd.units.answers import MAX_NUMBER, MAX_STAGE, Progress, number, printable, text

MAX_VOLUMES = 1000
"""Root file systems in a backup."""
INDEX_FILE = "index.json"
MAX_INDEX = 8 << 20
MAX_COMMAND = 1024
_COMMON = ("fingerprint", "architecture", "init", "size", "properties", "created", "templates")
_FIELDS = frozenset((*_COMMON, "kind", "disk_size", "kernel_command"))


def parse(line: str) -> Progress | Image | SyscontError:
    """What a line says: how far it is, the finished image, or why there will be none. Raises FailedError for others."""
    return answers.parse(line, _image, "the image's")


def read_index(folder: Path) -> Any:
    """What a backup's worker has found in index.yaml; raises FailedError."""
    try:
        fd = os.open(folder / INDEX_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError("it is not a file")
            return json.loads(stream.read(MAX_INDEX))
    except (OSError, ValueError, RecursionError) as error:
        raise FailedError(f"the backup's worker left a wrong index: {answers.clean(str(error))}") from None


def _image(facts: Any) -> Image:
    if not isinstance(facts, dict) or facts.keys() != _FIELDS:
        raise ValueError("its fields are not those of an image")
    fingerprint = text(facts["fingerprint"], MAX_STAGE)
    if not names.is_fingerprint(fingerprint):
        raise ValueError("the fingerprint is not one")
    architecture = text(facts["architecture"], MAX_STAGE)
    if metadata.runnable(architecture) != architecture:
        raise ValueError("the architecture is not one")
    properties = _properties(facts["properties"])
    kind, disk_size, command = _disk(facts)
    return Image(
        fingerprint=fingerprint,
        architecture=architecture,
        init=Init(text(facts["init"], MAX_STAGE)),
        size=number(facts["size"], MAX_NUMBER),
        description=properties.get("description", ""),
        properties=properties,
        created=number(facts["created"], metadata.MAX_DATE * 1_000_000),
        templates=templates.load(facts["templates"]),
        kind=kind,
        disk_size=disk_size,
        kernel_command=command,
    )


def _disk(facts: dict[str, Any]) -> tuple[Kind, int, str]:
    """What only a virtual machine's image has."""
    kind = Kind(text(facts["kind"], MAX_STAGE))
    size = number(facts["disk_size"], qcow2.MAX_SIZE)
    command = text(facts["kernel_command"], MAX_COMMAND)
    if not command.isascii() or not printable(command):
        raise ValueError("the kernel's command line has strange characters in it")
    if kind is Kind.VM:
        qcow2.check_size(size)
    elif size or command:
        raise ValueError("a container has no disk")
    return kind, size, command


def _properties(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        raise TypeError("the properties are not an object")
    return metadata.check_properties({key: text(value, metadata.MAX_VALUE) for key, value in found.items()})
