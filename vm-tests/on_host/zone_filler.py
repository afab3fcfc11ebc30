# SPDX-License-Identifier: Apache-2.0
"""zone_filler.py ZONE COUNT [SECONDS]: gives names of their own, host0 and so on, records of a zone, one call after the
other; with SECONDS gives those that have them others, spread over so long, and prints the seconds that it took."""

import json
import socket
import sys
import time
from typing import Any

PATH = "/run/syscont/org.syscont.Manager"
BEFORE, AFTER = 10, 11


def call(method: str, **parameters: Any) -> None:
    message = {"method": f"org.syscont.Manager.{method}", "parameters": {"zone": zone, **parameters}}
    sock.sendall(json.dumps(message).encode() + b"\0")
    answer = b""
    while not answer.endswith(b"\0"):
        answer += sock.recv(1 << 16)
    if "error" in (found := json.loads(answer[:-1])):
        sys.exit(str(found))


def entry(number: int, first: int) -> dict[str, Any]:
    return {"type": "A", "value": ".".join(str(part) for part in (first, *number.to_bytes(3, "big")))}


zone, count = sys.argv[1], int(sys.argv[2])
begin = time.monotonic()
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(PATH)
    for number in range(count):
        name = f"host{number}"
        if len(sys.argv) == 3:
            call("CreateZoneRecord", name=name, entries=[{**entry(number, BEFORE), "ttl": 300}])
        else:
            call("AddZoneEntry", name=name, **entry(number, AFTER))
            call("RemoveZoneEntry", name=name, **entry(number, BEFORE))
            time.sleep(max(0.0, begin + float(sys.argv[3]) * (number + 1) / count - time.monotonic()))
print(time.monotonic() - begin)
