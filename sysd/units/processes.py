# SPDX-License-Identifier: Apache-2.0
"""Whose a process is, by its cgroup. What a guest does below its own unit's cgroup can't change the answer."""

from __future__ import annotations

import os
import select
import socket
import struct
from pathlib import Path

from sysd.model.names import from_unit_name

SO_PEERPIDFD = 77


def unit_of(pid: int) -> str:
    """The instance's unit that a process runs in, empty if in none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    _, top, *parts = [*path.split("/"), ""]
    # The outermost: guests name cgroups of their own as they like.
    return next((part for part in parts if from_unit_name(part)), "") if top == "syscont.slice" else ""


def peer_is_in(sock: socket.socket, unit: str) -> bool:
    """Whether the process that connected to us still lives, and is one of unit's."""
    try:
        pidfd = _peer_pidfd(sock)
    except OSError:
        return False
    try:
        pid = _pid(pidfd)
        # While it lives its number can't be another's, so it is asked last whether it does.
        return pid > 0 and unit_of(pid) == unit and not _ended(pidfd)
    finally:
        os.close(pidfd)


def _peer_pidfd(sock: socket.socket) -> int:
    try:
        return int(struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0])
    except OSError:
        # Before Linux 6.5 there is only the number. If that is another's by now, then its unit is most likely, too.
        pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return os.pidfd_open(pid)


def _pid(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
