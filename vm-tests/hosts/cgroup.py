# SPDX-License-Identifier: Apache-2.0
"""One control group per container host, in a subtree of the harness's own."""

import contextlib
import os
import time
from functools import cache
from pathlib import Path

from .command import HostError

_PARENT = "syscont-hosts"


@cache
def _unified() -> Path:
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.procs").exists():
            return path
    raise HostError("this machine has no unified cgroup tree mounted")


def path_of(name: str) -> Path:
    return _unified() / _PARENT / name


def create(name: str) -> Path:
    path = path_of(name)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _populated(path: Path) -> bool:
    return "populated 1" in (path / "cgroup.events").read_text()


def kill(name: str) -> None:
    """Kill everything in the host's group, and see it gone."""
    path = path_of(name)
    deadline = time.monotonic() + 20
    with contextlib.suppress(FileNotFoundError):
        (path / "cgroup.kill").write_text("1")
        while _populated(path):
            if time.monotonic() > deadline:
                raise HostError(f"processes in {path} can't be killed")
            time.sleep(0.005)


def remove(name: str) -> None:
    # systemd-nspawn makes the same groups in the machine's name=systemd hierarchy too.
    for base in (_unified(), Path("/sys/fs/cgroup/systemd")):
        top = base / _PARENT / name
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        with contextlib.suppress(OSError):
            top.parent.rmdir()
