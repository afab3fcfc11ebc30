# SPDX-License-Identifier: Apache-2.0
"""zone_filler.py ZONE COUNT: gives names of their own, host0 and so on, records of a zone, one call after the other."""

import json
import socket
import sys
from typing import Any

PATH = "/run/syscont/org.syscont.Manager"


def call(method: str, **parameters: Any) -> None:
    message = {"method": f"org.syscont.Manager.{method}", "parameters": parameters}
    sock.sendall(json.dumps(message).encode() + b"\0")
    answer = b""
    while not answer.endswith(b"\0"):
        answer += sock.recv(1 << 16)
    if "error" in (found := json.loads(answer[:-1])):
        sys.exit(str(found))


with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(PATH)
    for number in range(int(sys.argv[2])):
        address = ".".join(str(part) for part in (10, *number.to_bytes(3, "big")))
        entry = {"type": "A", "value": address, "ttl": 300}
        call("CreateZoneRecord", zone=sys.argv[1], name=f"host{number}", entries=[entry])
