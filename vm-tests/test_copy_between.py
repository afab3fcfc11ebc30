# SPDX-License-Identifier: Apache-2.0
"""Instances that go from one host to another: whole, or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import syscont, until
from hosts import ContainerHost, Host

FAR, NEAR = "198.19.0.1", "198.19.0.2"
PORT = 8443
MOVES = """
import sqlite3
print(sqlite3.connect("/var/lib/syscont/syscont.db").execute("SELECT id FROM moves").fetchall())
"""
FILL = """
mkdir -p /srv/sub; echo one >/srv/file; ln /srv/file /srv/sub/second; ln -s /nowhere /srv/link; mkfifo /srv/pipe
chown 12:34 /srv/file; chmod 6755 /srv/file; touch -t 200102030405 /srv/file; rm -rf /etc/init.d /media
"""
LOOK = (
    "cd /srv; stat -c '%n %a %u %g %h %s %Y' file link pipe sub/second; cat file; readlink link; "
    "cd /; ls -d /etc/* /[a-z]* | grep -v resolv.conf | grep -v machine-id | md5sum"
)


@pytest.fixture(scope="module")
def base(deb: Path) -> Iterator[ContainerHost]:
    with ContainerHost() as one:
        one.install_deb(deb)
        one.power_off()
        yield one


@pytest.fixture(scope="module")
def far(base: ContainerHost) -> Iterator[ContainerHost]:
    with ContainerHost(base=base) as one:
        syscont(one, "image", "build", "busybox")
        yield one


@pytest.fixture(scope="module")
def near(base: ContainerHost, far: ContainerHost) -> Iterator[ContainerHost]:
    """It knows far, which does not know it; near does not listen for others."""
    with ContainerHost(base=base) as one:
        far.join(one)
        syscont(far, "config", "set", f"core.https_address={FAR}:{PORT}")
        token = syscont(far, "remote", "token", "near").stdout.strip()
        syscont(one, "remote", "add", "far", token)
        syscont(one, "image", "build", "busybox")
        yield one


def names(host: Host) -> list[str]:
    return [str(one["name"]) for one in json.loads(syscont(host, "list", "--format", "json").stdout)]


def seen(host: Host, name: str) -> dict[str, Any]:
    found = json.loads(syscont(host, "list", "--format", "json").stdout)
    return next(one for one in found if one["name"] == name)


def snapshots(host: Host, name: str) -> list[dict[str, Any]]:
    found = json.loads(syscont(host, "snapshot", "list", name, "--format", "json").stdout)
    return [{key: one[key] for key in ("name", "created", "expires")} for one in found]


def inside(host: Host, name: str, script: str) -> str:
    return syscont(host, "exec", name, "--", "sh", "-c", script).stdout


def prepare(host: Host, name: str) -> tuple[str, str]:
    """A stopped container with a snapshot; what is in both."""
    syscont(host, "launch", "busybox", name, "-c", "user.note=a\nb")
    inside(host, name, FILL)
    before = inside(host, name, LOOK)
    syscont(host, "snapshot", "create", name, "first")
    inside(host, name, "echo two >/srv/file; echo 0123456789abcdef0123456789abcdef >/etc/machine-id")
    after = inside(host, name, LOOK)
    syscont(host, "stop", "--force", name)
    return before, after


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_with_snapshots(far: Host, near: Host, there: bool) -> None:
    """Far waits in both directions, as near does not listen."""
    source, target = (near, far) if there else (far, near)
    before, after = prepare(source, "web1")
    argv = ["copy", "web1", "far:"] if there else ["copy", "far:web1", "web1"]
    assert syscont(near, *argv).stderr == ""
    assert names(source) == names(target) == ["web1"]
    one, other = seen(source, "web1"), seen(target, "web1")
    assert snapshots(source, "web1") == snapshots(target, "web1")
    assert other["config"]["user.note"] == "a\nb"
    assert other["uuid"] != one["uuid"]
    assert other["config"]["volatile.eth0.hwaddr"] != one["config"]["volatile.eth0.hwaddr"]
    syscont(target, "start", "web1")
    assert inside(target, "web1", LOOK) == after
    assert inside(target, "web1", "cat /etc/machine-id") == ""
    syscont(target, "stop", "--force", "web1")
    syscont(target, "snapshot", "restore", "web1", "first")
    syscont(target, "start", "web1")
    assert inside(target, "web1", LOOK) == before
    for host in (near, far):
        syscont(host, "delete", "--force", "web1")
        assert len(json.loads(syscont(host, "image", "list", "--format", "json").stdout)) == 1


@pytest.mark.parametrize("there", [False, True])
def test_a_move(far: Host, near: Host, there: bool) -> None:
    """It is what it was, down to its addresses, and is here no more."""
    source, target = (near, far) if there else (far, near)
    _, after = prepare(source, "web1")
    one, had = seen(source, "web1"), snapshots(source, "web1")
    argv = ["move", "web1", "far:web2"] if there else ["move", "far:web1", "web2"]
    assert syscont(near, *argv).stderr == ""
    assert (names(source), names(target)) == ([], ["web2"])
    other = seen(target, "web2")
    for key in ("uuid", "created", "profiles", "devices"):
        assert other[key] == one[key]
    assert other["config"]["volatile.eth0.hwaddr"] == one["config"]["volatile.eth0.hwaddr"]
    assert snapshots(target, "web2") == had
    syscont(target, "start", "web2")
    assert inside(target, "web2", LOOK) == after
    assert inside(target, "web2", "cat /etc/machine-id") == "0123456789abcdef0123456789abcdef\n"
    syscont(target, "delete", "--force", "web2")
    for host in (near, far):
        settled(host)


def settled(host: Host) -> None:
    """Nothing of what was between hosts is left."""
    until(host, lambda: host.run(["/usr/bin/python3", "-c", MOVES]).stdout == "[]\n")
    until(host, lambda: len(json.loads(syscont(host, "image", "list", "--format", "json").stdout)) == 1)
    assert host.sh("ls /var/lib/syscont/instances | wc -l") == f"{len(names(host))}\n"
