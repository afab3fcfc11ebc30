# SPDX-License-Identifier: Apache-2.0
"""known.py SERVER NAME COMMAND...: runs a command; prints the seconds from its start until a DNS server has an address
for a name, after the command has ended. Runs on the host that is measured."""

import socket
import struct
import subprocess
import sys
import time

PATIENCE = 30
PAUSE = 0.002


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)


def main() -> None:
    server, name, *command = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((server, 53))
        sock.settimeout(1)
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            sock.send(question(name))
            (answers,) = struct.unpack_from("!H", sock.recv(4096), 6)
            seconds = time.monotonic() - begin
            if answers or seconds > PATIENCE:
                break
            time.sleep(PAUSE)
        if process.wait() or not answers:
            sys.exit(f"{name} did not become known")
        print(seconds)


main()
