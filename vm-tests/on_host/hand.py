# SPDX-License-Identifier: Apache-2.0
"""hand.py OWNER TASKS: hand things to the one process of a user, by launch-vm, as TASKS (JSON) say one after the other.
Prints as JSON for each what was said, and what is in the process's /dev/vfio then, with owners."""

import json
import os
import subprocess
import sys
from pathlib import Path

LAUNCHER = "/usr/libexec/syscont/launch-vm"


def tree(folder: Path) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = os.readlink(path) if path.is_symlink() else path.lstat().st_uid
    return found


def main(owner: int, tasks: list[dict[str, object]]) -> None:
    (pid,) = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and one.stat().st_uid == owner]
    pidfd = os.pidfd_open(pid)
    results = []
    for task in tasks:
        done = subprocess.run(
            [LAUNCHER, "--hand", str(pidfd)], input=json.dumps(task), capture_output=True, text=True, pass_fds=[pidfd]
        )
        results.append([done.stderr.strip(), tree(Path(f"/proc/{pid}/root/dev/vfio"))])
    print(json.dumps(results))


main(int(sys.argv[1]), json.loads(sys.argv[2]))
