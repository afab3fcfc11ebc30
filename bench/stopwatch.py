# SPDX-License-Identifier: Apache-2.0
"""Runs in the host: times commands there, so that the way into the host is no part of what is measured.

Each line of input is a JSON list, a command; each line of output is JSON: [seconds, exit status, what it said].
"""

from __future__ import annotations

import json
import os
import sys
import time


def timed(argv: list[str], log: int) -> tuple[float, int, str]:
    os.ftruncate(log, 0)
    os.lseek(log, 0, os.SEEK_SET)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    begin = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - begin
    return seconds, os.waitstatus_to_exitcode(status), os.pread(log, 2000, 0).decode(errors="replace")


def main() -> None:
    log = os.memfd_create("stderr")
    for line in sys.stdin:
        print(json.dumps(timed(json.loads(line), log)), flush=True)


if __name__ == "__main__":
    main()
