# SPDX-License-Identifier: Apache-2.0
"""Instances on a test host, asked through the command line as a user asks."""

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hosts import Host

PATIENCE = 15.0

T = TypeVar("T")

Done = subprocess.CompletedProcess[str]

_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    return f"{prefix}{next(_numbers)}"


def until(host: Host, look: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """What look gives as soon as that is true; an AssertionError when it never is."""
    deadline = time.monotonic() + patience * host.slowness
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {patience} s"
        time.sleep(0.05)
    return seen


def syscont(host: Host, *argv: str, check: bool = True, **options: Any) -> Done:
    return host.run(["syscont", *argv], check=check, **options)


def empty_image(host: Host) -> str:
    """Alias of a new image of machines whose disk is empty: for what is to be seen of QEMU alone."""
    host.sh("truncate --size 64M /var/tmp/empty")
    syscont(host, "image", "import", "/var/tmp/empty", "--format", "raw", "--alias", "empty")
    return "empty"


def systemd_property(host: Host, unit: str, name: str) -> str:
    return host.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()


def python(host: Host, name: str, *arguments: str, **options: Any) -> Done:
    """Run a program in this folder's `on_host/` with the host's own Python."""
    return host.run(program(name, *arguments), **options)


def program(name: str, *arguments: str) -> list[str]:
    """The command line that runs it."""
    script = (Path(__file__).parent / "on_host" / f"{name}.py").read_text()
    return ["/usr/bin/python3", "-c", script, *arguments]


def on_terminal(
    host: Host, argv: Sequence[str], *steps: tuple[str, str], size: tuple[int, int] = (24, 80)
) -> tuple[int, str]:
    """Run argv on a terminal of rows and columns. Each step waits for its first word to appear and then
    types the second. Returns the exit status (-N for signal N) and all that the terminal showed."""
    task = {"argv": list(argv), "steps": steps, "size": size, "patience": PATIENCE * host.slowness}
    answer = json.loads(python(host, "terminal", json.dumps(task)).stdout)
    assert answer["missing"] is None, f"no {answer['missing']!r} in {answer['output']!r}"
    return answer["status"], answer["output"]


@dataclass(frozen=True)
class Instance:
    """name may be qualified by a project, as everywhere."""

    host: Host
    name: str

    @property
    def unit(self) -> str:
        return f"syscont@{self.name}.service"

    def do(self, verb: str, *options: str, check: bool = True) -> Done:
        """`syscont VERB OPTIONS NAME`"""
        return syscont(self.host, *verb.split(), *options, self.name, check=check)

    def exec(self, *argv: str, check: bool = True, **options: Any) -> Done:
        return syscont(self.host, "exec", self.name, "--", *argv, check=check, **options)

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.exec("sh", "-c", script, check=check).stdout

    def seen(self) -> dict[str, Any]:
        """As `syscont list` has it; empty when it has not."""
        project, _, name = self.name.rpartition(":")
        found = json.loads(syscont(self.host, "--project", project or "default", "list", "--format", "json").stdout)
        return next((one for one in found if one["name"] == name), {})

    @property
    def config(self) -> dict[str, str]:
        """Its own keys, without what the daemon keeps there for itself."""
        return {key: value for key, value in self.seen()["config"].items() if not key.startswith("volatile.")}

    @property
    def state(self) -> str:
        return str(self.seen().get("state"))

    @property
    def leader(self) -> int:
        return int(self.seen()["leader"])

    def systemd(self, name: str) -> str:
        """A property of its unit, as systemd tells it."""
        return systemd_property(self.host, self.unit, name)

    def logs(self) -> str:
        return syscont(self.host, "logs", self.name, "--output", "cat").stdout

    def on_disk(self, path: str) -> str:
        """Where the host keeps what the guest wrote to path."""
        return f"/var/lib/syscont/instances/{self.seen()['uuid']}/upper/{path.lstrip('/')}"

    def address(self, version: int = 4) -> str:
        def look() -> str:
            addresses: list[str] = self.seen()["addresses"]
            return next((one for one in addresses if (":" in one) == (version == 6)), "")

        return until(self.host, look)

    def wait_for(self, state: str) -> None:
        until(self.host, lambda: self.state == state)

    def processes(self) -> list[int]:
        """All in its unit's cgroup, as the host counts them."""
        group = self.systemd("ControlGroup")
        found = self.host.sh(f"find /sys/fs/cgroup{group} -name cgroup.procs -exec cat {{}} +")
        return [int(pid) for pid in found.split()]


def renew(instance: Instance) -> None:
    """What a guest does at the end of half its lease."""
    instance.sh("udhcpc -i eth0 -n -q -s /etc/udhcpc/default.script || udhcpc -i eth0 -n -q", check=False)
