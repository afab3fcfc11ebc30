# SPDX-License-Identifier: Apache-2.0
"""delays.py SECONDS: asks the daemon for something small again and again; prints as JSON how long each answer took, in
seconds, the longest first."""

import json
import socket
import sys
import time

PATH = "/run/syscont/org.syscont.Manager"
ASKED = b'{"method":"org.syscont.Manager.ListProfiles","parameters":{}}\0'
PAUSE = 0.002


def ask() -> float:
    begin = time.monotonic()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(PATH)
        sock.sendall(ASKED)
        while not sock.recv(1 << 16).endswith(b"\0"):
            pass
    return time.monotonic() - begin


end = time.monotonic() + float(sys.argv[1])
delays = []
while time.monotonic() < end:
    delays.append(ask())
    time.sleep(PAUSE)
print(json.dumps(sorted(delays, reverse=True)))
