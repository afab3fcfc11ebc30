# SPDX-License-Identifier: Apache-2.0
"""The program that writes an archive of virtual machines' disks, in a unit of its own.

Its plan is a JSON object on standard input, of which each part is put into the archive in this order:
    files     path in the archive -> text
    folders   paths in the archive
    copies    path in the archive -> file
    links     path in the archive -> what it points to
    disks     path in the archive -> what the guest has written (qcow2), and the image's disk (raw) below it
    compress  a program that compresses, or nothing
The archive goes to standard output, and lines to standard error, as with sysd.storage.pack. Disks are put together
while they are written: that takes no room.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sysd.model.errors import SyscontError
from sysd.storage.flat import flatten
from sysd.storage.pack import pass_on
from sysd.storage.tar import Writer

_READABLE = 0o644


def main() -> int:
    plan = json.load(sys.stdin)
    program = shlex.split(plan["compress"]) or ["cat"]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    writing = _Writing(plan, child.stdin.fileno(), child.stdin.close)
    writing.start()
    try:
        pass_on(child.stdout.fileno(), sys.stdout.fileno())
    except OSError as error:
        child.kill()
        print(f"what was packed can't be written: {error.strerror}", file=sys.stderr)
        return 1
    writing.join()
    if status := child.wait():
        return status
    if writing.error:
        print(writing.error, file=sys.stderr)
    return 1 if writing.error else 0


class _Writing(threading.Thread):
    def __init__(self, plan: dict[str, Any], target: int, close: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._plan = plan
        self._target = target
        self._close = close
        self.error = ""

    def run(self) -> None:
        try:
            pack(self._plan, self._put)
        except SyscontError as error:
            self.error = error.message
        except OSError as error:
            self.error = f"a disk can't be read: {error.strerror}"
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._close()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]


def pack(plan: dict[str, Any], write: Callable[[bytes], object]) -> None:
    tar = Writer(write)
    for path, text in plan["files"].items():
        tar.text(path, text)
    for path in plan["folders"]:
        tar.folder(path)
    for path, source in plan["copies"].items():
        with _opened(source) as fd:
            tar.file(path, fd, _READABLE)
    for path, target in plan["links"].items():
        tar.link(path, target)
    for path, (overlay, base) in plan["disks"].items():
        with _opened(overlay) as over, _opened(base) as below:
            tar.disk(path, flatten(over, below))
    tar.end()


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
