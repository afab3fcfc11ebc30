# SPDX-License-Identifier: Apache-2.0
"""exec and shell: a command in an instance, as if it ran here."""

from __future__ import annotations

from sysd.cli.client import connect
from sysd.cli.errors import CliError, UsageError
from sysd.cli.signals import Blocked, pass_on
from sysd.cli.system import CLOEXEC, IS_WINDOWS, NULL, posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Client, Parameters
    from sysd.cli.options import Parsed

# Every distribution has a sh; most have a bash, which people rather type into.
LOGIN = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l")


def run(parsed: Parsed) -> int:
    """``syscont exec``"""
    name, *command = parsed.args
    if not command:
        raise UsageError("exec: no command", f"usage: {parsed.verb.usage}; for a shell: syscont shell {name}")
    if parsed.flag("tty") and parsed.flag("no-tty"):
        raise UsageError("exec: --tty and --no-tty exclude each other")
    tty = parsed.flag("tty") or (
        not parsed.flag("no-tty") and not parsed.flag("no-stdin") and _on_terminal()
    )
    return execute(name, command, parsed, tty)


def shell(parsed: Parsed) -> int:
    """``syscont shell``"""
    return execute(parsed.args[0], LOGIN, parsed, _on_terminal())


def _on_terminal() -> bool:
    """Whether ours is a terminal that can be one in an instance."""
    return posix.isatty(0) and posix.isatty(1) and not IS_WINDOWS


def execute(name: str, command: list[str] | tuple[str, ...], parsed: Parsed, tty: bool) -> int:
    """Run command in the instance and return its exit status; tty: with a terminal of its own."""
    _fill_standard_fds()
    environment = parsed.pairs("env")
    parameters: Parameters = {
        "name": name,
        "command": command,
        "environment": environment or None,
        "cwd": parsed.value("cwd") or None,
        "user": parsed.value("user") or None,
        "session": posix.urandom(16).hex(),
    }
    client = connect()
    if tty:
        if IS_WINDOWS:
            raise UsageError("exec: this system has no terminals of the kind that --tty is about", "leave it out")
        from sysd.cli.terminal import execute_on_terminal

        return execute_on_terminal(client, parameters)
    stdin = posix.open(NULL, posix.O_RDONLY | CLOEXEC) if parsed.flag("no-stdin") else 0
    if not IS_WINDOWS and (posix.isatty(stdin) or posix.isatty(1) or posix.isatty(2)):
        from sysd.cli.pipes import execute_through_pipes

        return execute_through_pipes(client, parameters, (stdin, 1, 2))
    begin(client, parameters, (stdin, 1, 2))
    return exit_status(client.receive()[0])


def begin(client: Client, parameters: Parameters, fds: tuple[int, ...] = (), more: bool = False) -> None:
    """Send the call. A signal ends us before it is sent, and goes to the command from then on, never in between."""
    with Blocked():
        client.send("Exec", parameters, fds, more)
        pass_on(client, str(parameters["session"]))


def exit_status(reply: Parameters) -> int:
    """The status that the daemon's reply brings."""
    status = reply.get("exitStatus")
    if not isinstance(status, int) or not 0 <= status <= 255:
        raise CliError("syscontd did not say how the command ended")
    return status


def _fill_standard_fds() -> None:
    """See to it that 0, 1 and 2 are open: what is opened next would else take such a number and be passed as one."""
    fd = posix.open(NULL, posix.O_RDWR)
    while fd <= 2:
        fd = posix.open(NULL, posix.O_RDWR)
    posix.close(fd)
