# SPDX-License-Identifier: Apache-2.0
"""Folders: made sure of on disk; removed with all that guests have put below, any depth, no link followed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MAX_DEPTH = 32


def sync_directory(path: Path) -> None:
    """Wait until path's entries are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove path and all below it, if it is there. Deeper folders are moved up first, so that
    neither the stack nor open descriptors grow with a tree that is made to be deep."""
    with contextlib.ExitStack() as stack:

        def opened(name: str | Path, flags: int = 0, at: int | None = None) -> int:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags, dir_fd=at)
            stack.callback(os.close, fd)
            return fd

        try:
            top = opened(path.parent)
            root = opened(path.name, os.O_NOFOLLOW, top)
        except FileNotFoundError:
            return
        counter = 0
        while True:
            lifted = _empty(root, root, 0, counter)
            if lifted == counter:
                break
            counter = lifted
        os.rmdir(path.name, dir_fd=top)


def _empty(root: int, directory: int, depth: int, counter: int) -> int:
    """Remove what is in directory; returns counter, raised by the folders that were moved to root."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif depth >= MAX_DEPTH:
            counter += 1
            os.rename(name, f".lifted-{counter}", src_dir_fd=directory, dst_dir_fd=root)
        else:
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                counter = _empty(root, child, depth + 1, counter)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
    return counter
