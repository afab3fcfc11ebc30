# SPDX-License-Identifier: Apache-2.0
"""The editor of the user's choice."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from sysd.cli.errors import CliError
from sysd.cli.system import posix

EDITORS = ("sensible-editor", "editor", "vi", "nano")


def run_editor(path: str) -> None:
    """Have path edited; returns when the editor has ended well, else raises CliError."""
    argv = [*_editor(), path]
    try:
        status = subprocess.run(argv, check=False).returncode
    except OSError as error:
        raise CliError(f"{argv[0]}: {error.strerror}", "set EDITOR to the editor that you want") from None
    if status:
        raise CliError(f"{argv[0]} ended with {status}, nothing was changed")


def _editor() -> list[str]:
    """Its command, which may have arguments."""
    for variable in (b"VISUAL", b"EDITOR"):
        if words := shlex.split(posix.environ.get(variable, b"").decode("utf-8", "surrogateescape")):
            return words
    for name in EDITORS:
        if shutil.which(name):
            return [name]
    raise CliError("there is no editor", "set EDITOR to the one that you want")
