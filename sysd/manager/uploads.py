# SPDX-License-Identifier: Apache-2.0
"""What comes in to become an image: descriptors, and what was said of them."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sysd.images.disk import Format
from sysd.images.metadata import host_architecture
from sysd.model.errors import InvalidError

MAX_METADATA = 16 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """Descriptors of what to import; either unified, or metadata and rootfs. The importer closes them.

    vm: the root file system becomes the disk of a virtual machine. form, one of Format's values: unified or rootfs is
    such a disk.
    """

    unified: int = -1
    metadata: int = -1
    rootfs: int = -1
    vm: bool = False
    form: str = ""

    @property
    def main(self) -> int:
        """The one that the worker reads itself."""
        return self.rootfs if self.rootfs >= 0 else self.unified

    def check(self) -> None:
        """Only what can be read without surprises, as Upload's docstring says; raises InvalidError."""
        if (self.unified >= 0) == (self.rootfs >= 0) or (self.rootfs >= 0) != (self.metadata >= 0):
            raise InvalidError("give one image file, or a metadata file and a root file system")
        if self.form and self.form not in list(Format):
            raise InvalidError(f"unknown format of a disk {self.form[:40]!r}", f"known: {', '.join(Format)}")
        for fd in self.all():
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise InvalidError("an image must come from a regular file or a pipe")

    def arguments(self, metadata: Path) -> list[str]:
        """What the worker is told, whose standard input is main; the metadata archive is in a file by then."""
        files = ["--metadata", str(metadata), "--rootfs", "0"] if self.rootfs >= 0 else ["--image", "0"]
        stated = ["--format", self.form, "--facts", json.dumps(_facts())] if self.form else []
        return [*files, *stated, *(["--vm"] if self.vm else [])]

    def all(self) -> list[int]:
        return [fd for fd in (self.unified, self.metadata, self.rootfs) if fd >= 0]

    def close(self) -> None:
        for fd in self.all():
            os.close(fd)


def _facts() -> dict[str, str]:
    """Of a disk that comes without metadata."""
    return {"architecture": host_architecture(), "description": "disk of a virtual machine"}


async def spool(fd: int, path: Path) -> None:
    """Copy what is to be read from fd. A pipe is waited for here, where that takes no thread and can be cancelled."""
    is_pipe, size = stat.S_ISFIFO(os.fstat(fd).st_mode), 0
    with path.open("xb") as target:
        while True:
            if is_pipe:
                await _readable(fd)
            try:
                data = await asyncio.to_thread(os.read, fd, 1 << 20)
            except BlockingIOError:
                continue
            if not data:
                return
            size += len(data)
            if size > MAX_METADATA:
                raise InvalidError("the metadata archive is too large", f"at most {MAX_METADATA >> 20} MiB")
            target.write(data)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
