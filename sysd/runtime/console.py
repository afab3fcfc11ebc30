# SPDX-License-Identifier: Apache-2.0
"""A guest's console: its lines go to the journal, its stream to those who attach."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import socket
import struct
import termios
import time

from sysd.units.journal import UnitJournal

CHUNK = 4096
MAX_LINE = 2048
MAX_LINES = 1000
PERIOD = 10.0
MAX_LAST_WORDS = 1 << 18

_ESCAPES = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


def clean_line(line: bytes) -> str:
    """A line as text without terminal control, safe to show anywhere."""
    return _CONTROLS.sub(b"", _ESCAPES.sub(b"", line)).decode(errors="replace")


class Console:
    """The controlling side of the guest's /dev/console. Always read, so that the guest never blocks on it."""

    def __init__(self, fd: int, journal: UnitJournal) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._journal = journal
        self._partial = b""
        self._window = (0.0, 0)
        self._attached: list[_Attached] = []
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Read what is left first: the last words are often the ones that matter."""
        with contextlib.suppress(OSError):
            for _ in range(MAX_LAST_WORDS // CHUNK):
                if not (data := os.read(self._fd, CHUNK)):
                    break
                self._split(data)
        for attached in list(self._attached):
            attached.close()
        os.close(self.leave())
        self._journal.close()

    def leave(self) -> int:
        """Stop reading, for another who goes on with the descriptor."""
        self._log(self._partial)
        self._partial = b""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        return self._fd

    def attach(self) -> int:
        """A new stream to the console: a descriptor for the other side; whoever holds it closes it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._attached.append(_Attached(self, ours))
        return theirs.detach()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a guest that does not read loses what is typed
            os.write(self._fd, data)

    def detach(self, attached: _Attached) -> None:
        self._attached.remove(attached)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # EIO: nobody in the guest has the terminal open just now. It may be opened again.
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(0.2, self._loop.add_reader, self._fd, self._read)
            return
        for attached in list(self._attached):
            attached.send(data)
        self._split(data)

    def _split(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._log(line)

    def _log(self, line: bytes) -> None:
        text = clean_line(line.rstrip(b"\r")[:MAX_LINE])
        if text.strip() and self._allowed():
            self._journal.send(text)

    def _allowed(self) -> bool:
        """At most MAX_LINES in PERIOD seconds reach the journal."""
        since, count = self._window
        now = time.monotonic()
        self._window = (now, 1) if now - since > PERIOD else (since, count + 1)
        if self._window[1] == MAX_LINES:
            self._journal.send("(too many lines on the console, some are left out)")
        return self._window[1] < MAX_LINES


class _Attached:
    """One who looks at a console and types on it."""

    def __init__(self, console: Console, stream: socket.socket) -> None:
        self._console = console
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(stream, self._typed)

    def send(self, data: bytes) -> None:
        try:
            self._stream.send(data)
        except BlockingIOError:
            pass  # a slow reader misses output rather than hold the guest up
        except OSError:
            self.close()

    def close(self) -> None:
        self._loop.remove_reader(self._stream)
        self._stream.close()
        self._console.detach(self)

    def _typed(self) -> None:
        try:
            data = self._stream.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._console.write(data)
        else:
            self.close()
