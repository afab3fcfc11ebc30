# SPDX-License-Identifier: Apache-2.0
"""What every kind of test host can do."""

import contextlib
import os
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from . import apt, registry
from .command import HostError, communicate
from .rootfs import Recipe
from .say import say

Stream = int | IO[str] | None

_PLAIN = Recipe()
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Wire:
    """A cable between two hosts, the name of the link that it is at both ends, and their addresses."""

    left: "Host"
    right: "Host"
    link: str
    addresses: tuple[str, str]


class Host(ABC):
    """A machine of its own that runs systemd. It is booted by the constructor.

    With `base` it starts from the disk of another host, which is off and stays so.
    """

    kind: ClassVar[str]
    #: The `needs_*` markers that this kind of host can satisfy.
    serves: ClassVar[frozenset[str]]
    #: Time limits are given for a container host, and stretched for a slower one.
    slowness: ClassVar[float] = 1.0
    #: Seconds that a boot may take.
    boot_limit: ClassVar[float] = 60.0

    #: What the machine runs the host as.
    _process: "subprocess.Popen[bytes] | None" = None

    def __init__(
        self, *, recipe: Recipe = _PLAIN, uplink: bool = False, base: "Host | None" = None
    ) -> None:
        self.recipe: Recipe = base.recipe if base else recipe
        self.base = base
        self.uplink = uplink
        self.wires: list[Wire] = []
        self.record = registry.new_record(self.kind)
        self.name = self.record.name
        try:
            self._prepare()
            self.boot()
            if uplink:
                self.use_machines_mirror()
        except BaseException:
            self._explain()
            self.close()
            raise

    @property
    def directory(self) -> Path:
        return self.record.directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # What a kind of host must know how to do.

    @classmethod
    @abstractmethod
    def prepare(cls, recipe: Recipe) -> None:
        """Have everything that a first boot needs, in the caches and on the machine."""

    @abstractmethod
    def _prepare(self) -> None:
        """Lay out the host's own disk, before its first boot."""

    @abstractmethod
    def _start(self) -> None:
        """Begin to boot."""

    @abstractmethod
    def _command(self, argv: Sequence[str], user: str | None, tty: bool) -> list[str]:
        """The machine's command that runs argv in the host."""

    @abstractmethod
    def console(self) -> str:
        """What the host wrote on its console since it was made."""

    @abstractmethod
    def _lay(self, wire: Wire) -> None:
        """Plug in a cable, both ends of which are running hosts of this kind."""

    # What all of them do the same way.

    def join(
        self,
        other: "Host",
        *,
        link: str = "lan0",
        addresses: tuple[str, str] = ("198.19.0.1/24", "198.19.0.2/24"),
    ) -> None:
        """Run a cable to another host. It stays there when either of them boots again."""
        wire = Wire(self, other, link, addresses)
        self._lay(wire)
        self.wires.append(wire)
        other.wires.append(wire)

    def running(self) -> bool:
        """Whether the host has power."""
        return self._process is not None and self._process.poll() is None

    def _environment(self, argv: Sequence[str], user: str | None) -> list[str]:
        """argv in the environment of a login, as a user, ending when who waits for it ends."""
        words = [f"PATH={PATH}", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
        words += ["HOME=/root", "USER=root", "LOGNAME=root", "setpriv", "--pdeathsig=TERM"]
        if user:
            words += [f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
        return ["/usr/bin/env", "-i", *words, "--", *argv]

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        user: str | None = None,
        tty: bool = False,
    ) -> "subprocess.Popen[str]":
        """Start a command in the host; its streams are those of the process given back."""
        return subprocess.Popen(
            self._command(argv, user, tty), stdin=stdin, stdout=stdout, stderr=stderr,
            text=True, errors="replace", start_new_session=not tty,
        )  # fmt: skip

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout: float | None = 60.0,
        user: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the host to its end. A failure is a CommandError, if checked."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        limit = None if timeout is None else timeout * self.slowness
        with self.spawn(argv, stdin=stdin, user=user) as process:
            return communicate(process, argv, check=check, input=input, timeout=limit)

    def sh(
        self, script: str, *, check: bool = True, timeout: float = 60.0, user: str | None = None
    ) -> str:
        """Run a shell script in the host and give back what it printed."""
        return self.run(["sh", "-ec", script], check=check, timeout=timeout, user=user).stdout

    def push(self, local: Path | str, remote: str) -> None:
        """Copy a file or a directory so that it is `remote` in the host, owned by root."""
        source = Path(local)
        if not source.is_dir():
            mode = f"{source.stat().st_mode & 0o777:o}"
            script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
            with source.open() as stream:
                self._piped(["sh", "-ec", script, "push", remote, mode], stdin=stream)
            return
        script = 'mkdir -p "$1" && exec tar -C "$1" -x --no-same-owner'
        tar = subprocess.Popen(
            ["tar", "-C", str(source), "-c", "."], stdout=subprocess.PIPE, text=True
        )
        with tar:
            self._piped(["sh", "-ec", script, "push", remote], stdin=tar.stdout)
        if tar.returncode:
            raise HostError(f"tar could not read {source}")

    def pull(self, remote: str, local: Path | str) -> None:
        """Copy a file or a directory of the host so that it is `local` on the machine."""
        target = Path(local)
        if self.run(["test", "-d", remote], check=False).returncode:
            with target.open("w") as stream:
                self._piped(["cat", remote], stdout=stream)
            return
        target.mkdir(parents=True, exist_ok=True)
        argv = ["tar", "-C", str(target), "-x"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as tar:
            self._piped(["tar", "-C", remote, "-c", "."], stdout=tar.stdin)
            assert tar.stdin
            tar.stdin.close()
        if tar.returncode:
            raise HostError(f"tar could not write {target}")

    def _piped(self, argv: Sequence[str], stdin: Stream = None, stdout: Stream = None) -> None:
        with self.spawn(argv, stdin=stdin, stdout=stdout) as process:
            communicate(process, argv, check=True, input=None, timeout=600 * self.slowness)

    def write_text(self, remote: str, text: str) -> None:
        self.run(
            ["sh", "-ec", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "write", remote], input=text
        )

    def read_text(self, remote: str) -> str:
        return self.run(["cat", remote]).stdout

    def journal(self, *, lines: int | None = None, unit: str | None = None) -> str:
        """The host's journal of this boot, warnings of journalctl's own left out."""
        argv = ["journalctl", "--quiet", "--no-pager", "--boot", "--output=short-monotonic"]
        argv += [f"--lines={lines}"] if lines else []
        argv += [f"--unit={unit}"] if unit else []
        return self.run(argv, check=False).stdout

    def install_deb(self, path: Path | str) -> None:
        """Install a package the way a user does; what it depends on is there already."""
        remote = f"/var/cache/{Path(path).name}"
        self.push(path, remote)
        apt_get = "DEBIAN_FRONTEND=noninteractive exec apt-get install -y -qq"
        options = "-o Dpkg::Use-Pty=0 --no-install-recommends"
        self.sh(f"{apt_get} {options} {shlex.quote(remote)}", timeout=300)

    def use_machines_mirror(self) -> None:
        """Give the host's apt the machine's own way to Debian."""
        self.write_text("/etc/apt/sources.list", f"deb {apt.mirror()} {self.recipe.suite} main\n")
        self.write_text("/etc/apt/apt.conf.d/90machine", apt.settings())

    def boot(self) -> None:
        """Boot, and wait until everything that starts at boot has started."""
        if self.running():
            raise HostError(f"{self.name} is running already")
        begin = time.monotonic()
        self._start()
        state = self._wait_for_boot(begin + self.boot_limit)
        say(f"{self.name} ({self.kind}) {state} after {time.monotonic() - begin:.1f} s")
        if state == "degraded":
            failed = self.run(["systemctl", "--failed", "--plain", "--no-legend"], check=False)
            say(f"{self.name} has failed units:\n{failed.stdout.rstrip()}")

    def _wait_for_boot(self, deadline: float) -> str:
        argv = ["systemctl", "is-system-running", "--wait"]
        while time.monotonic() < deadline:
            if not self.running():
                raise HostError(f"{self.name} went off while it booted")
            with contextlib.suppress(subprocess.TimeoutExpired, HostError):
                # systemd is not there to be asked at first; it then says so at once.
                left = max(1.0, deadline - time.monotonic())
                done = self.run(argv, check=False, timeout=left / self.slowness)
                state = done.stdout.strip()
                if state in ("running", "degraded"):
                    return state
            time.sleep(0.05)
        raise HostError(f"{self.name} did not boot in time")

    def _wait_for_power_off(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout * self.slowness
        while self.running():
            if time.monotonic() > deadline:
                raise HostError(f"{self.name} did not shut down")
            time.sleep(0.02)

    def power_off(self) -> None:
        """Shut down in order; `boot()` starts the host again."""
        self.run(["systemctl", "poweroff", "--no-wall"], check=False)
        self._wait_for_power_off()
        self.power_cut()

    def power_cut(self) -> None:
        """Pull the plug; `boot()` starts the host again from what its disk holds."""
        registry.stop(self.record)
        if self._process:
            self._process.wait(20)

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def shell(self) -> int:
        """An interactive shell in the host, on this terminal."""
        with self.spawn(["bash", "-l"], stdin=None, stdout=None, stderr=None, tty=True) as process:
            return process.wait()

    def _explain(self) -> None:
        with contextlib.suppress(OSError, HostError):
            say(f"the console of {self.name} ends with:\n{self.console()[-4000:]}")

    def close(self) -> None:
        """Remove the host and all that it holds."""
        self.power_cut()
        registry.destroy(self.record)
