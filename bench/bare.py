# SPDX-License-Identifier: Apache-2.0
"""bare.py PROGRAM ARGUMENTS...: starts a QEMU that stands still, has it run, and ends it; prints the seconds from its
start to its guest's first instruction. Runs on the host that is measured."""

from __future__ import annotations

import re
import subprocess
import sys
import time

SAY = b'{"execute": "qmp_capabilities"} {"execute": "cont"} {"execute": "quit"}'
RUNS = re.compile(rb"@([0-9]+\.[0-9]+):vm_state_notify running 1 ")

begin = time.time()
done = subprocess.run(sys.argv[1:], input=SAY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
found = RUNS.search(done.stderr)
if not found:
    sys.exit(f"it did not run: {done.stderr!r}")
print(float(found[1]) - begin)
