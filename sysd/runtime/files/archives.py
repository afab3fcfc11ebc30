# SPDX-License-Identifier: Apache-2.0
"""Folders of an instance's tree from, and to, archives."""

from __future__ import annotations

import os

from sysd import _cext as c
from sysd.archive.extract import Extractor
from sysd.archive.pack import Packer
from sysd.archive.tape import TarReader
from sysd.model.files import FileRequest, split
from sysd.runtime.files.actions import Result, Tree, read_some, write_all


def push_tree(tree: Tree, request: FileRequest, data: int) -> Result:
    """Extract an archive into a folder."""
    if request.parents:
        tree.make_parents([*split(request.path), ""])
    target = tree.open(request.path, os.O_RDONLY | os.O_DIRECTORY)
    came = 0

    def read(size: int) -> bytes:
        nonlocal came
        chunk = read_some(data, size)
        came += len(chunk)
        tree.progress(came, 0)
        return chunk

    disk = os.fstatvfs(target)
    try:
        extractor = Extractor(target, TarReader(read), disk.f_bavail * disk.f_frsize)
        extractor.run(lambda parts, member: None)
    finally:
        os.close(target)
    return {"size": str(extractor.size)}


def pull_tree(tree: Tree, request: FileRequest, data: int) -> Result:
    """Pack a folder, under its own name, into an archive. Other file systems are left out."""
    top = tree.open(request.path, os.O_RDONLY | os.O_DIRECTORY)
    packer = Packer(
        lambda chunk: write_all(data, chunk),
        open_directory=_open_on_same_mount,
        progress=lambda done: tree.progress(done, 0),
    )
    parts = split(request.path)
    try:
        packer.run(top, os.fsencode(parts[-1]) if parts else b"")
    finally:
        os.close(top)
    return {"size": str(packer.done), "skipped": str(packer.skipped)}


def _open_on_same_mount(name: bytes, parent: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    return c.openat2(parent, os.fsdecode(name), flags, c.RESOLVE_NO_XDEV | c.RESOLVE_BENEATH)
