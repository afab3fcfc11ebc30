# SPDX-License-Identifier: Apache-2.0
"""Snapshots: what they keep, what restoring brings back, that guests stand still for them and run on."""

import json
import time
from typing import Any

import leftovers
import pytest
from conftest import Launch
from guests import Instance, syscont, systemd_property, until
from hosts import Host

DATABASE = (
    "import sqlite3; "
    "print(*sqlite3.connect('/var/lib/syscont/syscont.db').execute('SELECT name FROM snapshots ORDER BY name'))"
)


def snapshots(host: Host, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "snapshot", "list", name, "--format", "json").stdout)
    return found


def names(host: Host, name: str) -> list[str]:
    return [one["name"] for one in snapshots(host, name)]


def refused(host: Host, *argv: str, status: int = 1) -> str:
    done = syscont(host, *argv, check=False)
    assert done.returncode == status, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


FILL = """
mkdir -p /srv/deep/er; echo one >/srv/file; ln /srv/file /srv/deep/second; ln -s /etc/passwd /srv/link
chown 1234:4321 /srv/file; chmod 4750 /srv/file; touch -t 200102030405 /srv/file; mkfifo /srv/pipe
rm /etc/fstab 2>/dev/null; rm -rf /etc/init.d; mkdir /etc/init.d; echo new >/etc/init.d/new
dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=100M 2>/dev/null
"""
LOOK = (
    "cd /srv; stat -c '%n %a %u %g %h %s %Y' file link pipe sparse deep/second; cat file; "
    "readlink link; ls -la /etc/init.d | tail -n +4 | wc -l; ls /etc | grep -v resolv.conf | md5sum"
)


def test_restore_brings_everything_back(host: Host, launch: Launch) -> None:
    one = launch()
    one.sh(FILL)
    before = one.sh(LOOK)
    syscont(host, "snapshot", "create", one.name, "good")
    assert one.state == "running"
    one.sh("rm -rf /srv /etc/init.d; echo other >/etc/passwd; echo new >/new")
    syscont(host, "config", "set", one.name, "user.later=1")
    leader = one.leader
    syscont(host, "snapshot", "restore", one.name, "good")
    assert one.state == "running"
    assert one.leader != leader
    assert one.sh(LOOK) == before
    assert one.sh("grep -c root /etc/passwd; ls /new 2>/dev/null || true") == "1\n"
    assert "user.later" not in one.seen()["config"]
    one.do("stop", "--force")
    syscont(host, "restore", one.name, "good")
    assert one.state == "stopped"
    one.do("start")
    assert one.sh(LOOK) == before


def test_life_of_a_snapshot(host: Host, launch: Launch) -> None:
    one = launch("", "-c", "snapshots.expiry=1d", verb="create")
    assert syscont(host, "snapshot", "create", one.name).stdout == "snap0\n"
    syscont(host, "snapshot", "create", one.name, "mine", "--no-expiry")
    assert syscont(host, "snapshot", "create", one.name).stdout == "snap1\n"
    assert names(host, one.name) == ["snap0", "mine", "snap1"]
    kept = {each["name"]: each["expires"] - each["created"] for each in snapshots(host, one.name) if each["expires"]}
    assert kept.keys() == {"snap0", "snap1"}
    assert all(abs(span / 1e6 - 86400) < 5 for span in kept.values())
    assert "--reuse" in refused(host, "snapshot", "create", one.name, "mine")
    syscont(host, "snapshot", "create", one.name, "mine", "--reuse")
    assert names(host, one.name) == ["snap0", "snap1", "mine"]
    syscont(host, "snapshot", "rename", one.name, "snap0", "first")
    syscont(host, "rename", f"{one.name}/first", f"{one.name}/1st")
    assert "snap1" in refused(host, "snapshot", "rename", one.name, "mine", "snap1")
    assert names(host, one.name) == ["1st", "snap1", "mine"]
    shown = json.loads(syscont(host, "snapshot", "show", one.name, "1st", "--format", "json").stdout)
    assert shown["config"]["snapshots.expiry"] == "1d"
    syscont(host, "delete", f"{one.name}/1st")
    syscont(host, "snapshot", "delete", one.name, "snap1", "mine")
    assert names(host, one.name) == []
    assert "no snapshot 'mine'" in refused(host, "snapshot", "restore", one.name, "mine", status=3)
    assert host.sh(f"ls /var/lib/syscont/instances/{one.seen()['uuid']}/snapshots") == ""


