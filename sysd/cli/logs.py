# SPDX-License-Identifier: Apache-2.0
"""logs: the journal of an instance's unit. Works without the daemon, but for those of other hosts."""

from __future__ import annotations

from sysd.cli.errors import CliError, UsageError
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed

JOURNALCTL = "/usr/bin/journalctl"
STDOUT = 1


def run(parsed: Parsed) -> int:
    """``syscont logs``"""
    from sysd.cli import client

    if client.is_far():
        return _from_afar(parsed)
    command = journal_command(parsed)
    try:
        posix.execv(command[0], command)
    except OSError as error:
        raise CliError(f"can't run {command[0]}: {error.strerror}") from None


def _from_afar(parsed: Parsed) -> int:
    from sysd.cli.client import connect

    name, *more = parsed.args
    if more:
        raise UsageError("logs: another host takes none of journalctl's own options", "leave out what follows --")
    wanted = {
        "name": name,
        "lines": parsed.number("lines"),
        "boot": parsed.flag("boot") or None,
        "follow": parsed.flag("follow") or None,
        "output": parsed.value("output") or None,
    }
    connect().call("ReadLog", {**wanted, "logFd": 0}, [STDOUT])
    return 0


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
