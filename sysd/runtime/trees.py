# SPDX-License-Identifier: Apache-2.0
"""Removing trees that guests have written to: any depth, no link followed."""

from __future__ import annotations

import os
from pathlib import Path

MAX_DEPTH = 32


def remove_tree(path: Path) -> None:
    """Remove path and all below it, if it is there. Deeper folders are moved up first, so that
    neither the stack nor open descriptors grow with a tree that is made to be deep."""
    try:
        top = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        root = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return
    try:
        counter = 0
        while True:
            lifted = _empty(root, root, 0, counter)
            if lifted == counter:
                break
            counter = lifted
        os.rmdir(path.name, dir_fd=top)
    finally:
        os.close(root)
        os.close(top)


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