def test_names_that_are_none(host: Host, guest: Instance) -> None:
    with leftovers.nothing_happens(host):
        for name in ("..", ".", "a/b", "../../x", "a\nb", "a b", "x" * 64, " ", "%d", "$(x)", "\u00e9", "_a", "a\tb"):
            assert "snapshot name" in refused(host, "snapshot", "create", guest.name, name, status=2)
            for verb in ("restore", "delete", "show"):
                refused(host, "snapshot", verb, guest.name, name, status=3)


def test_a_running_guest_stands_still_and_runs_on(host: Host, launch: Launch) -> None:
    """Two files that are always written one after the other are never seen apart by more than one write."""
    one = launch()
    one.sh("dd if=/dev/zero of=/big bs=1M count=50")
    one.sh("(i=0; while :; do i=$((i+1)); echo $i >/a; echo $i >/b; done) >/dev/null 2>&1 &")
    for number in range(5):
        syscont(host, "snapshot", "create", one.name, f"s{number}")
        assert one.systemd("FreezerState") == "running"
    folder = f"/var/lib/syscont/instances/{one.seen()['uuid']}/snapshots"
    pairs = host.sh(f"for s in {folder}/*; do echo $(cat $s/upper/a) $(cat $s/upper/b); done").split("\n")
    for pair in filter(None, pairs):
        numbers = [int(word) for word in pair.split()]
        assert len(numbers) < 2 or numbers[0] - numbers[1] in (0, 1), pairs
    first = one.sh("cat /a || true")
    until(host, lambda: one.sh("cat /a || true") not in ("", first))


def test_a_paused_guest_stays_paused(host: Host, launch: Launch) -> None:
    one = launch()
    one.do("pause")
    syscont(host, "snapshot", "create", one.name, "s")
    assert one.state == "frozen"
    one.do("resume")


def test_instance_and_image_go_only_together_with_their_snapshots(host: Host, launch: Launch) -> None:
    one = launch(verb="create")
    syscont(host, "snapshot", "create", one.name, "s")
    syscont(host, "rename", one.name, f"{one.name}-renamed")
    assert names(host, f"{one.name}-renamed") == ["s"]
    assert one.name in refused(host, "image", "delete", "busybox")
    syscont(host, "delete", f"{one.name}-renamed")
    assert host.run(["python3", "-c", DATABASE]).stdout.strip() == ""


def test_protected_instances_lose_no_snapshot_by_deletion(host: Host, launch: Launch) -> None:
    one = launch("", "-c", "security.protection.delete=true", verb="create")
    syscont(host, "snapshot", "create", one.name, "s")
    assert "protected" in refused(host, "delete", one.name)
    assert names(host, one.name) == ["s"]
    syscont(host, "config", "unset", one.name, "security.protection.delete")


