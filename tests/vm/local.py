# SPDX-License-Identifier: Apache-2.0
"""Sessions that are in no guest: what would run there runs here, by whichever shell."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

from sysd.runtime.execute import Command
from sysd.runtime.session import Session

SHELLS = ("/bin/dash", "/bin/bash", "busybox")


class Local:
    terminal = -1

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def wait(self, otherwise: int = signal.SIGHUP) -> int:
        try:
            status = await self._process.wait()
        except BaseException:
            self.abandon(otherwise)
            raise
        return status if status >= 0 else 128 - status

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def abandon(self, number: int) -> None:
        self.signal(number)


class Place:
    """shell is one of SHELLS; with busybox all programs are its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        self._shell = [shell]
        self.environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        if shell == "busybox":
            programs = folder / "busybox"
            programs.mkdir()
            busybox = shutil.which("busybox") or "busybox"
            names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
            for name in names.stdout.split():
                (programs / name).symlink_to(busybox)
            self._shell = [str(programs / "sh")]
            self.environment["PATH"] = str(programs)

    def argv(self, words: list[str]) -> list[str]:
        assert words[0] == "/bin/sh"
        return [*self._shell, *words[1:]]

    async def start(self, command: Command) -> Session:
        stdin, stdout, stderr = (fd if fd >= 0 else subprocess.DEVNULL for fd in command.stdio)
        return Local(
            await asyncio.create_subprocess_exec(
                *self.argv(list(command.argv)), stdin=stdin, stdout=stdout, stderr=stderr, env=self.environment
            )
        )
