# SPDX-License-Identifier: Apache-2.0
"""at_event.py SOCKET NAME KEY=VALUE... -- SCRIPT: run a shell script as soon as QEMU tells of an event with these data.

It prints "watching" before, and "done" after.
"""

import json
import socket
import subprocess
import sys

place, name, *rest = sys.argv[1:]
data = dict(word.split("=", 1) for word in rest[: rest.index("--")])
(script,) = rest[rest.index("--") + 1 :]
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    sock.connect(place)
    lines = sock.makefile("rw")
    lines.readline()
    print(json.dumps({"execute": "qmp_capabilities"}), file=lines, flush=True)
    lines.readline()
    print("watching", flush=True)
    for line in lines:
        said = json.loads(line)
        found = said.get("data", {})
        if said.get("event") == name and all(str(found.get(key)) == value for key, value in data.items()):
            break
    else:
        sys.exit("QEMU went away")
    subprocess.run(["sh", "-ec", script], check=True)
print("done", flush=True)
