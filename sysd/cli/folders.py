# SPDX-License-Identifier: Apache-2.0
"""Folders between here and an instance: as tar archives through a pipe, packed at one end and unpacked at the other.

What comes from an instance is as hostile as what comes from anywhere: it is unpacked by the extractor that images go
through, and gives no one rights here.
"""

from __future__ import annotations

import os

from sysd.archive.extract import Extractor
from sysd.archive.pack import Packer
from sysd.archive.tape import TarReader
from sysd.cli.beside import Beside
from sysd.cli.errors import FAILURE, USAGE, CliError
from sysd.cli.output import say, write_all
from sysd.model.errors import SyscontError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysd.cli.client import Parameters

MODE_BITS = 0o1777
"""Without set-user-id and set-group-id."""


def push(source: str, name: str, path: str, attributes: Parameters) -> None:
    """Put a folder below path of the instance, under its own name."""
    uid, gid = attributes.get("uid"), attributes.get("gid")

    def pack(writer: int) -> None:
        top = _open(source)
        packer = Packer(
            lambda data: write_all(writer, data),
            uid=-1 if uid is None else uid,
            gid=-1 if gid is None else gid,
        )
        _said(lambda: packer.run(top, os.fsencode(os.path.basename(os.path.realpath(source)))))
        if packer.skipped:
            say(f"{source}: {packer.skipped} device nodes and sockets were left out")

    with Beside(pack, writes=True) as beside:
        parameters = {"name": name, "path": path, "dataFd": 0, "parents": attributes.get("parents")}
        beside.run_operation("PushTree", parameters)


def pull(name: str, path: str, target: str) -> None:
    """Put a folder of the instance below the folder target, under its own name."""
    top = _open(target)

    def unpack(reader: int) -> None:
        disk = os.fstatvfs(top)
        extractor = Extractor(
            top,
            TarReader(lambda size: os.read(reader, size)),
            disk.f_bavail * disk.f_frsize,
            owners=os.geteuid() == 0,
            mode_bits=MODE_BITS,
        )
        _said(lambda: extractor.run(lambda parts, member: None))

    with Beside(unpack, writes=False) as beside:
        result = beside.run_operation("PullTree", {"name": name, "path": path, "dataFd": 0}).get("result") or {}
    if int(result.get("skipped", "0")):
        say(f"{name}{path}: {result['skipped']} device nodes, sockets and other file systems were left out")


def _open(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CliError(f"no directory {folder}", "--create-dirs makes it", USAGE) from None


def _said(work: Callable[[], None]) -> None:
    """The archive's errors as the command's own."""
    try:
        work()
    except SyscontError as error:
        raise CliError(error.message, error.hint, FAILURE) from None
