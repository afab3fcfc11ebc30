# SPDX-License-Identifier: Apache-2.0
"""The host loses its power and boots again: what was said to be done is done, and nothing is half there."""

import json
import time
from typing import Any

import leftovers
import pytest
from guests import Instance, syscont, until
from hosts import Host

_CHECK = """
import sqlite3
database = sqlite3.connect("file:/var/lib/syscont/syscont.db?mode=ro", uri=True)
print(database.execute("PRAGMA integrity_check").fetchone()[0])
"""
_ARCHIVE = """
mkdir -p /root/image && cd /root/image
cp -a /var/lib/syscont/images/*/rootfs .
head -c 4M /dev/urandom >rootfs/large
printf 'architecture: x86_64\\ncreation_date: 1700000000\\n' >metadata.yaml
tar -cf /root/image.tar metadata.yaml rootfs
rm -rf /root/image
"""


def listed(host: Host) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(syscont(host, "list", "--format", "json").stdout)}


def prepare(host: Host) -> None:
    syscont(host, "image", "build", "busybox", "--alias", "mine/own")
    for name, priority in (("late", "1"), ("early", "10")):
        auto = ["--config", "boot.autostart=true", "--config", f"boot.autostart.priority={priority}"]
        syscont(host, "launch", "busybox", name, *auto)
    syscont(host, "launch", "busybox", "plain")
    syscont(host, "create", "busybox", "never-run")
    for name in ("late", "plain"):
        Instance(host, name).sh("echo kept >/root/kept; sync")
    syscont(host, "config", "set", "never-run", "user.note=kept")


def look_after(host: Host) -> None:
    until(host, lambda: {n for n, one in listed(host).items() if one["state"] == "running"} == {"early", "late"})
    found = listed(host)
    assert {name: one["state"] for name, one in found.items()} == {
        "early": "running", "late": "running", "plain": "stopped", "never-run": "stopped",
    }  # fmt: skip
    began = [int(Instance(host, name).systemd("ExecMainStartTimestampMonotonic")) for name in ("early", "late")]
    assert began == sorted(began)
    assert syscont(host, "config", "get", "never-run", "user.note").stdout == "kept\n"
    syscont(host, "start", "plain", "never-run")
    for name in ("late", "plain"):
        assert Instance(host, name).sh("cat /root/kept") == "kept\n"
    assert Instance(host, "early").address()
    (image,) = json.loads(syscont(host, "image", "list", "--format", "json").stdout)
    assert sorted(image["aliases"]) == ["busybox", "mine/own"]
    assert host.run(["python3", "-c", _CHECK]).stdout == "ok\n"
    state = leftovers.snapshot(host)["state"]
    assert state["instances"] == sorted(one["uuid"] for one in found.values())
    assert state["images"] == [image["fingerprint"]]
    assert "Traceback" not in host.journal(unit="syscontd.service")


def cut_during(host: Host, argv: list[str], seconds: float) -> None:
    with host.spawn(argv) as client:
        time.sleep(seconds * host.slowness)
        host.power_cut()
        client.kill()
    host.boot()


def interrupted(host: Host) -> None:
    prepare(host)
    host.sh(_ARCHIVE, timeout=60)
    host.sh("sync")
    # An archive whose end never comes: the power goes in the middle of the import.
    cut_during(host, ["sh", "-c", "(head -c 1M /root/image.tar; sleep 600) | syscont image import -"], 0.5)
    look_after(host)
    syscont(host, "stop", "--force", "plain", "never-run")
    cut_during(host, ["sh", "-c", "while true; do syscont create busybox x; syscont delete x; done"], 0.5)
    until(host, lambda: len([one for one in listed(host).values() if one["state"] == "running"]) == 2)
    syscont(host, "delete", "--force", "x", check=False)
    look_after(host)


def test_instances_come_back_after_a_power_cut(fresh_host: Host) -> None:
    interrupted(fresh_host)


@pytest.mark.needs_power_cut
def test_instances_come_back_when_unsynced_writes_are_lost(fresh_host: Host) -> None:
    interrupted(fresh_host)


def test_instances_come_back_after_a_reboot(fresh_host: Host) -> None:
    prepare(fresh_host)
    fresh_host.reboot()
    look_after(fresh_host)


def test_daemon_dies_while_it_starts_instances_at_boot(fresh_host: Host) -> None:
    host = fresh_host
    syscont(host, "image", "build", "busybox")
    names = [f"auto{number}" for number in range(4)]
    for name in names:
        auto = ["--config", "boot.autostart=true", "--config", "boot.autostart.delay=1"]
        syscont(host, "create", "busybox", name, *auto)
    host.reboot()
    until(host, lambda: any(one["state"] == "running" for one in listed(host).values()))
    host.run(["systemctl", "kill", "-s", "KILL", "syscontd.service"])
    until(host, lambda: syscont(host, "list", check=False).returncode == 0)
    until(host, lambda: all(one["state"] == "running" for one in listed(host).values()))
