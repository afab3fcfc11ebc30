# SPDX-License-Identifier: Apache-2.0
"""export, import and publish."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import USAGE, CliError
from sysd.cli.image import open_file, print_fingerprint
from sysd.cli.output import out, say
from sysd.cli.system import CLOEXEC, posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed

STDOUT = 1
ENDINGS = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "lzma": ".lzma", "zstd": ".zst", "lz4": ".lz4"}


def export(parsed: Parsed) -> int:
    """``syscont export``"""
    name, *target = parsed.args
    compression = parsed.value("compression", "gzip")
    path = target[0] if target else f"{name.rpartition(':')[2]}.tar{ENDINGS[compression]}"
    parameters = {
        "name": name,
        "backupFd": 0,
        "compression": compression,
        "instanceOnly": True if parsed.flag("instance-only") else None,
    }
    if path == "-":
        if posix.isatty(STDOUT):
            raise CliError("a backup is not for a terminal", "give a file's name, or a pipe", USAGE)
        client.run_operation("ExportInstance", parameters, [STDOUT])
        return 0
    _write(path, parameters)
    return 0


def _write(path: str, parameters: client.Parameters) -> None:
    """A file that was there before stays until the new one is whole."""
    draft = f"{path}.part{posix.getpid()}"
    fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | CLOEXEC, 0o600)
    try:
        try:
            client.run_operation("ExportInstance", parameters, [fd])
            posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.replace(draft, path)
    except BaseException:
        posix.unlink(draft)
        raise


def import_file(parsed: Parsed) -> int:
    """``syscont import``"""
    path, *names = parsed.args
    fd = open_file(path)
    name, project = names[0] if names else "", parsed.value("target-project") or parsed.project
    wanted = name if ":" in name else f"{project}:{name}"
    result = client.run_operation("ImportInstance", {"backupFd": 0, "name": wanted}, [fd]).get("result") or {}
    if left := result.get("left-out"):
        say(f"left out, as this host has no use for it: {left}")
    out(str(result.get("name", "")) + "\n")
    return 0


def publish(parsed: Parsed) -> int:
    """``syscont publish``"""
    parameters = {
        "name": parsed.args[0],
        "aliases": parsed.list("alias") or None,
        "properties": parsed.pairs("property") or None,
    }
    return print_fingerprint(client.run_operation("PublishInstance", parameters))
