# SPDX-License-Identifier: Apache-2.0
"""A word with QEMU while it runs: its machine protocol (QMP), one command a connection."""

import json
import socket
from pathlib import Path
from typing import IO, Any

from .command import HostError

_PATIENCE = 60.0


def ask(place: Path, command: str, *, until: str = "", **arguments: Any) -> Any:
    """What QEMU, which listens at place, returns to a command. With until, not before QEMU tells of an event of that
    name for the device whose id is among the arguments."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(place))
        with connection.makefile("rw") as stream:
            json.loads(stream.readline())  # the greeting
            _execute(stream, "qmp_capabilities", {}, "")
            return _execute(stream, command, arguments, until)


def _execute(stream: IO[str], command: str, arguments: dict[str, Any], until: str) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    returned: list[Any] = []
    waits = bool(until)
    for line in stream:
        said = json.loads(line)
        if "error" in said:
            raise HostError(f"QEMU refused {command}: {said['error']['desc']}")
        if "return" in said:
            returned.append(said["return"])
        elif said.get("event") == until and said["data"].get("device") == arguments["id"]:
            waits = False
        if returned and not waits:
            return returned[0]
    raise HostError(f"QEMU went away while it was asked to {command}")
