# SPDX-License-Identifier: Apache-2.0
"""Commands run in an instance: born in its namespaces and in a leaf of its unit's cgroup."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sysd.model.errors import FailedError, InvalidError, NotFoundError
from sysd.runtime.spec import Confinement

ATTACH = "/usr/libexec/syscont/attach"
CGROUP_ROOT = "/sys/fs/cgroup"
EXEC_CGROUP = ".syscont"
"""Leaf for executed commands: the guest's own init enables controllers in the root of its tree, where processes
may then no longer be (cgroups(7), "no internal processes")."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ID = 65535
MAX_GROUPS = 64
MAX_SIDE = 65535
START_LIMIT = 10.0
"""Seconds. The guest owns the leaf: it may freeze it, or leave no memory or time to what starts there."""

REAP_PAUSES = (0.005, 0.1, 1.0, 10.0)
_REPORT = struct.Struct("i")
_SENDER = struct.Struct("iII")
HELD = "the instance did not let the command start"
HELD_HINT = "its processes are frozen, or out of memory or processor time"


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    name: str = "root"
    home: str = "/root"
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """user: a name or number of the guest's. limits: soft and hard, by the numbers of setrlimit(2). size: rows and
    columns of the terminal that tty asks for. stdio: descriptors, -1 for none; unused when tty is set."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = ""
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    tty: bool = False
    size: tuple[int, int] = (0, 0)
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
        if not all(0 <= side <= MAX_SIDE for side in self.size):
            raise InvalidError("no terminal has that size", f"at most {MAX_SIDE} rows and columns")
        for fd in self.stdio:
            if fd >= 0:
                _check_stream(fd)


def _check_stream(fd: int) -> None:
    """No stream, but a way into the host's file system: the guest could walk on from it with openat(2)."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH or stat.S_ISDIR(os.fstat(fd).st_mode):
        raise InvalidError("a directory or path handle can't be a command's input or output", "pass a file or a pipe")


class Running:
    """A command under way. Whoever made one waits for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.terminal = -1
        self._pidfd = os.pidfd_open(pid)
        self._reaped = False

    async def wait(self) -> int:
        """Its exit status, 128 plus the number of a signal that ended it."""
        try:
            await _readable(self._pidfd)
            return await self._reap()
        finally:
            if not self._reaped:
                self.abandon(signal.SIGHUP)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def abandon(self, number: int) -> None:
        """Send it a signal; when it ends, it is reaped and no one asks for its status."""
        self.signal(number)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, self._reap_unasked, loop)

    def _reap_unasked(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        _reap_later(os.P_PID, self.pid)
        os.close(self._pidfd)

    async def _reap(self) -> int:
        """Once it has ended. Not waited for at once: a tracer in the guest may still keep it from us."""
        pauses = iter(REAP_PAUSES)
        pause = 0.0
        while (ended := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)) is None:
            await asyncio.sleep(pause := next(pauses, pause))
        self._reaped = True
        os.close(self._pidfd)
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def _reap_later(kind: int, number: int, attempt: int = 0) -> bool:
    """Reap what of these children has ended, now and in a while, until there are none; whether there are none.

    By time and not by pidfd, as not every process of a group is known by its number: one may have been killed
    before it could be reported.
    """
    try:
        while os.waitid(kind, number, os.WEXITED | os.WNOHANG) is not None:
            pass
    except ChildProcessError:
        return True
    pause = REAP_PAUSES[min(attempt, len(REAP_PAUSES) - 1)]
    asyncio.get_running_loop().call_later(pause, _reap_later, kind, number, attempt + 1)
    return False


class _Entry(NamedTuple):
    """How a guest is entered: the number and pidfd of its PID 1, and a descriptor of its cgroup's leaf."""

    leader: int
    pidfd: int
    leaf: int
    confinement: Confinement


