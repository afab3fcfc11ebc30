# SPDX-License-Identifier: Apache-2.0
"""booted.py COMMAND...: runs a command that starts a virtual machine; prints, as JSON, when it was asked for and the
seconds until the guest's systemd has sent READY=1 to vsock port PORT of the host (systemd's VM interface), or, with
COMMAND's first word --, until the command has ended. Runs on the host that is measured."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

PORT = 9980
PATIENCE = 1800.0


def main() -> None:
    waits, command = sys.argv[1] != "--", [word for word in sys.argv[1:] if word != "--"]
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as server:
        server.bind((socket.VMADDR_CID_ANY, PORT))
        server.listen()
        asked, begin = time.time(), time.monotonic()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while waits and "READY=1" not in heard(server, begin + PATIENCE):
            pass
        print(json.dumps([asked, time.monotonic() - begin]))


def heard(server: socket.socket, deadline: float) -> list[str]:
    """The lines of one message: each comes on a connection of its own."""
    server.settimeout(deadline - time.monotonic())
    connection, _ = server.accept()
    with connection:
        connection.settimeout(60)
        pieces = iter(lambda: connection.recv(4096), b"")
        return b"".join(pieces).decode(errors="replace").splitlines()


main()
