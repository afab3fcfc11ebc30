# SPDX-License-Identifier: Apache-2.0
"""Folders: made sure of on disk; removed with all that guests have put below, any depth, no link followed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sysd import _cext as c

MAX_DEPTH = 32


def sync_directory(path: Path) -> None:
    """Wait until path's entries are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove path and all below it, if it is there."""
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            remove_beneath(parent, path.name)
    finally:
        os.close(parent)


def remove_beneath(parent: int, name: str) -> None:
    """Remove a folder of another and all below it, but nothing that is mounted there (OSError, EXDEV). Deeper folders
    are moved up first, so that neither the stack nor open descriptors grow with a tree that is made to be deep."""
    root = _open(name, parent)
    try:
        counter = 0
        while (lifted := _empty(root, root, 0, counter)) != counter:
            counter = lifted
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=parent)


def _open(name: str, parent: int) -> int:
    return c.openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, c.RESOLVE_NO_XDEV)


def _empty(root: int, directory: int, depth: int, counter: int) -> int:
    """Remove what is in directory; returns counter, raised by the folders that were moved to root."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with contextlib.suppress(FileNotFoundError):  # in a running guest others remove files too
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif depth >= MAX_DEPTH:
                counter += 1
                os.rename(name, f".lifted-{counter}", src_dir_fd=directory, dst_dir_fd=root)
            else:
                counter = _empty_folder(root, directory, name, depth, counter)
    return counter


def _empty_folder(root: int, parent: int, name: str, depth: int, counter: int) -> int:
    child = _open(name, parent)
    try:
        counter = _empty(root, child, depth + 1, counter)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=parent)
    return counter
