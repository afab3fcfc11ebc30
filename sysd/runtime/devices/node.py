# SPDX-License-Identifier: Apache-2.0
"""Device nodes that are named: unix-char and unix-block. Also what systemd's device policy is told of nodes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.unix import mode, node_path
from sysd.model.errors import FailedError
from sysd.runtime.spec import Share

NODES = {"unix-char": ("char", stat.S_ISCHR), "unix-block": ("block", stat.S_ISBLK)}


def shares(name: str, options: Mapping[str, str]) -> list[Share]:
    kind, is_kind = NODES[options["type"]]
    source = options.get("source") or options["path"]
    if "major" in options:
        number = (int(options["major"]), int(options["minor"]))
    else:
        try:
            status = os.stat(source)
        except OSError:
            if not SCHEMAS[options["type"]].boolean(options, "required"):
                return []
            raise FailedError(f"device {name}: {source} is not there") from None
        if not is_kind(status.st_mode):
            raise FailedError(f"device {name}: {source} is no {kind} device")
        number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return [make(name, node_path(options.get("path") or source), kind, number, options)]


def make(name: str, path: str, kind: str, number: tuple[int, int], options: Mapping[str, str]) -> Share:
    """A node with the owner and the mode that options give it."""
    schema = SCHEMAS[options["type"]]
    owner = (schema.integer(options, "uid"), schema.integer(options, "gid"))
    return Share(name, path, node=kind, number=number, mode=mode(schema.text(options, "mode")), owner=owner)


def allowed(shares: Iterable[Share]) -> list[list[str]]:
    """Entries of DeviceAllow= for the nodes among shares."""
    found = dict.fromkeys(
        f"/dev/{share.node}/{share.number[0]}:{share.number[1]}" for share in shares if share.node
    )
    return [[path, "rwm"] for path in found]
