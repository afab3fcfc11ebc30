# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors; every door (D-Bus, varlink, command line) shows the same names.

A message says what was wrong and with what; the hint says what to do about it.
"""

from __future__ import annotations

import errno

DBUS_PREFIX = "org.syscont.Error."


class SyscontError(Exception):
    """Base of all errors that a user may see."""

    code = "Failed"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def dbus_name(self) -> str:
        return DBUS_PREFIX + self.code

    @property
    def text(self) -> str:
        """Message and hint on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class FailedError(SyscontError):
    """Something that should have worked did not; the message carries the cause."""


def is_full(error: Exception) -> bool:
    """Whether a disk or a quota is full, which is nobody's mistake; SQLite has an error of its own for that."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"


def failed(what: str, error: Exception) -> FailedError:
    """What is told of work that ended with any error."""
    return FailedError(f"{what}: {error}", "make room there, and try again" if is_full(error) else "")


class NotFoundError(SyscontError):
    code = "NotFound"


class ExistsError(SyscontError):
    code = "AlreadyExists"


class InvalidError(SyscontError):
    """A name, key, value or archive that can't be accepted."""

    code = "InvalidArgument"


class BusyError(SyscontError):
    """The object is being changed by someone else, or is used by something."""

    code = "Busy"


class NotRunningError(SyscontError):
    code = "NotRunning"


class DeniedError(SyscontError):
    code = "AccessDenied"


class UnsupportedError(SyscontError):
    code = "NotSupported"


class UnreachableError(SyscontError):
    """Another host is nowhere that it was said to be."""

    code = "Unreachable"


class CancelledError(SyscontError):
    code = "Cancelled"


ERRORS: dict[str, type[SyscontError]] = {
    cls.code: cls
    for cls in (
        FailedError,
        NotFoundError,
        ExistsError,
        InvalidError,
        BusyError,
        NotRunningError,
        DeniedError,
        UnsupportedError,
        UnreachableError,
        CancelledError,
    )
}
