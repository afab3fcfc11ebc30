#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Check that data files parse and that every file of the project names its licence."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

MARK = "SPDX-License-Identifier: Apache-2.0"
XML_SUFFIXES = {".xml", ".policy"}
# Formats without comments, and texts of others.
UNMARKED = {".gitignore", "LICENSE", "debian/changelog", "debian/control", "debian/copyright", "debian/source/format"}
UNMARKED_SUFFIXES = {".md", ".docs", ".json", ".txt", ".defconfig", ".typed"}


def project_files(root: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [root / name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def _is_xml(path: Path) -> bool:
    return path.suffix in XML_SUFFIXES or "dbus-1/system.d" in path.as_posix()


def _unmarked(root: Path, path: Path) -> bool:
    name = path.relative_to(root).as_posix()
    return path.is_symlink() or name in UNMARKED or path.suffix in UNMARKED_SUFFIXES or not path.stat().st_size


def check(root: Path) -> Iterator[str]:
    for path in project_files(root):
        content = path.read_bytes()
        if b"\0" not in content and not _unmarked(root, path) and MARK.encode() not in content[:1024]:
            yield f"{path}: no line '{MARK}' at its top"
        if _is_xml(path):
            try:
                ET.fromstring(content)
            except ET.ParseError as error:
                yield f"{path}: {error}"


def main() -> int:
    complaints = list(check(Path(__file__).resolve().parent.parent))
    for line in complaints:
        print(line, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
