# SPDX-License-Identifier: Apache-2.0
"""Commands run in an instance: born in its namespaces and in a leaf of its unit's cgroup.

They are begun and watched by the service syscont-exec (sysd/_cext/attach.c), outside of the daemon's own sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import signal
import socket
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sysd.model.errors import FailedError, InvalidError, NotFoundError
from sysd.model.idmap import IdMap
from sysd.runtime.spec import Confinement

SERVICE = "/run/syscont/exec"
CGROUP_ROOT = "/sys/fs/cgroup"
EXEC_CGROUP = ".syscont"
"""Leaf for executed commands: the guest's own init enables controllers in the root of its tree, where processes
may then no longer be (cgroups(7), "no internal processes")."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_GROUPS = 64
MAX_SIDE = 65535
START_LIMIT = 10.0
"""Seconds. The guest owns the leaf: it may freeze it, or leave no memory or time to what starts there."""

_ID = re.compile(r"[0-9]{1,10}", re.ASCII)

_STARTED, _FAILED, _ENDED = range(3)
_MESSAGE = struct.Struct("ii")
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
    """A command under way, a sysd.runtime.session.Session. Whoever made one waits for it.

    Its number is its own for as long as watcher, the connection to what watches it, is open.
    """

    def __init__(self, pid: int, watcher: socket.socket) -> None:
        self.pid = pid
        self.terminal = -1
        self._pidfd = os.pidfd_open(pid)
        self._watcher = watcher

    async def wait(self, otherwise: int = signal.SIGHUP) -> int:
        """Its exit status, 128 plus the number of a signal that ended it. Cancelled, it gets the signal otherwise."""
        try:
            await _readable(self._watcher.fileno())
            message = _receive(self._watcher)
        except BaseException:
            self.abandon(otherwise)
            raise
        self._close()
        if message is None or message.kind != _ENDED:
            raise FailedError("what watched the command was killed", "how it ended is not known")
        return message.value

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def abandon(self, number: int) -> None:
        """Send it a signal; no one asks for its status."""
        self.signal(number)
        self._close()

    def _close(self) -> None:
        os.close(self._pidfd)
        self._watcher.close()


class _Message(NamedTuple):
    """What enter.h says of it; sender is the process that it came from."""

    kind: int
    value: int
    sender: int


def _receive(watcher: socket.socket) -> _Message | None:
    """The next message, None when there will be no more."""
    data, ancillary, _, _ = watcher.recvmsg(_MESSAGE.size, socket.CMSG_SPACE(_SENDER.size))
    if len(data) != _MESSAGE.size:
        return None
    # The kernel says who the sender is, and by the number that it has here.
    sender = next((_SENDER.unpack(value)[0] for _, kind, value in ancillary if kind == socket.SCM_CREDENTIALS), 0)
    kind, value = _MESSAGE.unpack(data)
    return _Message(kind, value, sender)


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
    return find_user(passwd, group, wanted, entry.confinement.ids)


