# SPDX-License-Identifier: Apache-2.0
"""What a running machine is given past its monitor: by a process with the host's rights (sysd/_cext/launch/hand.c)."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
from collections.abc import Mapping
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime import reaching
from sysd.runtime.vm.machine import MachineGuest

LAUNCHER = "/usr/libexec/syscont/launch-vm"


async def macvtap(machine: MachineGuest, name: str, request: str) -> int:
    """A descriptor, the caller's to close, of a link that the request makes for it alone. Raises FailedError."""
    task = {"macvtap": {"name": name, "data": request}, "leader": machine.leader}
    with contextlib.ExitStack() as closing:
        ours = closing.enter_context(await _hand(machine, task))
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise FailedError(f"link {name} could not be opened")
    os.set_inheritable(fds[0], False)
    return fds[0]


async def functions(machine: MachineGuest, groups: Mapping[str, str]) -> None:
    """Have QEMU see these PCI functions' groups, and no others. Raises FailedError."""
    owner = int(machine.spec["owner"])
    (await _hand(machine, {"functions": dict(groups), "owner": owner})).close()


def lock_memory(machine: MachineGuest, most: int) -> None:
    """Let it keep so many bytes where they are."""
    try:
        resource.prlimit(machine.leader, resource.RLIMIT_MEMLOCK, (most, most))
    except OSError as error:
        raise FailedError(f"{machine.name} can't be let lock its memory: {error.strerror}") from None


async def _hand(machine: MachineGuest, task: Mapping[str, Any]) -> socket.socket:
    """The stream on which what was opened has come back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    late, failed = "the host's kernel does not answer", "it could not be given to the machine"
    try:
        with theirs:
            ours.sendall(json.dumps(task).encode())
            ours.shutdown(socket.SHUT_WR)
            await reaching.run([LAUNCHER, "--hand"], machine.pidfd, theirs.fileno(), late=late, failed=failed)
    except BaseException:
        ours.close()
        raise
    return ours
