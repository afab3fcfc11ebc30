# SPDX-License-Identifier: Apache-2.0
"""No way around the rules of projects: instances are stored and tabled by the register alone."""

from __future__ import annotations

import re
from pathlib import Path

import sysd

ROOT = Path(sysd.__file__).parent
WRITES = re.compile(r"(_store\.(put|delete)_instance|_table\.(add|rename|remove))\b")
MAY = {
    "manager/register.py",
    "manager/table.py",
    "manager/manager.py",  # what the store has, at start
    "store/database.py",
}


def test_only_the_register_writes_instances() -> None:
    writers = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if WRITES.search(path.read_text())
    }
    assert writers <= MAY, "use Instances' register: it asks the project's rules"