async def start(leader: int, leader_pidfd: int, cgroup: str, confinement: Confinement, command: Command) -> Running:
    """Run command in a guest; cgroup is the path of the instance's unit, as systemd says it."""
    command.check()
    # A copy: the guest may end and the number become another's while we look the user up.
    pidfd = os.dup(leader_pidfd)
    try:
        leaf = _open_leaf(cgroup, confinement.root)
        try:
            entry = _Entry(leader, pidfd, leaf, confinement)
            user = await _ask_for_user(entry, command.user) if command.user else User()
            return await _run(entry, command, user)
        finally:
            os.close(leaf)
    finally:
        os.close(pidfd)


async def _ask_for_user(entry: _Entry, wanted: str) -> User:
    """Look wanted up in the guest's files, which a process of the guest's own rights reads: their file system may
    be one that the guest serves by itself (FUSE), and that never answers."""
    database = os.memfd_create("users", os.MFD_CLOEXEC)
    try:
        running = await _run(entry, Command((), stdio=(-1, database, -1)), User())
        await _ended_in_time(running)
        # The process inside shared the offset.
        os.lseek(database, 0, os.SEEK_SET)
        with open(database, "rb", closefd=False) as stream:
            passwd, _, group = stream.read().decode(errors="replace").partition("\0")
    finally:
        os.close(database)
    return find_user(passwd, group, wanted)


async def _ended_in_time(running: Running) -> None:
    try:
        async with asyncio.timeout(START_LIMIT):
            status = await running.wait()
    except TimeoutError:
        running.signal(signal.SIGKILL)
        raise FailedError("the instance's users can't be read", HELD_HINT) from None
    if status:
        raise FailedError("the instance's users can't be read", "its processes were killed, or it is out of memory")


async def _run(entry: _Entry, command: Command, user: User) -> Running:
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

        report, report_end = _pair(stack, socket.SOCK_SEQPACKET)
        report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        terminal, terminal_end = _pair(stack, socket.SOCK_STREAM)
        null = owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        passed = [null if fd < 0 else fd for fd in command.stdio]
        passed += [entry.pidfd, entry.leaf, report_end.fileno()]
        passed += [owned(_environment_file(environment)), owned(_memory_file("filter", entry.confinement.filter))]
        passed += [terminal_end.fileno()] if command.tty else []
        helper = _spawn(_attach_argv(entry, command, user), passed)
        report_end.close()
        terminal_end.close()
        return await _started(helper, report, terminal if command.tty else None)


def _attach_argv(entry: _Entry, command: Command, user: User) -> list[str]:
    groups = ",".join(map(str, user.groups))
    userns = "0" if entry.confinement.privileged else "1"
    terminal = ["8" if command.tty else "-1", *map(str, command.size)]
    who = [str(user.uid), str(user.gid), groups, command.cwd or user.home]
    limits = ",".join(f"{number}:{soft}:{hard}" for number, (soft, hard) in command.limits.items())
    return [ATTACH, *"34567", userns, *terminal, *who, str(entry.leader), limits, *command.argv]


def _pair(stack: contextlib.ExitStack, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    return stack.enter_context(ours), stack.enter_context(theirs)


def _environment_file(environment: Mapping[str, str]) -> int:
    return _memory_file("environment", b"".join(os.fsencode(f"{k}={v}") + b"\0" for k, v in environment.items()))


def _memory_file(name: str, data: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(data)
    return fd


def _spawn(argv: list[str], passed: list[int]) -> int:
    """Start a program, the first of its process group, with descriptors 0, 1, ... being those of passed, and with
    no environment."""
    # Through numbers that none of them has, so that none is overwritten before it is used.
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(passed)) for fd in passed]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(lifted)]
        return os.posix_spawn(argv[0], argv, {}, file_actions=actions, setpgroup=0)
    finally:
        for fd in lifted:
            os.close(fd)


async def _started(helper: int, report: socket.socket, terminal: socket.socket | None) -> Running:
    """The command that helper, the first of a process group, makes; and its terminal, if it is to have one."""
    running = None
    try:
        async with asyncio.timeout(START_LIMIT):
            await _readable(report.fileno())
            running = _reported(report)
            if terminal:
                await _readable(terminal.fileno())
                running.terminal = _receive_terminal(terminal)
    except BaseException as error:
        _give_up(helper, report, running)
        if isinstance(error, TimeoutError):
            raise FailedError(HELD, HELD_HINT) from None
        raise
    _end_group(helper)
    return running


