# SPDX-License-Identifier: Apache-2.0
"""Instances that go from one host to another: whole, or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import far_host
import pytest
from far_host import FAR, NEAR, PORT, names
from guests import python, syscont, until
from hosts import ContainerHost, Host

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
def hosts(deb: Path) -> Iterator[tuple[Host, Host]]:
    """near knows far, which does not know it; near does not listen for others."""
    with far_host.installed(ContainerHost, deb) as base, far_host.joined(base) as both:
        for one in both:
            syscont(one, "image", "build", "busybox")
        yield both


@pytest.fixture(scope="module")
def near(hosts: tuple[Host, Host]) -> Host:
    return hosts[0]


@pytest.fixture(scope="module")
def far(hosts: tuple[Host, Host]) -> Host:
    return hosts[1]


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
        settled(host)


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


def image_count(host: Host) -> int:
    return len(json.loads(syscont(host, "image", "list", "--format", "json").stdout))


def moves_settled(host: Host) -> None:
    until(host, lambda: host.run(["/usr/bin/python3", "-c", MOVES]).stdout == "[]\n")


def settled(host: Host, images: int = 1) -> None:
    """Nothing of what was between hosts is left."""
    moves_settled(host)
    until(host, lambda: image_count(host) == images)
    assert host.sh("ls /var/lib/syscont/instances | wc -l") == f"{len(names(host))}\n"


def test_a_copy_is_refreshed(far: Host, near: Host) -> None:
    prepare(far, "web1")
    syscont(near, "copy", "far:web1", "web1", "--refresh")  # the first time it is a copy like any other
    mine = seen(near, "web1")
    syscont(near, "snapshot", "create", "web1", "gone")
    kept = near.sh("ls /var/lib/syscont/instances/*/snapshots")
    syscont(far, "start", "web1")
    inside(far, "web1", "echo three >/srv/file")
    syscont(far, "config", "set", "web1", "user.note=new")
    syscont(far, "snapshot", "create", "web1", "second")
    inside(far, "web1", "echo four >/srv/file")
    after = inside(far, "web1", LOOK)
    syscont(near, "start", "web1")
    assert "is running" in syscont(near, "copy", "far:web1", "web1", "--refresh", check=False).stderr
    syscont(near, "stop", "--force", "web1")
    syscont(near, "copy", "far:web1", "web1", "--refresh")
    assert snapshots(near, "web1") == snapshots(far, "web1")
    now = seen(near, "web1")
    assert (now["uuid"], now["config"]["volatile.eth0.hwaddr"]) == (
        mine["uuid"], mine["config"]["volatile.eth0.hwaddr"]
    )  # fmt: skip
    assert now["config"]["user.note"] == "new"
    # What was there of the first snapshot is there still.
    assert set(near.sh("ls /var/lib/syscont/instances/*/snapshots").split()) & set(kept.split())
    syscont(near, "start", "web1")
    assert inside(near, "web1", LOOK) == after
    for host in (near, far):
        syscont(host, "delete", "--force", "web1")
        settled(host)


def test_a_running_container_is_copied(far: Host, near: Host) -> None:
    syscont(far, "launch", "busybox", "web1", "--ephemeral")
    inside(far, "web1", "echo data >/data")
    syscont(near, "copy", "far:web1", "web2", "--no-profiles", "-c", "user.a=b", "-c", "limits.memory=100MiB")
    other = seen(near, "web2")
    assert (other["profiles"], other["config"]["user.a"], other["ephemeral"]) == ([], "b", True)
    assert near.sh("cat /var/lib/syscont/images/*/rootfs/data") == "data\n"
    assert seen(far, "web1")["state"] == "running"
    for host, name in ((near, "web2"), (far, "web1")):
        syscont(host, "delete", "--force", name)
        settled(host)


def test_a_snapshot_becomes_an_instance(far: Host, near: Host) -> None:
    before, _ = prepare(far, "web1")
    syscont(near, "copy", "far:web1/first", "web2")
    assert snapshots(near, "web2") == []
    syscont(near, "start", "web2")
    assert inside(near, "web2", LOOK) == before
    for host, name in ((near, "web2"), (far, "web1")):
        syscont(host, "delete", "--force", name)
        settled(host)


@pytest.mark.parametrize("verb", ["copy", "move"])
def test_a_virtual_machine(far: Host, near: Host, verb: str) -> None:
    far.sh("head -c 20M /dev/urandom >/root/disk; truncate --size 64M /root/disk")
    syscont(far, "image", "import", "/root/disk", "--format", "raw", "--alias", "disk")
    syscont(far, "create", "disk", "vm1", "--vm", "-c", "limits.memory=256MiB")
    syscont(far, "snapshot", "create", "vm1", "first")
    syscont(near, verb, "far:vm1", "vm1")
    assert seen(near, "vm1")["type"] == "virtual-machine"
    assert [one["name"] for one in snapshots(near, "vm1")] == ["first"]
    for member in ("virtual-machine.img", "virtual-machine-snapshots/first.img"):
        found = near.sh(f"syscont export vm1 - --compression none | tar -xO backup/{member} | head -c 64M | sha256sum")
        assert found == far.sh("sha256sum </root/disk")
    assert names(far) == (["vm1"] if verb == "copy" else [])
    syscont(near, "delete", "vm1")
    syscont(far, "delete", *names(far), check=False)
    syscont(far, "image", "delete", "disk")
    for host in (near, far):
        settled(host)


def test_what_the_target_does_not_take(far: Host, near: Host) -> None:
    prepare(far, "web1")
    syscont(far, "profile", "create", "special")
    syscont(far, "create", "busybox", "web2", "-p", "special")
    syscont(near, "create", "busybox", "web1")
    syscont(near, "project", "create", "lab", "-c", "restricted=true", "-c", "features.profiles=false")
    refused = {
        ("copy", "far:web1", "web1"): "an instance named 'web1' exists already",
        ("copy", "far:web1", "local:"): "an instance named 'web1' exists already",
        ("move", "far:web1", "WEB1"): "an instance named 'web1' exists already",
        ("copy", "far:web2", "web3"): "special",
        ("copy", "far:none", "web3"): "no instance 'none'",
        ("copy", "far:web1", "web3", "--storage", "other"): "no storage pool",
        ("copy", "far:web1", "web3", "-c", "no.such=key"): "no.such",
        ("copy", "far:web1", "nolab:web3"): "nolab",
        ("copy", "far:web1", "lab:web3"): "snapshots",
        ("copy", "far:web1", "web3", "--mode", "push"): "core.https_address=:8443' on local",
        ("copy", "far:web1", "web3", "-p", "none"): "none",
    }
    for argv, why in refused.items():
        done = syscont(near, *argv, check=False)
        assert done.returncode, argv
        assert why in done.stderr, (argv, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (argv, done.stderr)
    syscont(near, "copy", "far:web1", "lab:web3", "--instance-only")
    syscont(near, "copy", "far:web2", "web3", "-p", "default")
    syscont(near, "delete", "lab:web3", "web3", "web1")
    syscont(near, "project", "delete", "lab")
    syscont(far, "delete", "web1", "web2")
    syscont(far, "profile", "delete", "special")
    for host in (near, far):
        settled(host)


def test_who_calls_whom(far: Host, near: Host) -> None:
    syscont(far, "create", "busybox", "web1")
    syscont(near, "copy", "far:web1", "web1", "--mode", "pull")
    syscont(near, "delete", "web1")
    syscont(near, "config", "set", f"core.https_address={NEAR}:{PORT}")
    for mode in ("auto", "push", "pull"):
        syscont(near, "copy", "far:web1", "web1", "--mode", mode)
        syscont(near, "delete", "web1")
    # Where the target says that it is nobody comes, so the source is where they meet.
    syscont(near, "config", "set", "core.https_address=127.0.0.1:8444")
    syscont(near, "copy", "far:web1", "web1")
    assert "not reached" in syscont(near, "copy", "far:web1", "web2", "--mode", "push", check=False).stderr
    syscont(near, "config", "unset", "core.https_address")
    syscont(near, "delete", "web1")
    syscont(far, "delete", "web1")
    for host in (near, far):
        settled(host)


NAME = "org.syscont.Manager"
BUS = ["busctl", "--json=short", "--", "call", NAME, "/org/syscont/Manager", NAME]


def on_bus(host: Host, *argv: str) -> Any:
    return json.loads(host.run([*BUS, *argv]).stdout)["data"]


def test_an_offer_is_for_one_alone(far: Host, near: Host) -> None:
    """By way of the bus. Strangers fail in the handshake as always, and nobody else is told the secret."""
    syscont(far, "create", "busybox", "web1")
    peer, addresses = on_bus(near, "GetIdentity")
    assert addresses == []
    _, made = on_bus(far, "SendInstance", "sa{sv}", "web1", "1", "peer", "s", peer)
    addresses, certificate, secret, expires = made
    assert addresses == [f"{FAR}:{PORT}"]
    assert len(secret) == 43
    near.sh("XDG_CONFIG_HOME=/root/other syscont remote certificate >/dev/null")
    own = "/var/lib/syscont/server.pem"
    for key, why in (("none", "CERTIFICATE_REQUIRED"), ("/root/other/syscont/client.pem", "UNKNOWN_CA")):
        assert why in python(near, "stranger", FAR, str(PORT), key).stdout
    # Who is awaited gets no answer to anything else.
    assert "MethodNotFound" in python(near, "stranger", FAR, str(PORT), own).stdout
    assert secret not in far.journal()
    assert secret not in syscont(far, "operation", "list", "--format", "json").stdout
    assert far.run(["grep", "-rlF", secret, "/var/lib/syscont", "/run/syscont"], check=False).stdout == ""
    offer = ["offer", "(assst)", str(len(addresses)), *addresses, certificate, secret, str(expires)]
    on_bus(near, "ReceiveInstance", "sa{sv}", "default:web1", "1", *offer)
    until(near, lambda: "web1" in names(near) and seen(near, "web1")["state"] == "stopped")
    until(far, lambda: "UNKNOWN_CA" in python(near, "stranger", FAR, str(PORT), own).stdout)
    again = near.run([*BUS, "ReceiveInstance", "sa{sv}", "default:web2", "1", *offer])
    assert "operation" in again.stdout
    until(near, lambda: "does not trust us" in syscont(near, "operation", "list", "--format", "json").stdout)
    assert names(near) == ["web1"]
    refused = far.run([*BUS, "SendInstance", "sa{sv}", "web1", "1", "peer", "s", peer], user="alice", check=False)
    assert "not permitted" in refused.stderr
    for host in (near, far):
        syscont(host, "delete", "web1")
        settled(host)


def test_an_offer_that_nobody_takes_up(far: Host, near: Host) -> None:
    syscont(far, "create", "busybox", "web1")
    peer, _ = on_bus(near, "GetIdentity")
    path, _ = on_bus(far, "SendInstance", "sa{sv}", "web1", "1", "peer", "s", peer)
    assert path.startswith("/org/syscont/Manager/operation/")
    (one,) = [each for each in json.loads(syscont(far, "operation", "list", "--format", "json").stdout)
              if each["kind"] == "send-instance" and each["status"] == "running"]  # fmt: skip
    assert one["stage"] == "meet"
    syscont(far, "operation", "cancel", one["id"])
    own = "/var/lib/syscont/server.pem"
    until(far, lambda: "UNKNOWN_CA" in python(near, "stranger", FAR, str(PORT), own).stdout)
    syscont(far, "delete", "web1")
    settled(far)
