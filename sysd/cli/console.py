# SPDX-License-Identifier: Apache-2.0
"""console: what the instance's own console shows, and keys for it."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError
from sysd.cli.output import STDERR, write_all
from sysd.cli.system import IS_WINDOWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed

ESCAPE = b"\x01"
LEAVE = b"q"


class Keys:
    """Watches what is typed for Ctrl-a q; Ctrl-a twice is one Ctrl-a for the guest."""

    def __init__(self) -> None:
        self._escaped = False

    def __call__(self, data: bytes) -> bytes | None:
        kept = bytearray()
        for number in data:
            key = bytes((number,))
            if not self._escaped:
                self._escaped = key == ESCAPE
                kept += b"" if self._escaped else key
                continue
            self._escaped = False
            if key == LEAVE:
                return None
            kept += key if key == ESCAPE else ESCAPE + key
        return bytes(kept)


def run(parsed: Parsed) -> int:
    """``syscont console``"""
    if IS_WINDOWS:
        raise CliError("this system has no terminals of the kind that a console is for")
    from sysd.cli.terminal import RawTerminal, Relay, on_resize

    name = parsed.args[0]
    connection = client.connect()
    stream = connection.take_fd(connection.call("OpenConsole", {"name": name}), "streamFd")
    write_all(STDERR, b"Connected to the console. Leave with Ctrl-a q; Return shows a prompt.\n")
    with RawTerminal():
        on_resize(lambda size: _resize(name, size))
        Relay(stream, keys=Keys()).run()
    write_all(STDERR, b"\nDisconnected from the console.\n")
    return 0


def _resize(name: str, size: bytes) -> None:
    from sysd.cli.terminal import rows_and_columns

    rows, columns = rows_and_columns(size)
    try:
        client.call("ResizeConsole", {"name": name, "columns": columns, "rows": rows})
    except CliError:
        # Not every console has a size; the bytes go both ways all the same.
        return
