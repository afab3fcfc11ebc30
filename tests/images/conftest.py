# SPDX-License-Identifier: Apache-2.0
"""An empty target to unpack into, with a canary beside it that nothing may touch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sysd.images import worker
from sysd.images.disk import Format
from sysd.images.stream import Digest

LIMIT = 1 << 26


@dataclass
class Place:
    """Unpacks images in this process, each into a fresh target."""

    base: Path
    target: Path

    @property
    def rootfs(self) -> Path:
        return self.target / "rootfs"

    def unified(self, image: bytes, limit: int = LIMIT) -> dict[str, Any]:
        with self._worker(limit) as run, spooled(image) as file:
            return run.unified(file)

    def split(
        self, metadata: bytes, rootfs: bytes, limit: int = LIMIT, form: Format | None = None, *, vm: bool = False
    ) -> dict[str, Any]:
        with self._worker(limit, vm=vm) as run, spooled(metadata) as first, spooled(rootfs) as second:
            return run.split(first, second, form)

    def built(self, rootfs: bytes, facts: str, limit: int = LIMIT, *, vm: bool = False) -> dict[str, Any]:
        with self._worker(limit, vm=vm) as run, spooled(rootfs) as file:
            return run.built(file, facts)

    def bare(self, disk: bytes, form: Format, facts: str, limit: int = LIMIT) -> dict[str, Any]:
        with self._worker(limit) as run, spooled(disk) as file:
            return run.bare(file, form, facts)

    @contextmanager
    def _worker(self, limit: int, *, vm: bool = False) -> Iterator[worker.Worker]:
        self.target = Path(tempfile.mkdtemp(dir=self.base / "store"))
        fd = os.open(self.target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield worker.Worker(fd, limit, Digest(), vm=vm)
        finally:
            os.close(fd)


@contextmanager
def spooled(data: bytes) -> Iterator[int]:
    """A descriptor from which data can be read."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def snapshot(path: Path) -> list[tuple[str, int, int, int, bytes]]:
    """Everything below path with what an attack would change."""
    found = []
    for item in sorted(path.rglob("*")):
        info = item.lstat()
        content = item.read_bytes() if item.is_file() and not item.is_symlink() else b""
        found.append((str(item), info.st_mode, info.st_nlink, info.st_mtime_ns, content))
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    assert os.geteuid() == 0, "these tests give files to other users: run them as root"
    monkeypatch.setattr(worker, "flush", lambda fd: None)
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("unharmed")
    (tmp_path / "store").mkdir()
    before = snapshot(canary)
    descriptors = len(os.listdir("/proc/self/fd"))
    yield Place(tmp_path, tmp_path / "store")
    assert snapshot(canary) == before
    assert sorted(os.listdir(tmp_path)) == ["canary", "store"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors, "a descriptor was left open"
