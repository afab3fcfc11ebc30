# SPDX-License-Identifier: Apache-2.0
"""Runs the command as on another system: without what only Linux has, and saying so when it is asked for.

python3 -I elsewhere.py SYSTEM PROGRAM ARGUMENT...
"""

from __future__ import annotations

import runpy
import select
import signal
import socket
import sys
from typing import Any, NoReturn

# What the standard library itself takes of the real system, it has now.
PRELOAD = (
    "_signal", "_socket", "base64", "binascii", "contextlib", "dataclasses", "difflib", "encodings.idna", "fnmatch",
    "getpass", "hashlib", "ipaddress", "json", "os", "random", "re", "shlex", "shutil", "ssl", "stat", "struct",
    "subprocess", "tempfile", "textwrap", "threading", "time", "unicodedata", "zipfile", "zipimport",
)  # fmt: skip
MODULES = {
    "win32": ("_curses", "_posixsubprocess", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource",
              "syslog", "termios", "tty"),
    "darwin": ("spwd",),
}  # fmt: skip
NAMES = {
    "win32": {
        "os": ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_PATH", "fchmod", "fchown", "fork",
               "geteuid", "getpgrp", "getuid", "mkfifo", "openpty", "pipe2", "sendfile", "set_blocking", "tcgetpgrp",
               "uname", "wait4"),
        "select": ("epoll", "poll"),
        "signal": ("SIGCHLD", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "pthread_sigmask", "sigwait"),
        "socket": ("AF_UNIX", "CMSG_SPACE", "MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SCM_RIGHTS", "SOCK_CLOEXEC",
                   "recv_fds", "send_fds", "SOCK_NONBLOCK", "SO_PEERCRED"),
    },
    "darwin": {
        "os": ("O_PATH", "getxattr", "listxattr", "memfd_create", "pidfd_open", "pipe2", "setxattr"),
        "select": ("epoll",),
        "signal": (),
        "socket": ("MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_PEERCRED"),
    },
}  # fmt: skip


def socketpair(*_: Any) -> tuple[socket.socket, socket.socket]:
    """As the standard library has it where the kernel has none."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.socket()
        one.connect(listener.getsockname())
        return one, listener.accept()[0]


def only_sockets(reads: Any, writes: Any, others: Any, timeout: float | None = None) -> Any:
    """select, which on Windows takes nothing else."""
    for one in {*reads, *writes, *others}:
        number = one if isinstance(one, int) else one.fileno()
        socket.socket(fileno=number).detach()  # OSError for what is none
    return real_select(reads, writes, others, timeout)


real_select = select.select


def become(system: str) -> None:
    for name in PRELOAD:
        __import__(name)
    for module, names in NAMES[system].items():
        for name in names:
            for one in (module, f"_{module}"):
                if hasattr(sys.modules.get(one), name):
                    delattr(sys.modules[one], name)
    for name in MODULES[system]:
        sys.modules[name] = None  # type: ignore[assignment]
    if system == "win32":
        socket.socketpair = socketpair  # type: ignore[assignment]
        select.select = only_sockets
        signal.set_wakeup_fd = refuse  # type: ignore[assignment]
    sys.platform = system


def refuse(*_: object) -> NoReturn:
    raise ValueError("not a socket")


if __name__ == "__main__":
    become(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
