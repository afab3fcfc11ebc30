# SPDX-License-Identifier: Apache-2.0
"""Disks of stopped virtual machines, made larger."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from sysd.model.errors import FailedError, UnsupportedError

TOOL = "/usr/bin/qemu-img"


async def grow(disk: Path, size: int) -> None:
    """Let a disk have so many bytes, which is more than it has. It is one of ours, and names no other file."""
    argv = [TOOL, "resize", "-q", "-f", "qcow2", "--", str(disk), str(size)]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise UnsupportedError("disks can't be made larger: qemu-img is missing", "apt install qemu-utils") from None
    _, errors = await process.communicate()
    if process.returncode:
        raise FailedError(f"the disk can't be made larger: {errors.decode(errors='replace').strip()[:300]}")
