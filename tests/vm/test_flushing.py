# SPDX-License-Identifier: Apache-2.0
"""What is written to a file is on the disk before the block begins, and soon after it was written in it."""

import asyncio
import os
from pathlib import Path

import pytest

from sysd.runtime.vm import flushing


def test_it_is_flushed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.touch()
    other.touch()
    flushed: list[int] = []
    monkeypatch.setattr(flushing, "_PERIOD", 0.01)
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.fstat(fd).st_ino))

    async def write() -> int:
        async with flushing.kept_flushed(disk):
            assert len(flushed) == 1
            while len(flushed) < 4:
                await asyncio.sleep(0.01)
        count = len(flushed)
        await asyncio.sleep(0.05)
        return count

    assert asyncio.run(asyncio.wait_for(write(), 10)) >= len(flushed) - 1, "it ends, but for one under way"
    assert set(flushed) == {disk.stat().st_ino}


def test_a_file_that_can_t_be_flushed_is_qemu_s_to_tell(tmp_path: Path) -> None:
    async def write() -> str:
        async with flushing.kept_flushed(tmp_path / "nothing"):
            return "done"

    assert asyncio.run(write()) == "done"
