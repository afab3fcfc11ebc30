# SPDX-License-Identifier: Apache-2.0
"""Files of the host opened for writing, which the daemon's own sandbox does not let it do: by a unit that passes the
descriptor on, and ends.

Run as a program it is that unit's: PATH, and rw or ro; its input is a socket.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys

from sysd.model.errors import FailedError
from sysd.units import helper
from sysd.units.answers import clean
from sysd.units.systemd import Systemd

UNIT = "syscont-open@{}.service"
COMMAND = ("/usr/bin/python3", "-I", "-m", "sysd.units.opening")
LIMIT = 30.0
"""Seconds: the file may be on a file system that is away."""
MAX_WORDS = 1000
_numbers = itertools.count(1)


async def open_file(systemd: Systemd, path: str, *, write: bool) -> int:
    """A descriptor of path, the caller's to close; links at its end are not followed. Raises FailedError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        argv = [*COMMAND, path, "rw" if write else "ro"]
        unit = UNIT.format(f"{os.getpid()}-{next(_numbers)}")
        running = await helper.start(
            systemd, helper.Helper(unit, "Open a file for a virtual machine", argv, {}, stdin=theirs.fileno())
        )
        theirs.close()
        try:
            async with asyncio.timeout(LIMIT):
                await _readable(ours)
        except TimeoutError:
            raise FailedError(f"{path} can't be opened: its file system does not answer") from None
        finally:
            await running.stop()
        words, fds, _, _ = socket.recv_fds(ours, MAX_WORDS, 1)
    if not fds:
        raise FailedError(f"{path}: {clean(words.decode(errors='replace')) or 'it could not be opened'}")
    os.set_inheritable(fds[0], False)
    return fds[0]


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def main(path: str, how: str) -> None:
    with socket.socket(fileno=0) as sock:
        try:
            fd = os.open(path, (os.O_RDWR if how == "rw" else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NOCTTY)
        except OSError as error:
            sock.send(str(error.strerror).encode())
        else:
            socket.send_fds(sock, [b"ok"], [fd])


if __name__ == "__main__":
    main(*sys.argv[1:])
