# SPDX-License-Identifier: Apache-2.0
"""Commands without a terminal of their own, started on ours.

A descriptor of a terminal is the terminal: whoever has it may read what is typed later, type by itself (TIOCSTI) and
change its modes. So a guest never gets ours, but a pipe, and we copy.
"""

from __future__ import annotations

import select

from sysd.cli.execute import begin, exit_status
from sysd.cli.output import write_all
from sysd.cli.signals import Wakeup
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Client, Parameters

STDIN = 0
CHUNK = 1 << 16
MOST_DRAINED = 256
BACKGROUND_PAUSE = 500


def execute_through_pipes(client: Client, parameters: Parameters, fds: tuple[int, int, int]) -> int:
    """Exec with fds, but a pipe for each that is a terminal."""
    pipes = Pipes(client.fileno())
    theirs = pipes.instead_of(fds)
    begin(client, parameters, theirs)
    for fd in set(theirs) - set(fds):
        posix.close(fd)
    pipes.run()
    return exit_status(client.receive()[0])


class Pipes:
    """Copies from our terminal to the command and back, until control becomes readable."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._input = -1
        self._outputs: dict[int, int] = {}
        self._pending = b""
        self._typing = False
        self._wakeup: Wakeup | None = None

    def instead_of(self, fds: tuple[int, int, int]) -> tuple[int, int, int]:
        """What the command gets; the other ends are ours."""
        stdin, stdout, stderr = fds
        if posix.isatty(stdin):
            stdin, self._input = posix.pipe()
            posix.set_blocking(self._input, False)
            self._typing = True
        return stdin, *self._instead_of_outputs(stdout, stderr)

    def _instead_of_outputs(self, stdout: int, stderr: int) -> tuple[int, int]:
        ours = [fd for fd in (stdout, stderr) if posix.isatty(fd)]
        if len(ours) == 2 and posix.fstat(stdout).st_rdev == posix.fstat(stderr).st_rdev:
            # One pipe for both keeps their order.
            both = self._output(stdout)
            return both, both
        return (
            self._output(stdout) if stdout in ours else stdout,
            self._output(stderr) if stderr in ours else stderr,
        )

    def _output(self, to: int) -> int:
        reader, writer = posix.pipe()
        posix.set_blocking(reader, False)
        self._outputs[reader] = to
        return writer

    def run(self) -> None:
        self._wakeup = Wakeup()
        while self._control not in (ready := self._wait(self._wakeup)):
            if STDIN in ready:
                self._read_input()
            for fd in self._outputs.keys() & ready:
                self._copy(fd)
            self._flush()
        # Bounded: what the command left running may write without end.
        for fd in list(self._outputs):
            for _ in range(MOST_DRAINED):
                if not self._copy(fd):
                    break

    def _wait(self, wakeup: Wakeup) -> set[int]:
        poller = select.poll()
        for fd in (wakeup.fd, self._control, *self._outputs):
            poller.register(fd, select.POLLIN)
        pause = None
        if self._pending:
            poller.register(self._input, select.POLLOUT)
        elif self._typing and _in_foreground():
            poller.register(STDIN, select.POLLIN)
        elif self._typing:
            pause = BACKGROUND_PAUSE
        ready = {fd for fd, _ in poller.poll(pause)}
        if wakeup.fd in ready:
            wakeup.clear()
        return ready

    def _read_input(self) -> None:
        try:
            self._pending = posix.read(STDIN, CHUNK)
        except OSError:
            self._pending = b""
        if not self._pending:
            self._end_input()

    def _end_input(self) -> None:
        """Of the terminal, or of the command's interest in it."""
        posix.close(self._input)
        self._typing = False
        self._pending = b""

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._pending = self._pending[posix.write(self._input, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._end_input()

    def _copy(self, fd: int) -> bool:
        """Whether there may be more."""
        try:
            data = posix.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            posix.close(fd)
            del self._outputs[fd]
            return False
        write_all(self._outputs[fd], data)
        return True


def _in_foreground() -> bool:
    """Whether reading from the terminal is ours to do: in the background it would stop us (SIGTTIN)."""
    try:
        return posix.tcgetpgrp(STDIN) == posix.getpgrp()
    except OSError:
        return True  # not our controlling terminal: no one stops us
