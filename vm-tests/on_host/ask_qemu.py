# SPDX-License-Identifier: Apache-2.0
"""ask_qemu.py SOCKET COMMAND: what QEMU returns for a command without arguments, as JSON."""

import json
import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    sock.connect(sys.argv[1])
    lines = sock.makefile("rw")
    lines.readline()
    for command in ("qmp_capabilities", sys.argv[2]):
        print(json.dumps({"execute": command}), file=lines, flush=True)
        while "return" not in (answer := json.loads(lines.readline())) and "error" not in answer:
            pass
print(json.dumps(answer["return"]))
