# SPDX-License-Identifier: Apache-2.0
"""What syscont has on a host, as one comparable value: whatever an operation leaves behind shows as a difference."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hosts import Host

Snapshot = dict[str, Any]

_LOOK = r"""
import json, os, re, socket, sqlite3, subprocess

def output(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout

def names(path):
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []

def descriptors(pid):
    kinds = {}
    for fd in names(f"/proc/{pid}/fd"):
        try:
            kind = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":[")[0]
        except OSError:
            continue
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds

def rows(*query):
    database = sqlite3.connect("file:/var/lib/syscont/syscont.db?mode=ro", uri=True)
    return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in query}

def workers():
    found = []
    listening = show("MainPID", "syscont-exec.service")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == listening:
            continue
        try:
            words = open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip()
        except OSError:
            continue
        if re.search(r"sysd\.images|libexec/syscont/(launch|attach|files)", words):
            found.append(words)
    return sorted(found)

def show(name, unit="syscontd.service"):
    return output("systemctl", "show", "--value", "-p", name, unit).strip()

pid = show("MainPID")
units = output("systemctl", "list-units", "--all", "--plain", "--no-legend", "syscont*")
slice = "/sys/fs/cgroup/syscont.slice"
# Not /sys/class/net: on a container host that may be the machine's.
links = sorted(name for _, name in socket.if_nameindex())
print(json.dumps({
    "state": {part: names(f"/var/lib/syscont/{part}") for part in ("", "instances", "images", "networks")},
    "run": {part: names(f"/run/syscont/{part}") for part in
            ("", "instances", "vm", "launch", "launch/root", "launch/image", "launch/state")},
    "units": sorted(" ".join(line.split()[:3]) for line in units.splitlines()
                    if not line.startswith(("syscontd.", "syscontd-", "syscont-exec.", "syscont-ssh."))),
    "cgroups": [name for name in names(slice) if os.path.isdir(f"{slice}/{name}")],
    "mounts": sorted(line for line in open("/proc/mounts") if "syscont" in line and " /proc" not in line),
    # The kernel takes away the links of dead network namespaces one after the other, all hosts' in one queue.
    "links without an instance": len([name for name in links if name.startswith("veth")])
        - len([name for name in names(slice) if name.startswith("syscont@")]),
    "other links": [name for name in links if not name.startswith("veth")],
    "rows": rows("instances", "snapshots", "images", "aliases", "networks", "operations"),
    "running operations": sorted(o["kind"] + " " + o["target"]
        for o in json.loads(output("syscont", "operation", "list", "--format", "json") or "[]")
        if o["status"] == "running"),
    "machines": sorted(line.split()[0] for line in
        output("machinectl", "list", "--no-legend", "--no-pager").splitlines() if line.strip()),
    "daemon's descriptors": descriptors(pid),
    "daemon's cgroup": len(open("/sys/fs/cgroup/system.slice/syscontd.service/cgroup.procs").readlines()),
    "fd store": show("NFileDescriptorStore"),
    "workers": workers(),
    "pipes in /tmp": [name for name in names("/tmp") if "syscont" in name and "systemd-private" not in name],
}))
"""


def snapshot(host: Host) -> Snapshot:
    found: Snapshot = json.loads(host.run(["python3", "-"], input=_LOOK).stdout)
    # SQLite's own files beside the database come and go.
    found["state"][""] = [name for name in found["state"][""] if not name.startswith("syscont.db-")]
    return found


def settled(host: Host, *, seconds: float = 60.0) -> Snapshot:
    """A snapshot once nothing changes any more: the kernel takes links and mounts away behind our back."""
    deadline = time.monotonic() + seconds * host.slowness
    before = snapshot(host)
    while True:
        time.sleep(0.25)
        after = snapshot(host)
        if before == after and not after["links without an instance"]:
            return after
        if time.monotonic() > deadline:
            raise AssertionError(f"the host does not settle: {difference(before, after) or after}")
        before = after


def difference(before: Snapshot, after: Snapshot) -> dict[str, tuple[Any, Any]]:
    found = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    # A daemon that was started anew has not opened yet what an older one has.
    was, now = found.get("daemon's descriptors", ({}, {"": 1}))
    if all(count <= was.get(kind, 0) for kind, count in now.items()):
        del found["daemon's descriptors"]
    return found


def expect_same(host: Host, before: Snapshot, *, seconds: float = 30.0, but: tuple[str, ...] = ()) -> None:
    """What there is now is what there was before, at the latest after some seconds."""
    deadline = time.monotonic() + seconds * host.slowness
    while True:
        found = difference(before, snapshot(host))
        for key in but:
            found.pop(key, None)
        if not found:
            return
        if time.monotonic() > deadline:
            lines = [f"  {key}: {was}\n  {' ' * len(key)}  {now}" for key, (was, now) in found.items()]
            raise AssertionError("left over (before, after):\n" + "\n".join(lines))
        time.sleep(0.1)


# Folders that have no row, and rows whose folder is missing.
_STRAYS = r"""
import json, os, sqlite3

database = sqlite3.connect("file:/var/lib/syscont/syscont.db?mode=ro", uri=True)

def compared(folder, wanted):
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return [f"{folder}/{name}" for name in sorted(there ^ set(wanted))]

def column(query, *values):
    return [row[0] for row in database.execute(query, values)]

root = "/var/lib/syscont"
instances = column("SELECT uuid FROM instances")
strays = compared(f"{root}/instances", instances) + compared(f"{root}/images", column("SELECT fingerprint FROM images"))
for uuid in instances:
    known = column("SELECT uuid FROM snapshots WHERE instance=?", uuid)
    strays += compared(f"{root}/instances/{uuid}/snapshots", known)
    strays += [f"{root}/instances/{uuid}/{name}" for name in os.listdir(f"{root}/instances/{uuid}")
               if name not in ("upper", "work", "snapshots", "made-for")]
strays += [f"phase of {name}" for name in column("SELECT name FROM instances WHERE body NOT LIKE '%\"ready\"%'")]
print(json.dumps(strays))
"""


def strays(host: Host) -> list[str]:
    """What the state folder holds and the database does not, or the other way round."""
    found: list[str] = json.loads(host.run(["python3", "-"], input=_STRAYS).stdout)
    return found


def main_pid(host: Host) -> int:
    return int(host.run(["systemctl", "show", "--value", "-p", "MainPID", "syscontd.service"]).stdout)


@dataclass(frozen=True)
class Mark:
    """A place in the journal."""

    host: Host
    cursor: str

    def since(self, *, unit: str = "syscontd.service") -> str:
        argv = ["journalctl", "-q", "--no-pager", "-o", "cat", f"--after-cursor={self.cursor}", f"--unit={unit}"]
        return self.host.run(argv, check=False).stdout


def mark(host: Host) -> Mark:
    shown = host.run(["journalctl", "-q", "-n0", "--show-cursor"]).stdout
    return Mark(host, shown.partition("-- cursor: ")[2].strip())


@contextmanager
def nothing_happens(host: Host, *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """The block leaves nothing, the daemon lives through it, and its journal has no traceback."""
    before, place, pid = settled(host), mark(host), main_pid(host)
    yield
    assert main_pid(host) == pid, f"syscontd is another process now; it said:\n{place.since()[-3000:]}"
    expect_same(host, before, but=but)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]
