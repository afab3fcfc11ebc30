# SPDX-License-Identifier: Apache-2.0
"""Either daemon dies, or the network does, while an instance goes from one host to another: a copy is whole or not
there, and what is moved is on one of the two.

CRASH_POINTS=24 pytest vm-tests/test_copy_between_crash.py sweeps each with as many moments (2 if not set).
"""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from far_host import FAR, PORT, names
from guests import on_terminal, syscont, until
from hosts import Host
from test_copy_between import (
    BUS,
    LOOK,
    far,
    hosts,
    image_count,
    inside,
    moves_settled,
    near,
    prepare,
    settled,
    snapshots,
)
from test_crash import POINTS

__all__ = ["far", "hosts", "near"]

KILL = ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "syscontd.service"]
LIMIT = 40.0
COUNTED = f"{LOOK}; cat /srv/count 2>/dev/null || true"
BIG = 150 << 20


@pytest.fixture(scope="module")
def sums(near: Host, far: Host) -> str:
    """Of x, which is on far and stopped, and has a snapshot. Both have images of their own, having been on near."""
    made = prepare(far, "x")[1]
    syscont(near, "move", "far:x", "x")
    syscont(near, "move", "x", "far:x")
    return made


@pytest.fixture
def big(near: Host, far: Host) -> Iterator[str]:
    """One that takes a while to send, on far."""
    syscont(far, "create", "busybox", "big")
    far.sh(f"head -c {BIG} /dev/urandom >/root/data; syscont file push /root/data big/root/data; rm /root/data")
    counts = [image_count(host) for host in (near, far)]
    yield "big"
    syscont(far, "delete", "--force", "big", check=False)
    for host, count in zip((near, far), counts, strict=True):
        settled(host, count)


def back(host: Host) -> bool:
    return not syscont(host, "list", check=False).returncode


def run_and_break(near: Host, argv: list[str], broken: Host | None, delay: float) -> tuple[bool, str]:
    """Whether the command ended well, and what it said."""
    with near.spawn(["syscont", *argv], stdin=subprocess.DEVNULL) as process:
        time.sleep(delay)
        if broken:
            broken.run(KILL)
        assert process.stderr
        said = process.stderr.read()
        assert "Traceback" not in said, said
        return process.wait(LIMIT) == 0, said


def took(near: Host, argv: list[str]) -> float:
    begin = time.monotonic()
    assert run_and_break(near, argv, None, 0)[0]
    return time.monotonic() - begin


def check(host: Host, sums: str) -> None:
    syscont(host, "start", "x")
    assert inside(host, "x", LOOK) == sums
    assert "first" in syscont(host, "snapshot", "list", "x", "--format", "csv").stdout
    syscont(host, "stop", "--force", "x")


@pytest.mark.parametrize("at", ["source", "target"])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("verb", ["copy", "move"])
def test_either_daemon_is_killed(far: Host, near: Host, sums: str, verb: str, there: bool, at: str) -> None:
    if there:
        syscont(near, "move", "far:x", "x")
    source, target = (near, far) if there else (far, near)
    argv = [verb, "x", "far:x"] if there else [verb, "far:x", "x"]
    home = ["move", "far:x", "x"] if there else ["move", "x", "far:x"]
    whole = took(near, argv)
    if verb == "move":
        syscont(near, *home)
    else:
        syscont(target, "delete", "x")
    for point in range(POINTS):
        broken = source if at == "source" else target
        done, said = run_and_break(near, argv, broken, whole * (point + 1) / (POINTS + 1))
        for host in (near, far):
            until(host, lambda host=host: back(host))  # type: ignore[misc]
            moves_settled(host)
        for host in (near, far):
            settled(host, 3 if names(host) else 1)
        here, gone = names(target) == ["x"], names(source) == []
        assert here or not done, said
        assert gone is (verb == "move" and here), (here, gone, said)
        for host in (near, far):
            assert "Traceback" not in host.journal(unit="syscontd.service")
        if here:
            check(target, sums)
            if verb == "move":
                syscont(near, *home)
            else:
                syscont(target, "delete", "x")
        else:
            check(source, sums)
    if there:
        syscont(near, "move", "x", "far:x")


@pytest.mark.parametrize("at", ["source", "target"])
def test_a_refresh_is_cut_off(far: Host, near: Host, sums: str, at: str) -> None:
    """The copy is what it was, or what the source is, and the next refresh makes it that."""
    syscont(far, "snapshot", "create", "x", "was")
    syscont(near, "copy", "far:x", "x")
    argv = ["copy", "far:x", "x", "--refresh"]
    whole = took(near, argv)
    for point in range(POINTS):
        syscont(far, "start", "x")
        # Not a file that was there before: to change one of two links to it parts them, which overlayfs does not show.
        inside(far, "x", f"echo {point} >>/srv/count")
        after = inside(far, "x", COUNTED)
        syscont(far, "snapshot", "create", "x", f"s{point}")
        syscont(far, "stop", "--force", "x")
        done, _ = run_and_break(near, argv, near if at == "target" else far, whole * (point + 1) / (POINTS + 1))
        for host in (near, far):
            until(host, lambda host=host: back(host))  # type: ignore[misc]
        found = inside_stopped(near, "x")
        assert found == after or (not done and found == sums)
        syscont(near, *argv)
        assert inside_stopped(near, "x") == after
        assert snapshots(near, "x") == snapshots(far, "x")
        sums = after
    syscont(near, "delete", "x")
    settled(near)
    syscont(far, "snapshot", "restore", "x", "was")
    for name in ("was", *(f"s{point}" for point in range(POINTS))):
        syscont(far, "snapshot", "delete", "x", name)


def inside_stopped(host: Host, name: str) -> str:
    syscont(host, "start", name)
    found = inside(host, name, COUNTED)
    syscont(host, "stop", "--force", name)
    return found