def test_copies_are_systems_of_their_own(host: Host, launch: Launch) -> None:
    one = launch("", "-c", "user.note=hello")
    one.sh("echo data >/data; echo 0123456789abcdef0123456789abcdef >/etc/machine-id; echo old >/etc/hostname")
    syscont(host, "snapshot", "create", one.name, "s")
    one.sh("echo later >/data")
    copies = [Instance(host, f"{one.name}{suffix}") for suffix in ("-all", "-only", "-snap")]
    try:
        syscont(host, "copy", one.name, copies[0].name)
        syscont(host, "copy", one.name, copies[1].name, "--instance-only", "--ephemeral", "-c", "user.note=other")
        syscont(host, "cp", f"{one.name}/s", copies[2].name, "-d", "eth0,name=lan0")
        assert [names(host, each.name) for each in copies] == [["s"], [], []]
        addresses = {each.seen()["config"]["volatile.eth0.hwaddr"] for each in (one, *copies)}
        assert len(addresses) == 4
        assert [each.seen()["config"]["user.note"] for each in copies] == ["hello", "other", "hello"]
        assert [each.seen()["ephemeral"] for each in copies] == [False, True, False]
        for each, data in zip(copies, ("later", "later", "data"), strict=True):
            each.do("start")
            assert each.sh("cat /data; cat /etc/machine-id; hostname; ls /etc/hostname 2>/dev/null || true") == (
                f"{data}\n{each.name}\n"
            )
        assert copies[2].seen()["devices"]["eth0"]["name"] == "lan0"
        assert copies[2].seen()["devices"]["eth0"]["type"] == "nic"
        syscont(host, "snapshot", "restore", copies[0].name, "s")
        assert copies[0].sh("cat /data") == "data\n"
        # Of two with one address, or one name of the host's end, one would not start.
        for what in ("hwaddr", "host_name"):
            assert len({each.seen()["config"][f"volatile.eth0.{what}"] for each in (one, *copies)}) == 4
        assert one.sh("cat /data; cat /etc/machine-id") == "later\n0123456789abcdef0123456789abcdef\n"
    finally:
        for each in copies:
            each.do("delete", "--force", check=False)


def test_copies_that_are_refused_leave_nothing(host: Host, guest: Instance) -> None:
    with leftovers.nothing_happens(host):
        refused(host, "copy", guest.name, guest.name)
        refused(host, "copy", guest.name, "bad_name", status=2)
        refused(host, "copy", guest.name, "nowhere:x", status=3)
        refused(host, "copy", f"{guest.name}/none", "x", status=3)
        refused(host, "copy", f"{guest.name}/../x", "x", status=3)
        refused(host, "copy", guest.name, "x", "-c", "limits.memory=lots", status=2)
        refused(host, "copy", guest.name, "x", "-p", "none", status=3)
        refused(host, "copy", guest.name, "x", "--storage", "fast", status=3)
        refused(host, "move", guest.name, "x")


def test_ephemeral_instances_go_when_they_stop(host: Host, launch: Launch) -> None:
    for end in ("stop", "poweroff", "kill"):
        one = launch("", "--ephemeral")
        one.do("restart")
        one.sh("(sleep 0.2; reboot -f) >/dev/null 2>&1 &")
        leader = one.leader
        until(host, lambda one=one, leader=leader: one.leader not in (0, leader))  # type: ignore[misc]
        assert one.sh("echo inside") == "inside\n"
        if end == "stop":
            one.do("stop", "--force")
        elif end == "poweroff":
            one.sh("poweroff -f", check=False)
        else:
            host.sh(f"kill -9 {one.leader}")
        until(host, lambda one=one: not one.seen())  # type: ignore[misc]


def test_ephemeral_instance_stops_while_the_daemon_is_away(host: Host, launch: Launch) -> None:
    one, never_run = launch("", "-e"), launch("", "-e", verb="create")
    leader = one.leader
    host.sh(f"systemctl stop syscontd.socket syscontd.service; kill -9 {leader}; sleep 0.3")
    host.sh("systemctl start syscontd.socket syscontd.service")
    until(host, lambda: not one.seen())
    assert never_run.state == "stopped"


