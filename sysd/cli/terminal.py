# SPDX-License-Identifier: Apache-2.0
"""Our terminal in raw mode, and the relay between it and one in an instance."""

from __future__ import annotations

import fcntl
import select
import sys
import termios

from sysd.cli.execute import begin, exit_status
from sysd.cli.output import write_all
from sysd.cli.signals import Wakeup
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from sysd.cli.client import Client, Parameters
else:
    import _signal as signal

STDIN = 0
STDOUT = 1
CHUNK = 1 << 16
MOST_DRAINED = 256
END_OF_FILE = b"\x04"


class RawTerminal:
    """Raw mode for as long as the block lasts; does nothing when standard input is no terminal."""

    def __init__(self) -> None:
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if posix.isatty(STDIN):
            self._saved = termios.tcgetattr(STDIN)
            termios.tcsetattr(STDIN, termios.TCSADRAIN, raw_mode(self._saved))
        return self

    def __exit__(self, *_error: object) -> None:
        if self._saved is not None:
            try:
                termios.tcsetattr(STDIN, termios.TCSADRAIN, self._saved)
            except termios.error:
                return


def raw_mode(attributes: list[Any]) -> list[Any]:
    """What cfmakeraw(3) makes of terminal attributes."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN] = 1
    characters[termios.VTIME] = 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]


def window_size() -> bytes | None:
    """Our terminal's struct winsize, None when there is no terminal."""
    for fd in (STDOUT, STDIN):
        try:
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            continue
    return None


def rows_and_columns(size: bytes) -> tuple[int, int]:
    """The first two fields of a struct winsize."""
    return int.from_bytes(size[0:2], sys.byteorder), int.from_bytes(size[2:4], sys.byteorder)


def on_resize(act: Callable[[bytes], None]) -> None:
    """Call act with our terminal's size now, and again whenever it changes."""

    def handle(_number: int = 0, _frame: object = None) -> None:
        size = window_size()
        if size is not None:
            act(size)

    signal.signal(signal.SIGWINCH, handle)
    handle()


class Relay:
    """Copies standard input to remote and remote to standard output.

    control, when given, ends it by becoming readable, after all that remote holds by then has been written out.
    keys sees what is typed and returns what is to be sent, or None to leave.
    """

    def __init__(
        self,
        remote: int,
        control: int | None = None,
        keys: Callable[[bytes], bytes | None] | None = None,
        end_of_input: bytes = b"",
    ) -> None:
        self._remote = remote
        self._control = control
        self._keys = keys
        self._end_of_input = end_of_input
        self._pending = b""
        self._input_open = True
        self._remote_open = True
        self._wakeup = Wakeup()
        posix.set_blocking(remote, False)

    def run(self) -> None:
        while self._remote_open or self._control is not None:
            ready = self._wait()
            if self._control is not None and self._control in ready:
                break
            if STDIN in ready and not self._read_input():
                return
            if self._remote in ready:
                self._read_remote()
            self._flush()
        self._drain()

    def _wait(self) -> set[int]:
        poller = select.poll()
        poller.register(self._wakeup.fd, select.POLLIN)
        if self._control is not None:
            poller.register(self._control, select.POLLIN)
        if self._remote_open:
            poller.register(self._remote, select.POLLIN | (select.POLLOUT if self._pending else 0))
            # Nothing more is read from the keyboard while the guest does not take what was typed.
            if self._input_open and len(self._pending) < CHUNK:
                poller.register(STDIN, select.POLLIN)
        ready = {fd for fd, _ in poller.poll()}
        if self._wakeup.fd in ready:
            self._wakeup.clear()
        return ready

    def _read_input(self) -> bool:
        try:
            data = posix.read(STDIN, CHUNK)
        except OSError:
            data = b""
        if not data:
            self._input_open = False
            self._pending += self._end_of_input
            return True
        if self._keys is not None:
            kept = self._keys(data)
            if kept is None:
                return False
            data = kept
        self._pending += data
        return True

    def _read_remote(self) -> bool:
        try:
            data = posix.read(self._remote, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last process that had the other side open is gone
        if not data:
            self._remote_open = False
            return False
        write_all(STDOUT, data)
        return True

    def _flush(self) -> None:
        if not self._pending or not self._remote_open:
            return
        try:
            self._pending = self._pending[posix.write(self._remote, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""

    def _drain(self) -> None:
        # Bounded: what still runs in the instance and has the terminal may write to it without end.
        for _ in range(MOST_DRAINED):
            if not self._remote_open or not self._read_remote():
                return


def execute_on_terminal(client: Client, parameters: Parameters) -> int:
    """Exec with a terminal in the instance: its size, its bytes and its end are ours."""
    terminal = posix.environ.get(b"TERM", b"").decode("utf-8", "replace")
    environment = parameters.get("environment") or {}
    if terminal:
        environment = {"TERM": terminal, **environment}
    rows, columns = rows_and_columns(window_size() or bytes(8))
    size: Parameters = {"tty": True, "rows": rows, "columns": columns}
    begin(client, {**parameters, **size, "environment": environment or None}, more=True)
    reply, more = client.receive()
    if not more:
        return exit_status(reply)
    remote = client.take_fd(reply, "terminalFd")
    with RawTerminal():
        on_resize(lambda size: client.resize(remote, size))
        Relay(remote, control=client.fileno(), end_of_input=END_OF_FILE).run()
    return exit_status(client.receive()[0])

