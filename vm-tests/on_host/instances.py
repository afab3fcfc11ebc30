# SPDX-License-Identifier: Apache-2.0
"""instances.py create|change COUNT NETWORK PREFIX [SECONDS]: launches instances with static addresses, or gives them
others; PREFIX has the first three numbers of the first address. Spread over so many seconds; prints how many it
took."""

import json
import socket
import sys
import time
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


verb, count, network, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
pause = float(sys.argv[5]) / count if len(sys.argv) > 5 else 0.0
base, _, third = prefix.rpartition(".")
begin = time.monotonic()
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(PATH)
    for number in range(count):
        address = f"{base}.{int(third) + number // 250}.{number % 250 + 1}"
        nic = {"type": "nic", "network": network, "ipv4.address": address}
        if verb == "create":
            call("CreateInstance", name=f"many{number}", image="busybox", devices={"eth0": nic}, start=True)
        else:
            call("ChangeDevice", name=f"many{number}", device="eth0", set={"ipv4.address": address})
        time.sleep(max(0.0, begin + pause * (number + 1) - time.monotonic()))
print(time.monotonic() - begin)
