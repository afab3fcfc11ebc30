# SPDX-License-Identifier: Apache-2.0
"""Containers that go to another host while they run: copied first, then stopped for the rest, and started there.

CRASH_POINTS=24 pytest vm-tests/test_move_running.py sweeps each crash with as many moments (2 if not set).
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from far_host import names
from guests import syscont, until
from hosts import Host
from test_copy_between import far, hosts, inside, moves_settled, near, seen, settled
from test_crash import POINTS

__all__ = ["far", "hosts", "near"]

KILL = ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "syscontd.service"]
PAYLOAD = 100 << 20
"""Bytes that can't be compressed: what is done while they are sent is done after the copy."""
LIMIT = 60.0
BEFORE = r"""
mkdir -p /srv/kept/deep /srv/emptied /srv/refilled /srv/renamed/below /srv/was_folder /srv/links
for name in same content mode owner time gone; do echo "$name" >/srv/kept/$name; done
echo deep >/srv/kept/deep/file; echo x >/srv/emptied/x; echo x >/srv/refilled/x; echo y >/srv/renamed/below/y
echo z >/srv/was_folder/z; echo file >/srv/was_file; ln -s /old /srv/link; mkfifo /srv/pipe
echo one >/srv/links/a; ln /srv/links/a /srv/links/b; echo two >/srv/links/c; ln /srv/links/c /srv/links/d
echo '"odd' >"/srv/kept/$(printf -- '-\nname \\ \377')"
"""
AFTER = r"""
echo other >/srv/kept/content; chmod 4711 /srv/kept/mode; chown 12:34 /srv/kept/owner; rm /srv/kept/gone
was=$(stat -c %y /srv/kept/time | cut -c1-19); echo TIME >/srv/kept/time; touch -d "$was" /srv/kept/time
rm /srv/emptied/x; rm -rf /srv/refilled; mkdir /srv/refilled; echo new >/srv/refilled/new
mv /srv/renamed /srv/moved; rm -rf /srv/was_folder; echo now >/srv/was_folder; rm /srv/was_file; mkdir /srv/was_file
echo in >/srv/was_file/in; ln -sfn /new /srv/link; rm /srv/pipe; echo 3 >/srv/pipe
echo changed >>/srv/links/a; ln /srv/links/c /srv/links/e; rm /srv/links/d
mkdir /srv/late; chmod 1777 /srv/late; echo late >/srv/late/file
echo more >>"/srv/kept/$(printf -- '-\nname \\ \377')"
# Of the image's own.
rm -rf /etc/init.d; mv /bin /usr/bin.moved; ln -s usr/bin.moved /bin
"""
LOOK = r"""
cd /srv; find . | sort | while IFS= read -r n; do stat -c '%n %f %u %g %h %Y' "$n"; readlink "$n" || true; done
find . -type f ! -name payload -exec md5sum {} + | sort; ls /etc /usr/bin.moved
"""


@pytest.fixture
def guest(far: Host, near: Host) -> Iterator[str]:
    """One that runs on near, with something to send; gone afterwards, wherever it is then."""
    syscont(near, "launch", "busybox", "web")
    inside(near, "web", BEFORE)
    inside(near, "web", f"head -c {PAYLOAD} /dev/urandom >/srv/payload")
    yield "web"
    for host in (near, far):
        syscont(host, "delete", "--force", "web", check=False)
        settled(host)


@contextmanager
def slowly(host: Host) -> Iterator[None]:
    """So that there is time for what is to be done while a copy is on its way."""
    host.sh("tc qdisc add dev lan0 root tbf rate 120mbit burst 256k latency 400ms")
    yield
    host.sh("tc qdisc del dev lan0 root")


def sending(host: Host) -> dict[str, str]:
    """The operation, if it is under way."""
    found = json.loads(syscont(host, "operation", "list", "--format", "json").stdout)
    return next((one for one in found if one["kind"] == "send-instance" and one["status"] == "running"), {})


def stage(host: Host) -> str:
    return str(sending(host).get("stage"))


def runs(host: Host, name: str) -> None:
    until(host, lambda: seen(host, name)["state"] == "running")


def test_what_changes_meanwhile_comes_along(near: Host, far: Host, guest: str) -> None:
    one = seen(near, guest)
    with near.spawn(["syscont", "move", guest, "far:"]) as moving:
        with slowly(near):
            until(near, lambda: stage(near) == "pack")
            inside(near, guest, AFTER)
            expected = inside(near, guest, LOOK)
            assert stage(near) == "pack"
        _, said = moving.communicate(timeout=LIMIT)
        assert moving.returncode == 0, said
    assert "it was stopped for" in said
    assert (names(near), names(far)) == ([], [guest])
    other = seen(far, guest)
    assert other["state"] == "running"
    for key in ("uuid", "created", "profiles", "devices"):
        assert other[key] == one[key]
    assert other["config"]["volatile.eth0.hwaddr"] == one["config"]["volatile.eth0.hwaddr"]
    assert inside(far, guest, LOOK) == expected
    assert far.sh("systemctl is-active syscont@web.service") == "active\n"


