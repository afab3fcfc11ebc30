# SPDX-License-Identifier: Apache-2.0
"""Lines for the journal in the name of a unit's process, by systemd's native journal protocol."""

from __future__ import annotations

import contextlib
import socket
import struct

from systemd import journal

JOURNAL = "/run/systemd/journal/socket"
PRIORITY_INFO, PRIORITY_WARNING = 6, 4
SEND_BUFFER = 8 << 20
SO_SNDBUFFORCE = 32


LAST_LINES = 20


def last_words(unit: str, begin: str) -> str:
    """The newest line of a unit's that begins so, of its last ones; empty when there is none. Blocks."""
    with journal.Reader() as reader:
        reader.add_match(_SYSTEMD_UNIT=unit)
        reader.seek_tail()
        for _ in range(LAST_LINES):
            entry = reader.get_previous()
            message = entry.get("MESSAGE") if entry else ""
            if isinstance(message, str) and message.startswith(begin):
                return message
    return ""


class UnitJournal:
    """What is sent is the unit's own: journald takes unit and rate limit from the process that we name in the
    message's credentials, as root may (unix(7), SCM_CREDENTIALS)."""

    def __init__(self, unit: str, identifier: str, pid: int) -> None:
        self._unit = unit
        self._identifier = identifier
        self._credentials = struct.pack("iII", pid, 0, 0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # As sd-journal does: by default fewer than 100 lines fit, and a burst would have holes.
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)

    def close(self) -> None:
        self._socket.close()

    def send(self, line: str, priority: int = PRIORITY_INFO) -> None:
        """Send one line; it is lost rather than held when journald does not keep up."""
        # The last field is how journalctl -u finds lines that come from root, should the process be gone when journald
        # looks for its unit.
        data = (
            f"MESSAGE={line}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={self._identifier}\n"
            f"OBJECT_SYSTEMD_UNIT={self._unit}\n"
        ).encode()
        credentials = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, self._credentials)]
        try:
            self._socket.sendmsg([data], credentials, 0, JOURNAL)
        except ProcessLookupError:
            with contextlib.suppress(OSError):
                self._socket.sendto(data, JOURNAL)
        except OSError:
            pass
