# SPDX-License-Identifier: Apache-2.0
"""Signals that are for a command in an instance, and waiting in which none gets lost."""

from __future__ import annotations

import posix
import select

from sysd.cli.client import Client
from sysd.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
TRIES = 20
TRY_PAUSE = 50
PIPE = 512


class Wakeup:
    """A descriptor that becomes readable with each signal.

    Without one, a signal that comes just before a blocking system call would be handled only after that.
    """

    def __init__(self) -> None:
        self.fd, writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def clear(self) -> None:
        try:
            posix.read(self.fd, PIPE)
        except BlockingIOError:
            return

    def wait_for(self, fd: int) -> None:
        """Return when fd is readable; handlers of signals run meanwhile."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self.fd, select.POLLIN)
        while True:
            ready = {number for number, _ in poller.poll()}
            if self.fd in ready:
                self.clear()
            if fd in ready:
                return


class Blocked:
    """While the block lasts, signals that are to be passed on are kept back."""

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)

    def __exit__(self, *_error: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def pass_on(client: Client, session: str) -> None:
    """From now on what would end this command goes to the one in the instance, whose end then ends this one."""

    def handle(number: int, _frame: object) -> None:
        _signal_exec(client, session, number)

    client.wait = Wakeup().wait_for
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)


def _signal_exec(client: Client, session: str, number: int) -> None:
    ended = select.poll()
    ended.register(client.fileno(), select.POLLIN)
    for _ in range(TRIES):
        try:
            Client().call("SignalExec", {"session": session, "signal": int(number)})
            return
        except CliError as error:
            # Not found: either it has not begun yet, then it is worth trying again, or its end is on its way to us.
            if error.name != "NotFound" or ended.poll(TRY_PAUSE):
                return
