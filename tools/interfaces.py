# SPDX-License-Identifier: Apache-2.0
"""Writes data/dbus-1/interfaces from the daemon's own tables: run it when an interface changes."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

from sysd.dbus.interface import Interface, document
from sysd.dbus.manager import ManagerObject

FOLDER = Path(__file__).resolve().parent.parent / "data/dbus-1/interfaces"


def interfaces() -> list[Interface]:
    """All that the daemon serves. The tables need no running manager, only something to point at."""
    main = ManagerObject(MagicMock(), MagicMock())
    return [main.interface(), *(kind.interface for kind in main.kinds())]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for interface in interfaces():
        (FOLDER / f"{interface.name}.xml").write_text(document(interface))


if __name__ == "__main__":
    main()
