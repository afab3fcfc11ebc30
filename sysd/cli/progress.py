# SPDX-License-Identifier: Apache-2.0
"""The one line on a terminal that shows how far an operation is."""

from __future__ import annotations

import time

from sysd.cli import client as varlink
from sysd.cli.errors import SIGNAL_BASE, CliError
from sysd.cli.output import STDERR, clean, write_all
from sysd.cli.signals import Wakeup
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from sysd.cli.client import Client, Parameters
else:
    import _signal as signal

BAR = 20
INTERVAL = 0.1


class Progress:
    """Rewrites one line of standard error; ``clear`` takes it away again."""

    def __init__(self) -> None:
        self._shown = ""
        self._next = 0.0

    def update(self, operation: Parameters) -> None:
        line = progress_line(operation)[: _columns() - 1]
        now = time.monotonic()
        if line != self._shown and now >= self._next:
            self._next = now + INTERVAL
            self._shown = line
            write_all(STDERR, f"\r{line}\x1b[K".encode())

    def clear(self) -> None:
        if self._shown:
            write_all(STDERR, b"\r\x1b[K")
            self._shown = ""


def progress_line(operation: Parameters) -> str:
    """``debian/trixie: unpacking [#####---------------]  25% 50.00MiB of 200.00MiB``"""
    head = clean(f"{operation.get('target', '')}: {operation.get('stage', '') or operation.get('kind', '')}")
    done, total = operation.get("done"), operation.get("total")
    if not isinstance(done, int) or not isinstance(total, int) or done <= 0:
        return head
    from sysd.model.sizes import format_size

    if total <= 0:
        return f"{head} {format_size(done)}"
    done = min(done, total)
    filled = BAR * done // total
    bar = "#" * filled + "-" * (BAR - filled)
    return f"{head} [{bar}] {100 * done // total:3}% {format_size(done)} of {format_size(total)}"


class Interrupt:
    """Ctrl-C: the first one cancels the operation, once its name is known; any other ends this command."""

    def __init__(self) -> None:
        self.operation = ""
        self.cancelled = False

    def __call__(self, _number: int, _frame: object) -> None:
        if self.cancelled or not self.operation:
            raise KeyboardInterrupt
        self.cancelled = True
        _cancel(self.operation)


def follow(client: Client) -> Parameters:
    """Show an operation's replies until the last one, which is returned; Ctrl-C cancels the operation."""
    progress = Progress()
    interrupt = Interrupt()
    client.wait = Wakeup().wait_for
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        while True:
            reply, more = client.receive()
            if not more:
                progress.clear()
                return varlink.ended(reply)
            operation = reply.get("operation") or {}
            interrupt.operation = str(operation.get("id") or "")
            progress.update(operation)
    except CliError as error:
        if interrupt.cancelled and error.name == "Cancelled":
            error.code = SIGNAL_BASE + signal.SIGINT
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
        progress.clear()


def _cancel(identity: str) -> None:
    try:
        varlink.call("CancelOperation", {"id": identity})
    except CliError as error:
        if error.name != "NotFound":
            raise


def _columns() -> int:
    try:
        return max(20, posix.get_terminal_size(STDERR).columns)
    except OSError:
        return 80
