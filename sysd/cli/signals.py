# SPDX-License-Identifier: Apache-2.0
"""Signals that are for a command in an instance, and waiting in which none gets lost."""

from __future__ import annotations

import select

from sysd.cli.client import connect
from sysd.cli.errors import CliError
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from sysd.cli.client import Client
else:
    import _signal as signal

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
FORWARDED = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
POLLS = hasattr(select, "poll")
LOOK = 0.2
"""Seconds between looks, on systems that have no poll(2), where no signal interrupts waiting."""
TRIES = 20
TRY_PAUSE = 0.05
PIPE = 512


class Wakeup:
    """A descriptor that becomes readable with each signal.

    Without one, a signal that comes just before a blocking system call would be handled only after that.
    """

    def __init__(self) -> None:
        if not POLLS:
            return
        self.fd, writer = posix.pipe()
        for fd in (self.fd, writer):
            posix.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def clear(self) -> None:
        try:
            posix.read(self.fd, PIPE)
        except BlockingIOError:
            return

    def wait_for(self, fd: int) -> None:
        """Return when fd is readable; handlers of signals run meanwhile."""
        while not POLLS and not _is_readable(fd, LOOK):
            pass
        if not POLLS:
            return
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
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)

    def __exit__(self, *_error: object) -> None:
        if hasattr(signal, "pthread_sigmask"):
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
    for _ in range(TRIES):
        try:
            connect().call("SignalExec", {"session": session, "signal": int(number)})
            return
        except CliError as error:
            # Not found: either it has not begun yet, then it is worth trying again, or its end is on its way to us.
            if error.name != "NotFound" or _is_readable(client.fileno(), TRY_PAUSE):
                return


def _is_readable(fd: int, patience: float) -> bool:
    """Whether it is within so many seconds."""
    if not POLLS:
        return bool(select.select([fd], [], [], patience)[0])
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(patience * 1000))
