# SPDX-License-Identifier: Apache-2.0
"""Files that are taken out of a stranger's tree: resolved beneath its root, plain, and of a bounded size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sysd.archive.tree import directory, resolve

MAX_FILE = 512 << 20


def is_file(root: int, path: bytes, most: int = MAX_FILE) -> bool:
    found = resolve(root, path)
    return found is not None and stat.S_ISREG(found[1].st_mode) and 0 < found[1].st_size <= most


@contextmanager
def opened(root: int, path: bytes) -> Iterator[int]:
    """A file of which is_file said yes; nobody changes the tree meanwhile."""
    found = resolve(root, path)
    assert found is not None
    with directory(root, found[0][:-1]) as parent:
        fd = os.open(found[0][-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def read(root: int, path: bytes, most: int) -> bytes | None:
    """All of a file of at most that many bytes; None where there is none such."""
    if not is_file(root, path, most):
        return None
    with opened(root, path) as fd, os.fdopen(os.dup(fd), "rb") as stream:
        return stream.read(most)
