# SPDX-License-Identifier: Apache-2.0
"""Commands in a VM host, by ssh over one connection that stays open."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .cache import cache_dir, locked
from .command import HostError, machine


def key() -> Path:
    """The private key that opens every VM host of this cache."""
    home = cache_dir("ssh")
    path = home / "id_ed25519"
    with locked(home / ".lock"):
        if not path.exists():
            unfinished = home / f"unfinished.{os.getpid()}"
            machine(
                "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hosts", "-f", str(unfinished)
            )
            unfinished.with_name(f"{unfinished.name}.pub").rename(home / "id_ed25519.pub")
            unfinished.rename(path)
    return path


def public_key() -> str:
    return key().with_name("id_ed25519.pub").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Connection:
    """An ssh master to a port of this machine."""

    def __init__(self, directory: Path, port: int) -> None:
        self._control = directory / "ssh"
        self._log = directory / "ssh.log"
        self._master: subprocess.Popen[bytes] | None = None
        self._common = ["-F", "/dev/null", "-S", str(self._control), "-p", str(port)]

    def is_open(self) -> bool:
        return self._control.exists() and self._master is not None and self._master.poll() is None

    def try_to_open(self) -> None:
        """Begin to connect, unless an attempt is under way."""
        if self._master is not None and self._master.poll() is None:
            return
        self._control.unlink(missing_ok=True)
        options = {
            "IdentityFile": key(), "IdentitiesOnly": "yes", "BatchMode": "yes",
            "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
            "ConnectTimeout": "60", "ServerAliveInterval": "60",
        }  # fmt: skip
        argv = ["ssh", *self._common, "-M", "-N"]
        argv += [f"-o{name}={value}" for name, value in options.items()]
        with self._log.open("ab") as log:
            self._master = subprocess.Popen(
                [*argv, "root@127.0.0.1"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def close(self) -> None:
        if self._master is not None:
            with contextlib.suppress(ProcessLookupError):
                self._master.send_signal(signal.SIGKILL)
            self._master.wait()
            self._master = None
        self._control.unlink(missing_ok=True)

    def command(self, argv: Sequence[str], tty: bool) -> list[str]:
        if not self.is_open():
            raise HostError("there is no ssh connection to the host")
        form = "-tt" if tty else "-T"
        quiet = ["-oLogLevel=ERROR", "-oControlMaster=no"]
        remote = f"cd / && exec {shlex.join(argv)}"
        return ["ssh", *self._common, *quiet, form, "root@127.0.0.1", remote]
