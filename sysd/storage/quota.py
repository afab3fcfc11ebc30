# SPDX-License-Identifier: Apache-2.0
"""Quotas of folders by projects, numbers that files inherit from the folder in which they are made: the file system
counts what each project takes, and holds it to a limit (ext4 and xfs, mounted with prjquota).

Sources: quotactl(2), xfs_quota(8), ext4(5). A file can't be moved or linked to a folder of another project (EXDEV).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sysd import _cext as c
from sysd.model.sizes import Usage


def is_limited(folder: Path) -> bool:
    """Whether the file system of a folder holds projects to limits. btrfs, and whatever is mounted without the option,
    says that it knows no such call, or no such quota."""
    try:
        with _opened(folder) as fd:
            return c.limits_projects(fd)
    except OSError:
        return False


def project_of(folder: Path) -> int:
    """The project of a folder, 0 also where there are none."""
    try:
        with _opened(folder) as fd:
            return c.project_of(fd)
    except OSError:
        return 0


def assign(folder: Path, project: int) -> None:
    """Give an empty folder, and all that will be in it, to a project."""
    with _opened(folder) as fd:
        c.set_project(fd, project)


def usage(folder: Path, project: int) -> Usage:
    """Bytes of a project on the file system of a folder; most is 0 when there is no limit."""
    with _opened(folder) as fd:
        return Usage(*c.project_quota(fd, project))


def limit(folder: Path, project: int, size: int) -> None:
    """Hold a project, on the file system of a folder, to so many bytes; 0 for no limit."""
    with _opened(folder) as fd:
        c.limit_project(fd, project, size)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
