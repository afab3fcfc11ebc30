# SPDX-License-Identifier: Apache-2.0
"""frames.py TASK: sends frames out of one network namespace and says which of them arrive in another.

TASK is JSON: from and to, processes in the namespaces; link, by which is sent and received; frames, by name in hex,
those of one name with commas between. Each has its name in it, between NULs. Prints the names of those that arrived."""

import json
import os
import select
import socket
import sys
import time

PATIENCE = 0.5


def opened(process: int, link: str) -> socket.socket:
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    os.setns(namespace, os.CLONE_NEWNET)  # type: ignore[attr-defined]  # Python 3.12's
    os.close(namespace)
    everything = socket.htons(3)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)
    sock.bind((link, 3))
    return sock


def main() -> None:
    task = json.loads(sys.argv[1])
    receiver = opened(task["to"], task["link"])
    sender = opened(task["from"], task["link"])
    for frames in task["frames"].values():
        for frame in frames.split(","):
            sender.send(bytes.fromhex(frame))
    arrived = set()
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([receiver], [], [], left)[0]:
            continue
        data, source = receiver.recvfrom(65536)
        if source[2] != socket.PACKET_OUTGOING:
            arrived |= {name for name in task["frames"] if b"\0" + name.encode() + b"\0" in data}
    print(json.dumps(sorted(arrived)))


main()
