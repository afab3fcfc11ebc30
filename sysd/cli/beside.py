# SPDX-License-Identifier: Apache-2.0
"""A process beside this one, at the other end of a pipe: it moves bytes while this one talks to the daemon."""

from __future__ import annotations

import os
import select

from sysd.cli import client
from sysd.cli.errors import FAILURE, SIGNAL_BASE, CliError
from sysd.cli.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysd.cli.client import Parameters

CHUNK = 1 << 18
SIGINT = 2


class Beside:
    """Runs work in the other process with one end of a pipe: that to write to, if work writes.

    The end of the block waits for it and raises the error that it ended with, also in the place of one here, if that
    comes of it: of an archive that was not finished, or of a reader that was gone.
    """

    def __init__(self, work: Callable[[int], None], *, writes: bool) -> None:
        reader, writer = os.pipe()
        self._ours, theirs = (reader, writer) if writes else (writer, reader)
        self._writes = writes
        self._words, words = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._ours)
            os._exit(_run(work, theirs, words))
        os.close(theirs)
        os.close(words)

    def run_operation(self, method: str, parameters: Parameters) -> Parameters:
        """client.run_operation with our end of the pipe, which only the daemon's worker has from then on."""
        return client.run_operation(method, parameters, [self._ours], sent=self._close)

    def _close(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._close()
        words = b""
        while data := os.read(self._words, CHUNK):
            words += data
        os.close(self._words)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        comes_of_it = isinstance(error, CliError) and (self._writes or error.name == "Cancelled")
        if code and (error is None or comes_of_it):
            raise CliError(words.decode(errors="replace"), code=abs(code))


def _run(work: Callable[[int], None], end: int, words: int) -> int:
    """The other process: its exit status; what went wrong goes to words."""
    try:
        work(end)
    except CliError as error:
        text, code = error.text, error.code
    except BrokenPipeError:
        return 0  # whoever reads has had enough, and says why
    except KeyboardInterrupt:
        return SIGNAL_BASE + SIGINT
    except OSError as error:
        text, code = f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILURE
    else:
        return 0
    write_all(words, text.encode(errors="backslashreplace"))
    return code


def copy(source: int, target: int) -> None:
    """All that source has, until its end."""
    while data := _read(source):
        write_all(target, data)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            select.select([fd], [], [])
