# SPDX-License-Identifier: Apache-2.0
"""Running programs on the machine itself."""

import os
import signal
import subprocess
from collections.abc import Sequence


class HostError(Exception):
    """The harness could not do what was asked."""


class CommandError(subprocess.CalledProcessError):
    """A command that failed, together with what it said."""

    def __str__(self) -> str:
        parts = [super().__str__()]
        for title, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                parts.append(f"--- {title}\n{text[-4000:].rstrip()}")
        return "\n".join(parts)


def machine(*argv: str, check: bool = True, input: str | None = None) -> str:
    """Run a program of the machine and give back what it printed."""
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise CommandError(done.returncode, argv, done.stdout, done.stderr)
    return done.stdout


def communicate(
    process: "subprocess.Popen[str]",
    argv: Sequence[str],
    *,
    check: bool,
    input: str | None,
    timeout: float | None,
) -> "subprocess.CompletedProcess[str]":
    """Wait for a process that leads its own group; none of the group outlives a timeout."""
    try:
        out, err = process.communicate(input, timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if check and process.returncode:
        raise CommandError(process.returncode, list(argv), out, err)
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)
