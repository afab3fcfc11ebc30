# SPDX-License-Identifier: Apache-2.0
"""logs: the journal of an instance's unit. Works without the daemon."""

from __future__ import annotations

import posix

from sysd.cli.errors import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed

JOURNALCTL = "/usr/bin/journalctl"


def run(parsed: Parsed) -> int:
    """``syscont logs``"""
    command = journal_command(parsed)
    try:
        posix.execv(command[0], command)
    except OSError as error:
        raise CliError(f"can't run {command[0]}: {error.strerror}") from None


def journal_command(parsed: Parsed) -> list[str]:
    """The journalctl command line that shows what was asked for."""
    name, *more = parsed.args
    command = [JOURNALCTL, f"--unit={_unit(name)}"]
    command += [f"--{option}" for option in ("follow", "boot") if parsed.flag(option)]
    command += [f"--{option}={parsed.value(option)}" for option in ("lines", "output") if parsed.flag(option)]
    return command + more


def _unit(name: str) -> str:
    from sysd.model import names
    from sysd.model.errors import SyscontError

    # journalctl takes patterns for units, so only what is a name may reach it.
    project, colon, instance = name.rpartition(":")
    try:
        if colon:
            names.check_project_name(project)
        names.check_instance_name(instance)
    except SyscontError as error:
        raise UsageError(error.message, error.hint) from None
    return names.unit_name(project if colon else names.DEFAULT_PROJECT, instance)
