# SPDX-License-Identifier: Apache-2.0
"""What a running machine is given past its monitor: by a process with the host's rights (sysd/_cext/launch/hand.c)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
from collections.abc import Mapping
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime.vm.machine import MachineGuest

LAUNCHER = "/usr/libexec/syscont/launch-vm"
LIMIT = 15.0


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
    pidfd = os.dup(machine.pidfd)  # that of a machine that ends meanwhile is closed
    try:
        with theirs:
            ours.sendall(json.dumps(task).encode())
            ours.shutdown(socket.SHUT_WR)
            await _run(theirs.fileno(), pidfd)
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(pidfd)
    return ours


async def _run(stdin: int, pidfd: int) -> None:
    process = await asyncio.create_subprocess_exec(
        LAUNCHER, "--hand", str(pidfd), stdin=stdin, stderr=asyncio.subprocess.PIPE, pass_fds=[pidfd]
    )
    try:
        async with asyncio.timeout(LIMIT):
            _, stderr = await process.communicate()
    except TimeoutError:
        raise FailedError("the host's kernel does not answer") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(lines[-1] if lines else "it could not be given to the machine")
