# SPDX-License-Identifier: Apache-2.0
"""Commands run in an instance: born in its namespaces and in a leaf of its unit's cgroup."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sysd import _cext
from sysd.model.errors import FailedError, InvalidError, NotFoundError

ATTACH = "/usr/libexec/syscont/attach"
CGROUP_ROOT = "/sys/fs/cgroup"
EXEC_CGROUP = ".syscont"
"""Leaf for executed commands: the guest's own init enables controllers in the root of its tree, where processes
may then no longer be (cgroups(7), "no internal processes")."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_PASSWD = 1 << 20


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    name: str = "root"
    home: str = "/root"
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """user: a name or number of the guest's. stdio: descriptors, -1 for none; unused when tty is set."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = ""
    tty: bool = False
    stdio: tuple[int, int, int] = (-1, -1, -1)

    def close(self) -> None:
        """Close the descriptors of stdio, by whoever owns them."""
        for fd in self.stdio:
            if fd >= 0:
                os.close(fd)

    def check(self) -> None:
        if not self.argv or not self.argv[0]:
            raise InvalidError("no command given")
        texts = [*self.argv, self.cwd, self.user, *self.environment, *self.environment.values()]
        if any("\0" in text for text in texts):
            raise InvalidError("the command has a NUL byte in it")
        if any(not key or "=" in key for key in self.environment):
            raise InvalidError("an environment variable has no name, or '=' in its name")


class Running:
    """A command under way."""

    def __init__(self, pid: int, terminal: int) -> None:
        self.pid = pid
        self.terminal = terminal
        self._pidfd = os.pidfd_open(pid)

    async def wait(self) -> int:
        """Its exit status, 128 plus the number of a signal that ended it."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(self._pidfd, _set, ended)
        try:
            await ended
        finally:
            loop.remove_reader(self._pidfd)
            if not ended.done() or ended.cancelled():
                self.signal(signal.SIGHUP)
                loop.add_reader(self._pidfd, self._reap, loop)
        return self._collect()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        self._collect()

    def _collect(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


async def start(leader: int, pidfd: int, cgroup: str, id_base: int, command: Command) -> Running:
    """Run command in the guest of leader; cgroup is the path of the instance's unit, as systemd says it."""
    command.check()
    user = _find_user(leader, command.user) if command.user else User()
    environment = {
        "PATH": DEFAULT_PATH,
        "HOME": user.home,
        "USER": user.name,
        "LANG": "C.UTF-8",
        "container": "syscont",
        **command.environment,
    }
    with contextlib.ExitStack() as stack:

        def owned(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        report, report_end = (stack.enter_context(end) for end in socket.socketpair())
        terminal, terminal_end = (stack.enter_context(end) for end in socket.socketpair())
        null = owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        passed = [null if fd < 0 else fd for fd in command.stdio]
        passed += [pidfd, owned(open_leaf(cgroup, id_base)), report_end.fileno()]
        passed += [owned(_environment_file(environment))]
        passed += [terminal_end.fileno()] if command.tty else []
        groups = ",".join(map(str, user.groups))
        cwd = command.cwd or user.home
        tty = "7" if command.tty else "-1"
        argv = [ATTACH, "3", "4", "5", "6", tty, str(user.uid), str(user.gid), groups, cwd, *command.argv]
        helper = _spawn(argv, passed)
        report_end.close()
        terminal_end.close()
        pid = await _started(helper, report)
        return Running(pid, await _receive_terminal(terminal) if command.tty else -1)


def _environment_file(environment: Mapping[str, str]) -> int:
    fd = os.memfd_create("environment", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as stream:
        for key, value in environment.items():
            stream.write(os.fsencode(f"{key}={value}") + b"\0")
    return fd


def _spawn(argv: list[str], passed: list[int]) -> int:
    """Start a program with descriptors 0, 1, ... being those of passed, and with no environment."""
    # Through numbers that none of them has, so that none is overwritten before it is used.
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(passed)) for fd in passed]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(lifted)]
        return os.posix_spawn(argv[0], argv, {}, file_actions=actions)
    finally:
        for fd in lifted:
            os.close(fd)


async def _started(helper: int, report: socket.socket) -> int:
    """The command's PID, once the helper has said it and is reaped."""
    report.setblocking(False)
    data = await asyncio.get_running_loop().sock_recv(report, 12)
    os.waitpid(helper, 0)
    middle, pid, failure = struct.unpack("iii", data) if len(data) == 12 else (0, -1, errno.EIO)
    if middle:
        os.waitpid(middle, 0)
    if pid < 0:
        raise FailedError(f"the instance can't be entered: {os.strerror(failure)}")
    return int(pid)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def open_leaf(cgroup: str, id_base: int) -> int:
    path = f"{CGROUP_ROOT}{cgroup}/{EXEC_CGROUP}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
            os.chown(path + name, id_base, id_base)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


async def _receive_terminal(ours: socket.socket) -> int:
    """The terminal's controlling side, or -1 when the command ended before it had one."""
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(ours, _set, readable)
    try:
        await asyncio.wait_for(readable, 10)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    except (TimeoutError, OSError):
        return -1
    finally:
        loop.remove_reader(ours)
    return fds[0] if fds else -1


# The guest's own user database, read as data and never through the host's NSS.


def _read_beneath(root: int, path: str) -> str:
    try:
        fd = _cext.openat2(
            root,
            path,
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            _cext.RESOLVE_IN_ROOT | _cext.RESOLVE_NO_MAGICLINKS,
        )
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with os.fdopen(fd, "rb") as stream, contextlib.suppress(OSError):  # what the guest links to may not be readable
        return stream.read(MAX_PASSWD).decode(errors="replace")
    return ""


def _find_user(leader: int, wanted: str) -> User:
    root = os.open(f"/proc/{leader}/root", os.O_PATH | os.O_DIRECTORY)
    try:
        return find_user(root, wanted)
    finally:
        os.close(root)


def find_user(root: int, wanted: str) -> User:
    """Look wanted (a name or a number) up in the guest's /etc/passwd and /etc/group."""
    for line in _read_beneath(root, "etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and wanted in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            groups = _groups_of(root, fields[0])
            return User(int(fields[2]), int(fields[3]), fields[0], fields[5] or "/", groups)
    if wanted.isdecimal() and int(wanted) < 65536:
        return User(int(wanted), int(wanted), wanted, "/")
    raise NotFoundError(f"no user {wanted!r} in the instance")


def _groups_of(root: int, name: str) -> tuple[int, ...]:
    found = []
    for line in _read_beneath(root, "etc/group").splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and name in fields[3].split(",") and fields[2].isdecimal():
            found.append(int(fields[2]))
    return tuple(found[:64])