async def _ended_in_time(running: Running) -> None:
    try:
        async with asyncio.timeout(START_LIMIT):
            status = await running.wait(otherwise=signal.SIGKILL)
    except TimeoutError:
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

        null = owned(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        passed = [null if fd < 0 else fd for fd in command.stdio]
        passed += [entry.pidfd, entry.leaf, owned(_strings_file("command", _words(entry, command, user)))]
        passed += [owned(_strings_file("environment", (f"{key}={value}" for key, value in environment.items())))]
        passed += [owned(_memory_file("filter", entry.confinement.filter))]
        terminal = None
        if command.tty:
            terminal, terminal_end = _pair(stack)
            passed += [terminal_end.fileno()]
        watcher = _ask(passed)
        if terminal:
            terminal_end.close()
        return await _started(watcher, terminal)


def _words(entry: _Entry, command: Command, user: User) -> list[str]:
    """What attach.c says of them."""
    userns = "0" if entry.confinement.privileged else "1"
    groups = ",".join(map(str, user.groups))
    who = [str(user.uid), str(user.gid), groups, command.cwd or user.home]
    limits = ",".join(f"{number}:{soft}:{hard}" for number, (soft, hard) in command.limits.items())
    held = [str(entry.leader), limits, entry.confinement.profile]
    return [userns, *map(str, command.size), *who, *held, *command.argv]


def _pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return stack.enter_context(ours), stack.enter_context(theirs)


def _strings_file(name: str, strings: Iterable[str]) -> int:
    return _memory_file(name, b"".join(os.fsencode(text) + b"\0" for text in strings))


def _memory_file(name: str, data: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(data)
    return fd


def _ask(passed: list[int]) -> socket.socket:
    """Have a command begun; what watches it is at the other end."""
    watcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        watcher.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        watcher.connect(SERVICE)
        socket.send_fds(watcher, [b"c"], passed)
    except OSError as error:
        watcher.close()
        why = f"the service that starts commands does not answer: {error.strerror}"
        raise FailedError(why, "see 'systemctl status syscont-exec.socket'") from None
    return watcher


async def _started(watcher: socket.socket, terminal: socket.socket | None) -> Running:
    """The command, once it is there; with its terminal, if it is to have one."""
    running = None
    try:
        async with asyncio.timeout(START_LIMIT):
            await _readable(watcher.fileno())
            running = _begun(watcher)
            if terminal:
                await _readable(terminal.fileno())
                running.terminal = _receive_terminal(terminal)
    except BaseException as error:
        if running:
            running.abandon(signal.SIGKILL)
        else:
            _give_up(watcher)
        if isinstance(error, TimeoutError):
            raise FailedError(HELD, HELD_HINT) from None
        raise
    return running


def _begun(watcher: socket.socket) -> Running:
    message = _receive(watcher)
    if message is None or message.kind == _ENDED:
        raise FailedError("the instance can't be entered", "what should do so was killed")
    if message.kind == _FAILED:
        raise FailedError(f"the instance can't be entered: {os.strerror(message.value)}")
    if message.sender <= 0:
        raise FailedError("the instance can't be entered", "its command has no process")
    try:
        return Running(message.sender, watcher)
    except OSError as error:
        os.kill(message.sender, signal.SIGKILL)
        raise FailedError(f"the command can't be watched: {error.strerror}") from None


def _give_up(watcher: socket.socket) -> None:
    """Have all killed that was begun. A command that is there by then says so on its way, and is killed here."""
    with contextlib.suppress(OSError):
        watcher.shutdown(socket.SHUT_WR)
    asyncio.get_running_loop().add_reader(watcher, _kill_late, watcher)


def _kill_late(watcher: socket.socket) -> None:
    with contextlib.suppress(OSError):
        message = _receive(watcher)
        if message and message.kind == _STARTED and message.sender > 0:
            os.kill(message.sender, signal.SIGKILL)
        if message:
            return
    asyncio.get_running_loop().remove_reader(watcher)
    watcher.close()


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


def find_user(passwd: str, group: str, wanted: str, ids: IdMap) -> User:
    """Look wanted (a name or a number) up in what the guest has in its /etc/passwd and /etc/group, of those that ids
    has."""
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) >= 7 and wanted in (fields[0], fields[2]) and _are_ids(fields[2], fields[3], ids):
            home = fields[5] if "\0" not in fields[5] else ""
            return User(int(fields[2]), int(fields[3]), fields[0], home or "/", _groups_of(group, fields[0], ids))
    if _are_ids(wanted, wanted, ids):
        return User(int(wanted), int(wanted), wanted, "/")
    raise NotFoundError(f"no user {wanted!r} in the instance")


def _groups_of(group: str, name: str, ids: IdMap) -> tuple[int, ...]:
    lines = (line.split(":") for line in group.split("\n"))
    found = (int(f[2]) for f in lines if len(f) >= 4 and name in f[3].split(",") and _are_ids("0", f[2], ids))
    return tuple(itertools.islice(found, MAX_GROUPS))


def _are_ids(user: str, group: str, ids: IdMap) -> bool:
    """Whether a guest has such a user and such a group. 4294967295, which no map has, would be the -1 that leaves a
    process its ids, those of the host's root."""
    return bool(_ID.fullmatch(user) and _ID.fullmatch(group)) and ids.has_user(int(user)) and ids.has_group(int(group))
