# SPDX-License-Identifier: Apache-2.0
"""Disks: the root file system, and what is mounted below it."""

from __future__ import annotations

from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.values import one_of


def _path(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        raise InvalidError(f"not a path in the guest: {text!r}", "an absolute path without '..'")
    return text


OPTIONS = (
    Key("path", _path, "", "Where in the guest it is mounted; / is the root file system."),
    Key("pool", one_of("default"), "default", "Storage pool of the root file system."),
)
