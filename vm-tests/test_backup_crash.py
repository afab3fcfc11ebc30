# SPDX-License-Identifier: Apache-2.0
"""The daemon dies while an instance is packed, unpacked, published, moved: what was to be made is whole or not there,
and what it is made of has not changed.

CRASH_POINTS=24 pytest vm-tests/test_backup_crash.py sweeps each operation with as many moments (2 if not set).
"""

import json
import time
from collections.abc import Callable, Iterator

import leftovers
import pytest
from guests import Instance, syscont, until
from hosts import Host
from test_crash import POINTS, RESTART, crash
from test_snapshot_crash import prepare, snapshots, state_of

BACKUP = "/root/backup.tar"
WRITTEN = "/root/written.tar"
ARGV = {
    "export": ["syscont", "export", "x", WRITTEN, "--compression", "none"],
    "import": ["syscont", "import", BACKUP, "y"],
    "import into a project": ["syscont", "import", BACKUP, "lab:y"],
    "publish": ["syscont", "publish", "x", "--alias", "made"],
    "publish a snapshot": ["syscont", "publish", "x/old", "--alias", "made"],
    "copy": ["syscont", "copy", "x", "lab:y"],
    "move": ["syscont", "move", "x", "lab:y"],
    "rename a snapshot": ["syscont", "snapshot", "rename", "x", "old", "older"],
}
HEAVY = ("import into a project", "publish a snapshot", "copy", "rename a snapshot")


@pytest.fixture(scope="module")
def crash_host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """A host with x, which is stopped and has a snapshot, a backup of it, and a project lab."""
    with host_kind(base=installed("plain")) as one:
        syscont(one, "image", "build", "busybox")
        syscont(one, "project", "create", "lab")
        yield one


@pytest.fixture(scope="module")
def sums(crash_host: Host) -> tuple[str, str]:
    """Of the snapshot of x, and of what it is now."""
    made = prepare(crash_host)
    syscont(crash_host, "stop", "--force", "x")
    syscont(crash_host, "export", "x", BACKUP, "--compression", "none")
    return made


@pytest.fixture(autouse=True)
def nothing_else(crash_host: Host, sums: tuple[str, str]) -> Iterator[None]:
    """In the end all is as it was, and the daemon never was at a loss."""
    before, place = leftovers.settled(crash_host), leftovers.mark(crash_host)
    yield
    leftovers.expect_same(crash_host, before)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]


def references(host: Host) -> set[str]:
    found = json.loads(syscont(host, "list", "--all-projects", "--format", "json").stdout)
    return {one["name"] if one["project"] == "default" else f"{one['project']}:{one['name']}" for one in found}


def check_whole(host: Host, reference: str, sums: tuple[str, str]) -> None:
    """It holds what x holds, and so does its snapshot."""
    old, later = sums
    assert state_of(host, reference) == later
    (snapshot,) = snapshots(host, reference)
    syscont(host, "snapshot", "restore", reference, snapshot)
    assert state_of(host, reference) == old


def check_and_undo(host: Host, name: str, done: bool, sums: tuple[str, str]) -> None:
    """What the operation has made is whole, and is there if it said so. Makes all as it was."""
    old, later = sums
    made = references(host) - {"x"}
    assert made <= {word for word in ARGV[name] if word.endswith("y")}
    if name == "export":
        assert host.sh("ls /root | grep written.tar.part || true") == ""
        if done or host.sh(f"ls {WRITTEN} 2>/dev/null || true"):
            syscont(host, "import", WRITTEN, "again")
            check_whole(host, "again", sums)
            syscont(host, "delete", "--force", "again")
            host.sh(f"rm {WRITTEN}")
    elif name.startswith("publish"):
        images = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
        aliases = {alias for image in images for alias in image["aliases"]}
        assert "made" in aliases or not done
        assert len(images) == len({"busybox", "made"} & aliases)
        if "made" in aliases:
            syscont(host, "launch", "made", "again")
            assert Instance(host, "again").sh("cd /srv && ls | wc -l && cat $(ls) | md5sum") == (
                old if name.endswith("snapshot") else later
            )
            syscont(host, "delete", "--force", "again")
            syscont(host, "image", "delete", "made")
    elif name == "move":
        assert ("x" in references(host)) is not bool(made)
        assert made or not done
        for reference in made:
            syscont(host, "move", reference, "default:x")
    elif name == "rename a snapshot":
        (now,) = snapshots(host, "x")
        assert now == "older" or (now == "old" and not done)
        if now == "older":
            syscont(host, "snapshot", "rename", "x", "older", "old")
    else:
        assert made or not done
        for reference in made:
            check_whole(host, reference, sums)
            syscont(host, "delete", "--force", reference)
    assert references(host) == {"x"}
    assert snapshots(host, "x") == ["old"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name in HEAVY else []) for name in ARGV]
)
def test_daemon_dies_in_the_middle(crash_host: Host, sums: tuple[str, str], name: str) -> None:
    host, argv = crash_host, ARGV[name]
    begin = time.monotonic()
    host.run(argv)
    took = time.monotonic() - begin
    check_and_undo(host, name, True, sums)
    for point in range(POINTS):
        answer = crash(host, argv, took * (point + 0.5) / POINTS, RESTART if point % 4 == 3 else "kill")
        until(host, lambda: not leftovers.strays(host))
        check_and_undo(host, name, not answer["status"], sums)
    check_x(host, sums)


def check_x(host: Host, sums: tuple[str, str]) -> None:
    assert state_of(host, "x") == sums[1]
    syscont(host, "stop", "--force", "x")
