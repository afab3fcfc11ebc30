# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a file in an instance: paths, modes and owners, as the guest counts them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sysd.model.errors import InvalidError
from sysd.model.idmap import MAX_ID

MAX_PATH = 4096
MAX_NAME = 255
MAX_MODE = 0o7777
MAX_SIZE = 1 << 62


class Action(StrEnum):
    PUSH = "push"
    PULL = "pull"
    PUSH_TREE = "push-tree"
    PULL_TREE = "pull-tree"
    MAKE_DIRECTORY = "mkdir"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One thing to do below the guest's root, checked.

    path is absolute, with "/" at its end when it must be a directory. name is that of the file that comes, should
    path be a directory. mode, uid and gid are -1 for what a file has already, or root's and usual. size: how many bytes
    have to come, -1 for however many do. parents: make missing directories on the way. recursive: with all that is
    below.
    """

    action: Action
    path: str
    name: str = ""
    mode: int = -1
    uid: int = -1
    gid: int = -1
    parents: bool = False
    recursive: bool = False
    size: int = -1

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.name:
            _check_name(self.name)
        if not -1 <= self.mode <= MAX_MODE:
            raise InvalidError(f"no file has the mode {self.mode:o}", "octal, 0 to 7777")
        if not -1 <= self.size <= MAX_SIZE:
            raise InvalidError(f"no file has {self.size} bytes")
        for what, number in (("user", self.uid), ("group", self.gid)):
            if not -1 <= number <= MAX_ID:
                raise InvalidError(f"no file can belong to {what} {number}", f"ids go from 0 to {MAX_ID}")


def check_path(path: str) -> None:
    """Raise InvalidError unless path is absolute, and goes nowhere but down."""
    if not path.startswith("/"):
        raise InvalidError(f"{path!r} is not an absolute path in an instance", "it begins with /")
    if "\0" in path or len(path.encode(errors="replace")) >= MAX_PATH:
        raise InvalidError("the path has a NUL byte in it, or is too long", f"fewer than {MAX_PATH} bytes")
    for part in split(path):
        _check_name(part)


def split(path: str) -> list[str]:
    """The names that a path consists of."""
    return [part for part in path.split("/") if part not in ("", ".")]


def _check_name(name: str) -> None:
    if name == ".." or "/" in name or "\0" in name or name in ("", "."):
        raise InvalidError(f"{name!r} can't be part of a path in an instance", "say where the path ends up")
    if len(name.encode(errors="replace")) > MAX_NAME:
        raise InvalidError("a name in the path is too long", f"at most {MAX_NAME} bytes")
