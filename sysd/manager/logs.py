# SPDX-License-Identifier: Apache-2.0
"""What instances logged, for those who have no journal of the host's at hand: journalctl prints it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from dataclasses import dataclass

from sysd.manager.backups import check_stream
from sysd.manager.table import Table
from sysd.model.errors import FailedError, InvalidError
from sysd.units.helper import see_through

JOURNALCTL = "/usr/bin/journalctl"
FORMS = ("short", "short-full", "short-iso", "short-iso-precise", "short-precise", "short-monotonic", "short-unix",
         "verbose", "json", "json-pretty", "json-seq", "export", "cat", "with-unit")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Excerpt:
    """lines: the newest ones, -1 for all; boot: since the host booted; follow: go on with what comes; form: of
    journalctl's output."""

    lines: int = -1
    boot: bool = False
    follow: bool = False
    form: str = ""

    def options(self) -> list[str]:
        if self.form and self.form not in FORMS:
            raise InvalidError(f"no form of output {self.form[:40]!r}", f"one of {', '.join(FORMS)}")
        return [
            *([f"--lines={self.lines}"] if self.lines >= 0 else []),
            *(["--boot"] if self.boot else []),
            *(["--follow"] if self.follow else []),
            *([f"--output={self.form}"] if self.form else []),
        ]


class Logs:
    def __init__(self, table: Table) -> None:
        self._table = table

    async def write(self, name: str, wanted: Excerpt, fd: int) -> None:
        """Write what an instance logged to fd. Returns at the end, if there is one; ends when it is cancelled."""
        check_stream(fd)
        command = [JOURNALCTL, "--no-pager", "--quiet", f"--unit={self._table.get(name).unit}", *wanted.options()]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=fd, stderr=subprocess.DEVNULL
        )
        try:
            if await process.wait() > 0:
                raise FailedError(f"the log of {name} can't be read", "'journalctl --verify' on the host may say why")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await see_through(process.wait())
