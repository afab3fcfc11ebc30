# SPDX-License-Identifier: Apache-2.0
"""Run a command on a terminal of its own, type when something appears, tell what it showed."""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

task = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    time.sleep(0.05)  # until the size is set
    os.execvp(task["argv"][0], task["argv"])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *task["size"], 0, 0))

output, mark = "", 0
deadline = time.monotonic() + task["patience"]
steps = [tuple(step) for step in task["steps"]]
missing = None


def read() -> bool:
    """Whether there may be more to come."""
    global output
    if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        return False
    try:
        data = os.read(terminal, 65536)
    except OSError:
        return False
    output += data.decode(errors="replace")
    return bool(data)


for wanted, typed in steps:
    while wanted not in output[mark:]:
        if not read():
            missing = wanted
            break
    if missing is not None:
        break
    mark = output.index(wanted, mark) + len(wanted)
    os.write(terminal, typed.encode())
while missing is None and read():
    pass
if missing is not None or time.monotonic() > deadline:
    os.kill(pid, 9)
    missing = missing or "its end"
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"status": code, "output": output, "missing": missing}))
