# SPDX-License-Identifier: Apache-2.0
"""throughput.py FROM TO ADDRESS SECONDS: floods a port of an address with datagrams out of one process' network
namespace; prints the bits a second that arrive in the other's."""

import os
import socket
import sys
import threading
import time

SIZE = 1200
PORT = 9999
SO_RCVBUFFORCE = 33


def opened(process: int) -> socket.socket:
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    os.setns(namespace, os.CLONE_NEWNET)  # type: ignore[attr-defined]  # Python 3.12's
    os.close(namespace)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def flood(sock: socket.socket, address: str, until: float) -> None:
    while time.monotonic() < until:
        try:
            sock.sendto(bytes(SIZE), (address, PORT))
        except OSError:
            time.sleep(0.001)


def main() -> None:
    sender, receiver = opened(int(sys.argv[1])), opened(int(sys.argv[2]))
    address, seconds = sys.argv[3], float(sys.argv[4])
    receiver.bind((address, PORT))
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    receiver.settimeout(0.2)
    # What passes at once at first is not the rate.
    until = time.monotonic() + seconds + 1
    thread = threading.Thread(target=flood, args=(sender, address, until))
    thread.start()
    begin, counted = 0.0, 0
    while time.monotonic() < until:
        try:
            size = len(receiver.recv(65536))
        except TimeoutError:
            continue
        if time.monotonic() > until - seconds:
            begin = begin or time.monotonic()
            counted += size + 28 + 14
    thread.join()
    print(int(counted * 8 / seconds))


main()
