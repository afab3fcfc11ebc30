# SPDX-License-Identifier: Apache-2.0
"""Which hosts there are, and the removal of those whose owner is gone.

Every host has a directory. Its `state.json` names the process that owns it and whatever the
host holds outside the directory, so that a later run can clear up after a crashed one.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from . import cgroup, network
from .cache import locked
from .say import say

_counter = count(1)


def runs_dir() -> Path:
    """Hosts' state: on a real file system, since overlayfs can't be stacked on overlayfs."""
    path = Path(os.environ.get("SYSCONT_HOSTS_DIR", "/var/tmp/syscont-hosts"))
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def started(pid: int) -> str:
    """When a process started, in clock ticks: with its pid, that names it for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


@dataclass
class Record:
    """What is written down about a host."""

    name: str
    kind: str
    owner: int = field(default_factory=os.getpid)
    owner_started: str = field(default_factory=lambda: started(os.getpid()))
    pid: int = 0
    pid_started: str = ""
    uplink: int = 0

    @property
    def directory(self) -> Path:
        return runs_dir() / self.name

    def save(self) -> None:
        unfinished = self.directory / ".state.json"
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.rename(self.directory / "state.json")

    def owned(self) -> bool:
        return bool(self.owner_started) and started(self.owner) == self.owner_started

    def alive(self) -> bool:
        return bool(self.pid_started) and started(self.pid) == self.pid_started

    def watch(self, pid: int) -> None:
        self.pid, self.pid_started = pid, started(pid)
        self.save()


def new_record(kind: str) -> Record:
    """Claim a name that no other host has, and its directory."""
    sweep()
    record = Record(f"sc{os.getpid()}-{next(_counter)}", kind)
    record.directory.mkdir()
    record.save()
    return record


def records() -> list[Record]:
    found = []
    for path in sorted(runs_dir().glob("*/state.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            found.append(Record(**json.loads(path.read_text())))
    return found


def sweep() -> None:
    """Remove the hosts of runs that ended without closing them."""
    with locked(runs_dir() / ".lock"):
        for record in records():
            if not record.owned():
                say(f"removing {record.name}, left behind by process {record.owner}")
                destroy(record)


def stop(record: Record) -> None:
    """Everything that runs in a host ends at once, as when the plug is pulled."""
    if record.alive():
        os.kill(record.pid, signal.SIGKILL)
    cgroup.kill(record.name)
    deadline = time.monotonic() + 20
    while record.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    cgroup.remove(record.name)
    network.remove(record.name)


def destroy(record: Record) -> None:
    """Stop a host and remove every trace of it."""
    stop(record)
    network.remove_uplink(record.name)
    _unmount_below(record.directory)
    shutil.rmtree(record.directory, ignore_errors=True)
    if not any(other.uplink for other in records()):
        network.restore_forwarding(runs_dir())


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(mounts):
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", point], check=False)
