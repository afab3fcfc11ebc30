# SPDX-License-Identifier: Apache-2.0
"""What sysfs(5) says of hardware, which may go while it is looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

SYS = Path("/sys")


def entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def read(path: Path) -> str:
    """Empty for what is not there."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def matches(options: Mapping[str, str], vendor: str, product: str) -> bool:
    """Whether a device is what its options vendorid and productid say. Nothing that has no vendor matches."""
    wanted = (options.get("vendorid", "").lower(), options.get("productid", "").lower())
    return bool(vendor) and wanted[0] in ("", vendor.lower()) and wanted[1] in ("", product.lower())
