# SPDX-License-Identifier: Apache-2.0
"""ssh to a virtual machine: each in a unit of its own, syscont-ssh@, which runs sysd/_cext/session.c in a sandbox.

Who is at the other end is known from where the connection leads (a context id of vsock, a port of the machine's own):
keys of hosts prove nothing more. The key of ours lets us in.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from sysd.model.errors import FailedError
from sysd.runtime.execute import Command
from sysd.runtime.vm import keys
from sysd.runtime.vm.background import Background
from sysd.units.answers import clean

SERVICE = "/run/syscont/ssh"
PROGRAM = "/usr/libexec/syscont/session"
SSH = "/usr/bin/ssh"
LOST = 255
"""ssh's own status when something is wrong, which may be a command's as well: its log tells which."""
MAX_ANSWER = 8192
CONNECT_LIMIT = 60
"""Seconds, until the other side has said who it is and let us in: it may run without hardware's help."""

_OPTIONS = {
    "BatchMode": "yes",
    "CheckHostIP": "no",
    "Ciphers": "^aes128-gcm@openssh.com",
    "ClearAllForwardings": "yes",
    "Compression": "no",
    "ConnectTimeout": str(CONNECT_LIMIT),
    "ControlMaster": "no",
    "ControlPath": "none",
    "EscapeChar": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "GlobalKnownHostsFile": "/dev/null",
    "GSSAPIAuthentication": "no",
    "HostbasedAuthentication": "no",
    # The other side is known already, and may be emulated: nothing costly.
    "KexAlgorithms": "^curve25519-sha256",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PermitLocalCommand": "no",
    "PreferredAuthentications": "publickey",
    "ProxyUseFdpass": "yes",
    "StrictHostKeyChecking": "no",
    "TCPKeepAlive": "no",
    "Tunnel": "no",
    "UpdateHostKeys": "no",
    "User": "root",
    "UserKnownHostsFile": "/dev/null",
}
_KILLED = re.compile(r"Killed by signal ([0-9]{1,2})\.", re.ASCII)
_STATUS = re.compile(r"debug1: Exit status (-?[0-9]+)", re.ASCII)

Kill = Callable[[int], Awaitable[None]]


class SshSession:
    """Satisfies sysd.runtime.session.Session. kill sends a signal to the command in the guest; on_end is called once,
    when the connection is not needed any more."""

    def __init__(self, watcher: socket.socket, terminal: int, kill: Kill, on_end: Callable[[], None]) -> None:
        self.terminal = terminal
        self._watcher = watcher
        self._background = Background()
        self._kill = kill
        self._on_end = on_end
        self._ended = False

    async def wait(self, otherwise: int = signal.SIGHUP) -> int:
        try:
            answer = await asyncio.get_running_loop().sock_recv(self._watcher, MAX_ANSWER)
        except BaseException:
            self.abandon(otherwise)
            raise
        self._end()
        return read_answer(answer)

    def signal(self, number: int) -> None:
        """On its way when this returns; one after the other."""
        if not self._ended:
            self._background.run(self._kill(number))

    def abandon(self, number: int) -> None:
        self.signal(number)
        self._end()

    def lose(self) -> None:
        """The guest's side is gone, and nothing more will come."""
        if not self._ended:
            self._watcher.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._watcher.close()
            self._on_end()


def nothing() -> None:
    return


def start(where: str, line: str, command: Command, kill: Kill, on_end: Callable[[], None] = nothing) -> SshSession:
    """Run line in the login shell of a guest's root. where is vsock:CID:PORT, or the path of a socket."""
    with ExitStack() as stack:

        def owned(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        terminal = -1
        if command.tty:
            terminal, ours = pty.openpty()
            passed = [owned(ours)] * 3
            _resize(ours, command.size)
        else:
            null = owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
            passed = [null if fd < 0 else fd for fd in command.stdio]
        try:
            watcher = _ask([*passed, owned(_words(where, line, command.tty))])
        except BaseException:
            if terminal >= 0:
                os.close(terminal)
            raise
    return SshSession(watcher, terminal, kill, on_end)


def words(where: str, line: str, tty: bool) -> list[str]:
    """ssh as session.c is to start it."""
    # The line that says how the command ended is of the level DEBUG1, but so is a farewell on the terminal.
    level = "ERROR" if tty else "DEBUG1"
    options = _OPTIONS | {
        "LogLevel": level,
        "ProxyCommand": f"{PROGRAM} {where}",
        "IdentityFile": str(keys.FOLDER / keys.NAME),
    }
    pairs = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return [SSH, "-F", "none", "-E", "%LOG%", "-tt" if tty else "-T", *pairs, "--", "instance", line]


def read_answer(answer: bytes) -> int:
    """The command's status, from ssh's and the end of its log. The guest may have a say in that log, and so lie about
    what is its own anyway."""
    if len(answer) < 4:
        raise FailedError("the connection to the instance was lost", "how the command ended is not known")
    (status,) = struct.unpack_from("i", answer)
    log = answer[4:].decode(errors="replace").splitlines()
    said = [int(found[1]) for line in log if (found := _STATUS.match(line))]
    why = [line for line in log if line and not line.startswith("debug1: ")]
    if status != LOST or said[-1:] == [LOST] or not log:
        return int(status)
    if why and (hung_up := _KILLED.match(why[-1])):
        return 128 + int(hung_up[1])
    if said:
        raise FailedError("the connection to the instance was lost", "how the command ended is not known")
    raise FailedError(f"the instance lets no command in: {clean(why[-1]) if why else 'ssh ended'}")


def _resize(terminal: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _words(where: str, line: str, tty: bool) -> int:
    fd = os.memfd_create("words", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as stream:
        for word in ("1" if tty else "0", *words(where, line, tty)):
            stream.write(os.fsencode(word) + b"\0")
    return fd


def _ask(passed: list[int]) -> socket.socket:
    watcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        watcher.connect(SERVICE)
        socket.send_fds(watcher, [b"c"], passed)
    except OSError as error:
        watcher.close()
        why = f"the service that starts ssh does not answer: {error.strerror}"
        raise FailedError(why, "see 'systemctl status syscont-ssh.socket'") from None
    return watcher
