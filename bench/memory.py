# SPDX-License-Identifier: Apache-2.0
"""Memory of a rival's daemon, and of the processes that it keeps for running instances."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hosts import Host

from bench.rivals import Rival

# Prints [[name, RSS, PSS], ...] of the processes given and of those whose name begins with a word.
SCRIPT = """
import json, os, sys
found = []
for pid in os.listdir("/proc"):
    if not pid.isdecimal():
        continue
    try:
        command = open(f"/proc/{pid}/cmdline").read().replace("\\0", " ")
        if pid == sys.argv[1] or command.startswith("[lxc monitor]"):
            rollup = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
            sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in rollup[1:]}
            found.append([pid == sys.argv[1], sizes["Rss:"], sizes["Pss:"]])
    except (FileNotFoundError, ProcessLookupError):
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Memory:
    daemon_rss: int
    daemon_pss: int
    helpers: int
    """Processes kept beside the guests' own, one for each running instance or none."""
    helpers_rss: int
    helpers_pss: int


def memory_of(host: Host, rival: Rival) -> Memory:
    pid = host.sh(f"systemctl show -P MainPID {rival.unit}").strip()
    found = json.loads(host.run(["python3", "-IS", "-c", SCRIPT, pid]).stdout)
    (daemon,) = (row for row in found if row[0])
    helpers = [row for row in found if not row[0]] if rival.keeps_monitors else []
    return Memory(daemon[1], daemon[2], len(helpers), sum(row[1] for row in helpers), sum(row[2] for row in helpers))