def _reported(report: socket.socket) -> Running:
    data, ancillary, _, _ = report.recvmsg(_REPORT.size, socket.CMSG_SPACE(_SENDER.size))
    if len(data) != _REPORT.size:
        raise FailedError("the instance can't be entered", "what should do so was killed")
    (failure,) = _REPORT.unpack(data)
    if failure:
        raise FailedError(f"the instance can't be entered: {os.strerror(failure)}")
    # The kernel says who the sender is, and by the number that it has here.
    pid = next((_SENDER.unpack(value)[0] for _, kind, value in ancillary if kind == socket.SCM_CREDENTIALS), 0)
    if pid <= 0:
        raise FailedError("the instance can't be entered", "its command has no process")
    return _owned_process(pid)


def _owned_process(pid: int) -> Running:
    try:
        return Running(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        _reap_later(os.P_PID, pid)
        raise FailedError(f"the command can't be watched: {error.strerror}") from None


def _give_up(helper: int, report: socket.socket, running: Running | None) -> None:
    """Kill all that a start has made so far: it is in the group, or has reported."""
    if not _reap_later(os.P_PGID, helper):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(helper, signal.SIGKILL)
    if running is None:
        # It may have reported between our last look and its group's end.
        with contextlib.suppress(OSError, FailedError):
            running = _reported(report)
    if running:
        running.abandon(signal.SIGKILL)


def _end_group(helper: int) -> None:
    """Reap all but the command, which has reported. What can't end by itself, as it is frozen, is killed."""
    if not _reap_later(os.P_PGID, helper):
        asyncio.get_running_loop().call_later(START_LIMIT, _kill_group, helper)


def _kill_group(helper: int) -> None:
    """Unless all of it is reaped: only an unreaped child of ours keeps the number from being another's."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PGID, helper, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.killpg(helper, signal.SIGKILL)


async def _readable(fd: int) -> None:
    """Nothing is read here: a caller that is cancelled has lost nothing."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _open_leaf(cgroup: str, owner: int) -> int:
    """The guest may remove it, or forbid it, at any moment."""
    path = f"{CGROUP_ROOT}{cgroup}/{EXEC_CGROUP}"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
                os.chown(path + name, owner, owner)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedError(f"the instance has no cgroup for commands: {error.strerror}") from None


def _receive_terminal(ours: socket.socket) -> int:
    """The terminal's controlling side, or -1 when the command ended before it had one."""
    try:
        _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return -1
    return fds[0] if fds else -1


# The guest's own user database, read as data and never through the host's NSS.


def find_user(passwd: str, group: str, wanted: str) -> User:
    """Look wanted (a name or a number) up in what the guest has in its /etc/passwd and /etc/group."""
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) >= 7 and wanted in (fields[0], fields[2]) and _is_id(fields[2]) and _is_id(fields[3]):
            home = fields[5] if "\0" not in fields[5] else ""
            return User(int(fields[2]), int(fields[3]), fields[0], home or "/", _groups_of(group, fields[0]))
    if _is_id(wanted):
        return User(int(wanted), int(wanted), wanted, "/")
    raise NotFoundError(f"no user {wanted!r} in the instance")


def _groups_of(group: str, name: str) -> tuple[int, ...]:
    lines = (line.split(":") for line in group.split("\n"))
    found = (int(f[2]) for f in lines if len(f) >= 4 and name in f[3].split(",") and _is_id(f[2]))
    return tuple(itertools.islice(found, MAX_GROUPS))


def _is_id(text: str) -> bool:
    """Whether a guest has such an id. 4294967295 would be the -1 that leaves a process its ids, those of the host's
    root; str.isdecimal alone also takes digits of other scripts."""
    return len(text) <= 5 and text.isascii() and text.isdecimal() and int(text) <= MAX_ID
