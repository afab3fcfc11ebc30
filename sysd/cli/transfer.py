# SPDX-License-Identifier: Apache-2.0
"""Single files between here and an instance. The daemon's worker gets descriptors and moves the bytes itself."""

from __future__ import annotations

import contextlib
import os
import stat
from shutil import rmtree
from tempfile import mkdtemp, mkstemp

from sysd.cli import client
from sysd.cli.beside import Beside, copy
from sysd.cli.errors import USAGE, CliError
from sysd.cli.output import say
from sysd.cli.system import CLOEXEC, IS_WINDOWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysd.cli.client import Parameters

STDIN, STDOUT = 0, 1
PERMISSIONS = 0o777
"""What is kept of modes: a guest's set-user-id program would be one for everybody here."""


def is_folder(path: str) -> bool:
    return path != "-" and os.path.isdir(path)


def push(source: str, name: str, path: str, attributes: Parameters) -> None:
    """Write source, or standard input for "-", to a file of the instance; a file's mode and owner go with it unless
    attributes has others."""
    parameters = {"name": name, "path": path, "dataFd": 0, **attributes}
    if source == "-":
        _send(parameters, STDIN)
        return
    if is_folder(source):
        raise CliError(f"{source} is a directory", "--recursive takes all that is in it", USAGE)
    fd = os.open(source, os.O_RDONLY | CLOEXEC)
    try:
        for key, value in _kept(os.fstat(fd)):
            if parameters.get(key) is None:
                parameters[key] = value
        _send({**parameters, "fileName": os.path.basename(source)}, fd)
    finally:
        os.close(fd)


def _kept(info: os.stat_result) -> tuple[tuple[str, int], ...]:
    """What goes with a file. Of one that goes to another host, that half of it is not to pass for all, too."""
    size = [("size", info.st_size)] if client.is_far() and stat.S_ISREG(info.st_mode) else []
    if IS_WINDOWS:
        return tuple(size)  # there are no modes, nor owners by number
    return ("mode", info.st_mode & PERMISSIONS), ("uid", info.st_uid), ("gid", info.st_gid), *size


def pull(name: str, path: str, place: str) -> None:
    """Fetch a file of the instance to place, or to standard output for "-"."""
    parameters = {"name": name, "path": path, "dataFd": 0}
    if place == "-":
        _receive(parameters, STDOUT)
    elif os.path.exists(place) and not os.path.isfile(place):
        fd = os.open(place, os.O_WRONLY | CLOEXEC)
        try:
            _receive(parameters, fd)
        finally:
            os.close(fd)
    else:
        _replace(parameters, os.path.realpath(place))


def _replace(parameters: Parameters, place: str) -> None:
    """Whole or not at all: what is at place stays until all has come."""
    fd, draft = mkstemp(prefix=".syscont-", dir=os.path.dirname(place))
    try:
        try:
            result = client.run_operation("PullFile", parameters, [fd]).get("result") or {}
            if not IS_WINDOWS:
                if os.geteuid() == 0:
                    os.fchown(fd, int(result["uid"]), int(result["gid"]))
                os.fchmod(fd, int(result["mode"], 8) & PERMISSIONS)
        finally:
            os.close(fd)
        os.replace(draft, place)
    except BaseException:
        os.unlink(draft)
        raise


def place_of(path: str, target: str, *, into: bool) -> str:
    """Where a file that comes goes: to target, or below it when that is a folder, or must be one."""
    if target == "-":
        return target
    if os.path.isdir(target):
        return os.path.join(target, os.path.basename(path))
    if into:
        raise CliError(f"no directory {target}", "--create-dirs makes it", USAGE)
    return target


def make_folders(target: str, *, itself: bool) -> None:
    """Those on the way to target, and target itself if it is to be one."""
    if target != "-":
        os.makedirs(target if itself else os.path.dirname(target) or ".", exist_ok=True)


def edit(name: str, path: str) -> None:
    """A file of the instance in the user's editor, or anew from standard input. Its mode and owner stay."""
    parameters = {"name": name, "path": path, "dataFd": 0}
    if not os.isatty(STDIN):
        _send(parameters, STDIN)
        return
    # A folder of the user's own: editors put their drafts and backups beside the file.
    folder = mkdtemp(prefix="syscont-")
    draft = os.path.join(folder, os.path.basename(path) or "file")
    keep = False
    try:
        with _opened(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            client.run_operation("PullFile", parameters, [fd])
        before = _content(draft)
        from sysd.cli.editor import run_editor

        run_editor(draft)
        if _content(draft) != before:
            keep = True
            with _opened(draft, os.O_RDONLY) as fd:
                client.run_operation("PushFile", parameters, [fd])
            keep = False
    finally:
        if keep:
            say(f"what you wrote is in {draft}")
        else:
            rmtree(folder)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _send(parameters: Parameters, fd: int) -> None:
    """PushFile of what a descriptor holds; of what the daemon does not take, such as a terminal, through a pipe."""
    if _is_taken(fd):
        client.run_operation("PushFile", parameters, [fd])
        return
    with Beside(lambda writer: copy(fd, writer), writes=True) as beside:
        beside.run_operation("PushFile", parameters)


def _receive(parameters: Parameters, fd: int) -> None:
    """PullFile to a descriptor; to what the daemon does not take, such as a terminal, through a pipe."""
    if _is_taken(fd):
        client.run_operation("PullFile", parameters, [fd])
        return
    with Beside(lambda reader: copy(reader, fd), writes=False) as beside:
        beside.run_operation("PullFile", parameters)


def _is_taken(fd: int) -> bool:
    if client.is_far():
        return True  # what it gets is a pipe of its own
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
