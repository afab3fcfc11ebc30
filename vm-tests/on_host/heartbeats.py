# SPDX-License-Identifier: Apache-2.0
"""Hear what a guest says: heartbeats by UDP, and numbers by one TCP connection that never ends. For each line on its
standard input it prints, as JSON, what has come since the one before.

heartbeats.py ADDRESS PORT
"""

import json
import select
import socket
import struct
import sys
import time
from itertools import pairwise

BEAT = struct.Struct("<Q")


class Ears:
    def __init__(self, address: str, port: int) -> None:
        self.beats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.beats.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.beats.bind((address, port))
        self.beats.setblocking(False)
        self.door = socket.create_server((address, port))
        self.guest: socket.socket | None = None
        self.rest = b""
        self.expected = 0
        self.broken = ""
        self.begin()

    def begin(self) -> None:
        self.heard: list[tuple[float, int]] = []
        self.stream = 0

    def listen(self) -> None:
        ready, _, _ = select.select([sys.stdin, self.beats, self.guest or self.door], [], [])
        if self.beats in ready:
            self.hear()
        if self.door in ready:
            self.guest, _ = self.door.accept()
        elif self.guest in ready and self.guest:
            self.read(self.guest)
        if sys.stdin in ready:
            if not sys.stdin.readline():
                raise SystemExit
            self.tell()

    def hear(self) -> None:
        try:
            while True:
                number = BEAT.unpack(self.beats.recv(BEAT.size))[0]
                self.heard.append((time.monotonic(), number))
        except BlockingIOError:
            return

    def read(self, guest: socket.socket) -> None:
        data = guest.recv(1 << 16)
        if not data:
            self.broken = self.broken or "closed by the guest"
            self.guest, self.rest = None, b""
            return
        whole = self.rest + data
        end = len(whole) - len(whole) % BEAT.size
        self.rest = whole[end:]
        for (number,) in BEAT.iter_unpack(whole[:end]):
            if number != self.expected:
                self.broken = self.broken or f"{number} came for {self.expected}"
            self.expected = number + 1
            self.stream += 1

    def tell(self) -> None:
        times = [moment for moment, _ in self.heard]
        gaps = sorted(after - before for before, after in pairwise(times)) or [0.0]
        numbers = {number for _, number in self.heard}
        found = {
            "heard": len(self.heard),
            "missing": max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0,
            "longest": gaps[-1],
            "usual": gaps[len(gaps) // 2],
            "stream": self.stream,
            "broken": self.broken,
        }
        print(json.dumps(found), flush=True)
        self.begin()


def main() -> None:
    ears = Ears(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    while True:
        ears.listen()


main()
