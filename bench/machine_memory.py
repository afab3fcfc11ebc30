# SPDX-License-Identifier: Apache-2.0
"""machine_memory.py PID GUEST_BYTES: prints the bytes (PSS) that QEMU and the helpers of its machine take beside the
guest's memory. Runs on the host that is measured.

Helpers: whoever shares QEMU's cgroup, or is named virtiofsd or swtpm: no other machine runs.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
_HELPERS = ("virtiofsd", "swtpm")


def beside(pid: int, guest: int) -> int:
    """PSS of all mappings but the one that is as large as the guest's memory, which is no other's."""
    taken, mine = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := _MAPPING.match(line):
            mine = int(found[2], 16) - int(found[1], 16) < guest // 2
        elif mine and line.startswith("Pss:"):
            taken += int(line.split()[1]) * 1024
    return taken


def helpers() -> list[int]:
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if Path(f"/proc/{entry}/comm").read_text().strip() in _HELPERS:
                found.append(int(entry))
        except FileNotFoundError:
            pass
    return found


def main() -> None:
    pid, guest = map(int, sys.argv[1:])
    print(sum(beside(one, guest) for one in (pid, *helpers())))


main()