def test_one_that_is_ephemeral(near: Host, far: Host) -> None:
    syscont(near, "launch", "busybox", "brief", "--ephemeral")
    syscont(near, "move", "brief", "far:")
    assert (names(near), names(far)) == ([], ["brief"])
    assert seen(far, "brief")["state"] == "running"
    syscont(far, "stop", "--force", "brief")
    until(far, lambda: names(far) == [])


def test_it_stays_when_it_can_not_start_there(near: Host, far: Host, guest: str) -> None:
    near.sh("ip link add only-here type bridge")
    syscont(near, "device", "add", guest, "eth1", "nic", "nictype=bridged", "parent=only-here")
    done = syscont(near, "move", guest, "far:", check=False)
    assert done.returncode == 1
    assert "only-here" in done.stderr
    assert names(far) == []
    runs(near, guest)
    syscont(near, "device", "remove", guest, "eth1")
    near.sh("ip link del only-here")


def test_what_it_has_of_this_host_is_not_left_behind(near: Host, far: Host, guest: str) -> None:
    """As it goes on there by itself: that is refused before anything is stopped, what the other host lacks after it."""
    leader = seen(near, guest)["leader"]
    done = syscont(near, "move", "--stateful", guest, "far:", check=False)
    assert f"{guest} is a container: what its processes have in memory can't be kept (CRIU is not used" in done.stderr
    near.sh("mkdir -p /srv/here")
    syscont(near, "device", "add", guest, "here", "disk", "source=/srv/here", "path=/mnt")
    done = syscont(near, "move", guest, "far:", check=False)
    assert "device here (a folder of this host)" in done.stderr
    assert (seen(near, guest)["leader"], names(far)) == (leader, [])
    syscont(near, "device", "remove", guest, "here")
    syscont(near, "network", "create", "alone", "ipv6.address=none")
    syscont(near, "network", "attach", "alone", guest, "eth1")
    done = syscont(near, "move", guest, "far:", check=False)
    assert "device eth1" in done.stderr
    assert names(far) == []
    runs(near, guest)
    syscont(near, "network", "detach", "alone", guest)
    syscont(near, "network", "delete", "alone")


def test_cancelled_it_runs_on(near: Host, far: Host, guest: str) -> None:
    leader = seen(near, guest)["leader"]
    with slowly(near), near.spawn(["syscont", "move", guest, "far:"]) as moving:
        until(near, lambda: stage(near) == "pack")
        syscont(near, "operation", "cancel", sending(near)["id"])
        assert moving.wait(LIMIT) == 1
    assert (names(near), names(far)) == ([guest], [])
    assert seen(near, guest)["leader"] == leader


def test_one_that_is_paused_is_refused(near: Host, guest: str) -> None:
    syscont(near, "pause", guest)
    done = syscont(near, "move", guest, "far:", check=False)
    assert done.returncode == 1
    assert "frozen" in done.stderr
    syscont(near, "resume", guest)


@pytest.mark.parametrize("at", ["source", "target"])
def test_either_daemon_is_killed(near: Host, far: Host, guest: str, at: str) -> None:
    """It runs on one of the two afterwards."""
    begin = time.monotonic()
    syscont(near, "move", guest, "far:")
    whole = time.monotonic() - begin
    syscont(near, "move", f"far:{guest}", guest)
    for point in range(POINTS):
        with near.spawn(["syscont", "move", guest, "far:"], stdin=subprocess.DEVNULL) as moving:
            time.sleep(whole * (point + 1) / (POINTS + 1))
            (near if at == "source" else far).run(KILL)
            _, said = moving.communicate(timeout=LIMIT)
            done = moving.returncode == 0
        for host in (near, far):
            until(host, lambda host=host: not syscont(host, "list", check=False).returncode)  # type: ignore[misc]
            moves_settled(host)
        there = [host for host in (near, far) if guest in names(host)]
        assert len(there) == 1, said
        assert there == [far] or not done, said
        runs(there[0], guest)
        assert inside(there[0], guest, "cat /srv/kept/same") == "same\n"
        for host in (near, far):
            assert "Traceback" not in host.journal(unit="syscontd.service")
        if there == [far]:
            syscont(near, "move", f"far:{guest}", guest)
