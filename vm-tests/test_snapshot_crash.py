# SPDX-License-Identifier: Apache-2.0
"""The daemon dies while layers are copied: each instance and each snapshot is what it was or what it was to be, whole,
and no guest is left standing still.

CRASH_POINTS=24 pytest vm-tests/test_snapshot_crash.py sweeps each operation with as many moments (2 if not set).
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import leftovers
import pytest
from guests import Instance, syscont, until
from hosts import Host
from test_crash import RESTART, crash

POINTS = int(os.environ.get("CRASH_POINTS", "2"))

# Enough files that copying them takes a while; their sum tells two states apart from all that lies between.
FILL = (
    "mkdir -p /srv && cd /srv && for i in $(seq 600); do echo {0} >$i; done; "
    "head -c 8M /dev/zero >large; echo {0} >>large"
)
SUM = "cd /srv && ls | wc -l && cat $(ls) | md5sum"

ARGV = {
    "create": ["syscont", "snapshot", "create", "x", "new"],
    "replace": ["syscont", "snapshot", "create", "x", "old", "--reuse"],
    "restore": ["syscont", "snapshot", "restore", "x", "old"],
    "delete": ["syscont", "snapshot", "delete", "x", "old"],
    "copy": ["syscont", "copy", "x", "y"],
}


@pytest.fixture(scope="module")
def crash_host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    with host_kind(base=installed("plain")) as one:
        syscont(one, "image", "build", "busybox")
        syscont(one, "launch", "busybox", "first")  # which makes the network
        syscont(one, "delete", "--force", "first")
        yield one


def prepare(host: Host) -> tuple[str, str]:
    """Makes x, which runs, with a snapshot; returns the sums of the snapshot and of what came later."""
    syscont(host, "launch", "busybox", "x")
    one = Instance(host, "x")
    one.sh(FILL.format("old"))
    old = one.sh(SUM)
    syscont(host, "snapshot", "create", "x", "old")
    one.sh(FILL.format("later"))
    return old, one.sh(SUM)


def snapshots(host: Host, name: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "snapshot", "list", name, "--format", "json").stdout)
    return [one["name"] for one in found]


def state_of(host: Host, name: str) -> str:
    """The sum of what it holds; it is started when it does not run."""
    one = Instance(host, name)
    # The guest that a dead daemon had asked to stop takes its time.
    until(host, lambda: one.state in ("running", "stopped", "failed"))
    if one.state != "running":
        one.do("start")
    return one.sh(SUM)


HEAVY = ("create", "replace", "delete", "copy")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name in HEAVY else []) for name in ARGV]
)
def test_daemon_dies_while_layers_are_copied(crash_host: Host, name: str) -> None:
    host, argv = crash_host, ARGV[name]
    before, place = leftovers.settled(host), leftovers.mark(host)
    prepare(host)
    begin = time.monotonic()
    host.run(argv)
    took = time.monotonic() - begin
    for each in ("x", *(["y"] if name == "copy" else [])):
        syscont(host, "delete", "--force", each)
    for point in range(POINTS):
        old, later = prepare(host)
        answer = crash(host, argv, took * (point + 0.5) / POINTS, RESTART if point % 4 == 1 else "kill")
        there = json.loads(syscont(host, "list", "--format", "json").stdout)
        names = {one["name"] for one in there}
        assert {"x"} <= names <= {"x", "y"}
        sums = {one: state_of(host, one) for one in sorted(names)}
        assert sums["x"] in ((old, later) if name == "restore" else (later,))
        assert sums.get("y", later) == later
        if not answer["status"] and name == "copy":
            assert "y" in names
        for one in sorted(names):
            for snapshot in snapshots(host, one):
                syscont(host, "snapshot", "restore", one, snapshot)
                expected = {"new": (later,), "old": (old, later) if name == "replace" else (old,)}
                assert state_of(host, one) in expected[snapshot]
        if name != "delete":
            assert "old" in snapshots(host, "x")
        for one in sorted(names):
            syscont(host, "delete", "--force", one)
        leftovers.expect_same(host, before)
    said = place.since()
    assert "Traceback" not in said, said[-3000:]


@pytest.mark.heavy
def test_an_ephemeral_instance_outlives_the_restore_of_a_snapshot(crash_host: Host) -> None:
    """It was stopped, but not by who wanted it to be gone."""
    host, argv = crash_host, ["syscont", "snapshot", "restore", "x", "old"]
    took = 0.0
    for point in range(-1, POINTS):
        syscont(host, "launch", "busybox", "x", "--ephemeral")
        one = Instance(host, "x")
        one.sh(FILL.format("old"))
        old = one.sh(SUM)
        syscont(host, "snapshot", "create", "x", "old")
        if point < 0:
            begin = time.monotonic()
            host.run(argv)
            took = time.monotonic() - begin
        else:
            crash(host, argv, took * (point + 0.5) / POINTS, "kill")
            host.run(["systemctl", "restart", "syscontd"])
        assert state_of(host, "x") == old
        assert snapshots(host, "x") == ["old"]
        one.do("stop", "--force")
        until(host, lambda one=one: not one.seen())  # type: ignore[misc]


@pytest.mark.heavy
def test_host_loses_power_while_layers_are_copied(fresh_host: Host) -> None:
    host = fresh_host
    syscont(host, "image", "build", "busybox")
    old, later = prepare(host)
    syscont(host, "launch", "busybox", "gone", "--ephemeral")
    host.sh("sync")
    with host.spawn(["sh", "-c", "while :; do syscont snapshot create x new --reuse; done"]) as client:
        time.sleep(0.5 * host.slowness)
        host.power_cut()
        client.kill()
    host.boot()
    names = {one["name"] for one in json.loads(syscont(host, "list", "--format", "json").stdout)}
    assert names == {"x"}  # what is ephemeral has stopped
    assert state_of(host, "x") == later
    for snapshot, expected in (("new", later), ("old", old)):
        if snapshot in snapshots(host, "x"):
            syscont(host, "snapshot", "restore", "x", snapshot)
            assert state_of(host, "x") == expected
    assert "old" in snapshots(host, "x")
    uuid = Instance(host, "x").seen()["uuid"]
    kept = host.sh(f"ls /var/lib/syscont/instances/{uuid}/snapshots").split()
    assert len(kept) == len(snapshots(host, "x"))
    assert "Traceback" not in host.journal(unit="syscontd.service")
