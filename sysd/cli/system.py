# SPDX-License-Identifier: Apache-2.0
"""The operating system: posix itself, which costs nothing to import, or os where there is none (on Windows)."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix as posix
else:
    try:
        import posix
    except ImportError:
        import os as posix

IS_WINDOWS = sys.platform == "win32"
CLOEXEC: int = getattr(posix, "O_CLOEXEC", 0) | getattr(posix, "O_BINARY", 0)
"""Of each file that is opened: not for children, and bytes as they are."""
NULL: str = getattr(posix, "devnull", "/dev/null")


def variable(name: str) -> str:
    """Of the environment; empty when it is not set."""
    environ: dict[object, object] = posix.environ  # type: ignore[assignment]
    found = environ.get(name.encode() if posix.__name__ == "posix" else name, "")
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else str(found)


def replace(draft: str, path: str, text: str) -> None:
    """Write a file for nobody else to read, whole or not at all."""
    fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | CLOEXEC, 0o600)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[posix.write(fd, data) :]
        posix.fsync(fd)
    finally:
        posix.close(fd)
    posix.replace(draft, path)