def test_schedule_is_a_timer(host: Host, launch: Launch) -> None:
    one = launch("", "-c", "snapshots.schedule=0 3 * * 1-5", "-c", "snapshots.pattern=auto-%d", verb="create")
    timer = f"syscont-snapshot@{one.name}.timer"
    until(host, lambda: systemd_property(host, timer, "ActiveState") == "active")
    assert "Mon..Fri *-*-* 03:00:00" in systemd_property(host, timer, "TimersCalendar")
    service = f"syscont-snapshot@{one.name}.service"
    host.run(["systemctl", "start", service])
    assert names(host, one.name) == []  # it is stopped
    one.do("start")
    host.run(["systemctl", "start", service])
    assert names(host, one.name) == ["auto-0"]
    host.run(["systemctl", "restart", "syscontd.service"])
    until(host, lambda: systemd_property(host, timer, "ActiveState") == "active")
    syscont(host, "config", "set", one.name, "snapshots.schedule=@hourly, @startup")
    until(host, lambda: "*:00:00" in systemd_property(host, timer, "TimersCalendar"))
    assert systemd_property(host, timer, "FixedRandomDelay") == "yes"
    one.do("restart")
    until(host, lambda: names(host, one.name) == ["auto-0", "auto-1"])
    syscont(host, "config", "unset", one.name, "snapshots.schedule")
    until(host, lambda: systemd_property(host, timer, "ActiveState") == "inactive")


def test_expired_snapshots_go(host: Host, launch: Launch) -> None:
    one = launch(verb="create")
    syscont(host, "snapshot", "create", one.name, "stays")
    soon = (time.time_ns() + 2_000_000_000) // 1000
    call = ["busctl", "call", "org.syscont.Manager", f"/org/syscont/Manager/instance/{one.name}"]
    host.run([*call, "org.syscont.Instance", "CreateSnapshot", "sa{sv}", "goes", "1", "expires", "t", str(soon)])
    until(host, lambda: names(host, one.name) == ["stays", "goes"])
    until(host, lambda: names(host, one.name) == ["stays"])


@pytest.mark.heavy
def test_a_timer_elapses_and_what_it_made_expires(host: Host, launch: Launch) -> None:
    """Each minute, by systemd's own clock, with nobody asking; the guest runs on."""
    pattern = "snapshots.pattern={{ creation_date|date:'2006-01-02_15-04' }}"
    one = launch("", "-c", "snapshots.schedule=* * * * *", "-c", pattern, "-c", "snapshots.expiry=1M")
    leader = one.leader
    made = until(host, lambda: snapshots(host, one.name), patience=75)[0]
    taken = time.localtime(made["created"] / 1e6)
    assert made["name"] == host.sh(f"date -d @{time.mktime(taken):.0f} +%Y-%m-%d_%H-%M").strip()
    assert taken.tm_sec < 30
    assert made["expires"] // 1_000_000 - made["created"] // 1_000_000 in (59, 60, 61)
    log = host.run(["journalctl", "-o", "cat", "-u", f"syscont-snapshot@{one.name}.service"]).stdout
    assert f"Finished syscont-snapshot@{one.name}.service" in log
    until(host, lambda: made["name"] not in names(host, one.name), patience=90)
    syscont(host, "config", "unset", one.name, "snapshots.schedule")
    assert one.leader == leader


@pytest.mark.parametrize(
    "value", ["* * * *", "@never-was", "0 3 * * *\nfoo", "*-*-* 00:00:00", "61 * * * *", "$(reboot) * * * *"]
)
def test_schedules_that_are_none(host: Host, guest: Instance, value: str) -> None:
    assert "snapshots.schedule" in refused(host, "config", "set", guest.name, f"snapshots.schedule={value}", status=2)


def test_nothing_is_left(host: Host, busybox: str) -> None:
    with leftovers.nothing_happens(host):
        syscont(host, "launch", busybox, "gone", "-c", "snapshots.schedule=@daily")
        for name in ("a", "b"):
            syscont(host, "snapshot", "create", "gone", name)
        syscont(host, "snapshot", "restore", "gone", "a")
        syscont(host, "copy", "gone", "gone2")
        syscont(host, "delete", "--force", "gone", "gone2")
