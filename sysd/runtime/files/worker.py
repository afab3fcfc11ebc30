# SPDX-License-Identifier: Apache-2.0
"""The program that works on an instance's files: files REQUEST, a JSON object with "way" and "request".

Standard input or output of the work is descriptor 0; answers go to descriptor 1 (sysd.units.answers). It enters the
instance's tree before it looks at any path. SIGTERM ends it with its draft removed.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sysd.model.errors import (
    CancelledError,
    ExistsError,
    FailedError,
    InvalidError,
    NotFoundError,
    SyscontError,
)
from sysd.model.files import Action, FileRequest
from sysd.runtime import inside
from sysd.runtime.files.actions import Result, Tree
from sysd.units.answers import Reporter, emit, emit_error

MEMORY = 1 << 30
"""Bytes of address space: none of the work needs more, whatever the tree is like."""
DATA = 0

CAME = "came"
"""The stage at which the worker waits for a byte from the daemon (sysd.runtime.files.run)."""

Work = Callable[[Tree, FileRequest, int], Result]


def main(argv: Sequence[str]) -> int:
    """Do one request; the exit status is 1 when it was refused or failed."""
    message = json.loads(argv[1])
    request = FileRequest(**{**message["request"], "action": Action(message["request"]["action"])})
    signal.signal(signal.SIGTERM, _stop)
    try:
        work = _action(request.action)
        _limit()
        _enter(inside.from_message(message["way"]))
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = Tree(root, Reporter(request.action.value), lambda: _ask(message["consent"]))
        emit({"result": work(tree, request, DATA)})
    except SyscontError as error:
        emit_error(error)
        return 1
    except OSError as error:
        emit_error(explained(error, request))
        return 1
    except Exception as error:
        emit_error(FailedError(f"{request.path}: {type(error).__name__}: {error}"))
        return 1
    return 0


def _ask(consent: int) -> None:
    """The end of a pipe may be that of the daemon, which feeds it for those who are far away: of that, half of a file
    must not come."""
    emit({"stage": CAME, "done": 0, "total": 0})
    if not os.read(consent, 1):
        raise CancelledError("syscontd has ended")


def _limit() -> None:
    """What the daemon has for itself is not for its workers."""
    os.umask(0o022)
    with open("/proc/self/oom_score_adj", "w") as stream:
        stream.write("0")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _enter(way: inside.Way) -> None:
    try:
        way.enter()
    except OSError as error:
        raise FailedError(f"the instance's files can't be reached: {error}") from None


def _action(action: Action) -> Work:
    """What does it, with all modules that it needs: once inside none can be loaded."""
    match action:
        case Action.PUSH:
            return Tree.push
        case Action.PULL:
            return Tree.pull
        case Action.MAKE_DIRECTORY:
            return lambda tree, request, data: tree.make_directory(request)
        case Action.DELETE:
            return lambda tree, request, data: tree.delete(request)
    from sysd.runtime.files import archives

    return archives.push_tree if action is Action.PUSH_TREE else archives.pull_tree


_ERRORS: dict[int, tuple[type[SyscontError], str, str]] = {
    errno.ENOENT: (NotFoundError, "is not there", ""),
    errno.ENOTDIR: (InvalidError, "is no directory, or goes through what is none", ""),
    errno.EEXIST: (ExistsError, "exists already", ""),
    errno.ENOTEMPTY: (InvalidError, "is not empty", "--recursive deletes all that is in it"),
    errno.ELOOP: (InvalidError, "leads through links without end, or through one of /proc", ""),
    errno.EXDEV: (InvalidError, "has something mounted in it", "unmount that first"),
    errno.EBUSY: (InvalidError, "is in use as a mount point", ""),
}


def explained(error: OSError, request: FileRequest) -> SyscontError:
    """What the kernel said, about the path that was asked for."""
    if error.errno in _ERRORS:
        kind, words, hint = _ERRORS[error.errno]
        return kind(f"{request.path} {words}", hint)
    return FailedError(f"{request.path}: {os.strerror(error.errno or errno.EIO)}")


def _stop(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