EDIT = """
import json, sqlite3, sys
name, move = json.loads(sys.argv[1])
db = sqlite3.connect("/var/lib/syscont/syscont.db", isolation_level=None)
if name:
    uuid, body = db.execute("SELECT uuid, body FROM instances WHERE name=?", (name,)).fetchone()
    db.execute("UPDATE instances SET body=json_set(body, '$.phase', 'arriving') WHERE uuid=?", (uuid,))
    move["instance"] = uuid
if move:
    db.execute("INSERT INTO moves VALUES (?, ?)", (move["id"], json.dumps(move)))
"""
UNITS = ["syscontd.socket", "syscontd.service"]


def as_if_cut_off(host: Host, arriving: str, move: dict[str, object]) -> None:
    """Stopped, and as the database is in the moment in which the target can't know what the source decides."""
    host.run(["systemctl", "stop", *UNITS])
    host.run(["/usr/bin/python3", "-c", EDIT, json.dumps([arriving, move])])


@pytest.mark.parametrize(
    ("dials", "decided", "taken"),
    [
        ("source", False, False),
        ("source", True, False),
        ("target", False, False),
        ("target", True, False),
        ("target", False, True),
    ],
)
def test_it_is_settled_after_a_restart(far: Host, near: Host, dials: str, decided: bool, taken: bool) -> None:
    """Near calls, as it does not listen; it starts first, and asks again until far is there."""
    target = near if dials == "target" else far
    syscont(target, "create", "busybox", "y")
    keys = {host: json.loads(host.run([*BUS, "GetIdentity"]).stdout)["data"][0] for host in (near, far)}
    rows: dict[Host, dict[str, object]] = {}
    for host, other in ((near, far), (far, near)):
        rows[host] = {
            "id": "a" * 64,
            "source": host is not target,
            "instance": "gone",
            "name": "y",
            "peer": keys[other],
            "addresses": [f"{FAR}:{PORT}"] if host is near else [],
            "decided": decided and host is not target,
        }
        # What a source that is called has not decided it has forgotten.
        forgotten = host is far and dials == "target" and not decided
        as_if_cut_off(host, "y" if host is target else "", {} if forgotten else rows[host])
    near.run(["systemctl", "start", *UNITS])
    if target is near:
        for argv in (["start", "y"], ["delete", "y"], ["config", "set", "y", "user.a=b"], ["rename", "y", "z"]):
            done = syscont(near, *argv, check=False)
            assert done.returncode, argv
            assert "on its way here" in done.stderr, done.stderr
    if target is near and taken:
        syscont(near, "move", "y", "--take")
        assert "not on its way" in syscont(near, "move", "y", "--take", check=False).stderr
        syscont(near, "start", "y")
    far.run(["systemctl", "start", *UNITS])
    for host in (near, far):
        moves_settled(host)
    if taken:
        syscont(near, "delete", "--force", "y")
        return
    until(target, lambda: ("y" in names(target)) is decided)
    if decided:
        until(target, lambda: syscont(target, "start", "y", check=False).returncode == 0)
        syscont(target, "delete", "--force", "y")


def operations(host: Host, kind: str) -> list[dict[str, object]]:
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return [one for one in found if one["kind"] == kind and one["status"] == "running"]


@pytest.mark.parametrize("at", ["source", "target"])
@pytest.mark.parametrize("verb", ["copy", "move"])
def test_it_is_cancelled(far: Host, near: Host, big: str, verb: str, at: str) -> None:
    host, kind = (far, "send-instance") if at == "source" else (near, "receive-instance")
    with near.spawn(["syscont", verb, "far:big", "big"], stdin=subprocess.DEVNULL) as process:
        (found,) = until(host, lambda: [one for one in operations(host, kind) if int(str(one["done"])) > 0])
        assert operations(far if host is near else near, "receive-instance" if host is far else "send-instance")
        syscont(host, "operation", "cancel", str(found["id"]))
        assert process.wait(LIMIT)
        assert process.stderr
        assert "cancelled" in process.stderr.read()
    assert "big" in names(far)
    assert "big" not in names(near)


def test_ctrl_c(far: Host, near: Host, big: str) -> None:
    status, shown = on_terminal(near, ["syscont", "copy", "far:big", "big"], ("MiB", "\x03"))
    assert status == 130, shown
    assert "big" not in names(near)


def test_the_command_is_killed(far: Host, near: Host, big: str) -> None:
    """The daemons do what they were asked for."""
    with near.spawn(["syscont", "copy", "far:big", "big"], stdin=subprocess.DEVNULL) as process:
        until(near, lambda: operations(near, "receive-instance"))
        near.sh("kill -9 $(pgrep -f '^/usr/bin/python3 -IS .*copy far:big')")
        process.wait(LIMIT)
    until(near, lambda: not operations(near, "receive-instance"))
    assert "big" in names(near)
    syscont(near, "delete", "big")


@pytest.mark.heavy
@pytest.mark.parametrize("verb", ["copy", "move"])
def test_the_network_is_cut(far: Host, near: Host, big: str, verb: str) -> None:
    with near.spawn(["syscont", verb, "far:big", "big"], stdin=subprocess.DEVNULL) as process:
        until(near, lambda: [one for one in operations(near, "receive-instance") if int(str(one["done"])) > 0])
        far.sh("ip link set lan0 down")
        try:
            until(near, lambda: not operations(near, "receive-instance"), patience=200)
            until(far, lambda: not operations(far, "send-instance"), patience=60)
        finally:
            far.sh("ip link set lan0 up; ip address replace 198.19.0.1/24 dev lan0")
        assert process.wait(LIMIT)
    assert "big" in names(far)
    assert "big" not in names(near)
