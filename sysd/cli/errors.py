# SPDX-License-Identifier: Apache-2.0
"""What the command says when it can't go on, and the exit statuses that it says it with."""

from __future__ import annotations

OK = 0
FAILURE = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4
CHANGED = 10
EXEC_FAILURE = 125
SIGNAL_BASE = 128

# The one table that help, the man page and the mapping of the daemon's errors are made from.
EXIT_STATUSES = (
    ("0", "It worked."),
    ("1", "It failed; standard error says why."),
    ("2", "The command line, or a name or value on it, is not acceptable."),
    ("3", "What was named does not exist."),
    ("4", "Access was denied."),
    ("10", "apply --exit-code: something was changed, or with --dry-run would be."),
    ("125", "exec and shell: syscont itself failed, so the command was not run, or how it ended is not known."),
    ("126", "exec and shell: the command can't be executed."),
    ("127", "exec and shell: the command was not found in the instance."),
    ("128+N", "exec and shell: the command was ended by signal N. Otherwise exec's status is the command's own."),
)


class CliError(Exception):
    """Ends the command with one line on standard error.

    code is the exit status, name the daemon's short name of the error ("" when it is the command's own).
    """

    def __init__(self, message: str, hint: str = "", code: int = FAILURE, name: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.name = name

    @property
    def text(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(CliError):
    """The command line is wrong."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, USAGE)
