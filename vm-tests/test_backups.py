# SPDX-License-Identifier: Apache-2.0
"""Backups and published images: what goes out comes back, here and in Incus; hostile ones change nothing."""

import json
from collections.abc import Iterator
from typing import Any

import leftovers
import pytest
from conftest import Launch, MakeHost
from guests import Instance, python, syscont, until
from hosts import Host

FILL = """
mkdir -p /srv/sub; echo one >/srv/file; ln /srv/file /srv/sub/second; ln -s /nowhere /srv/link; mkfifo /srv/pipe
chown 12:34 /srv/file; chmod 6755 /srv/file; touch -t 200102030405 /srv/file; rm -rf /etc/init.d /media
dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=30M 2>/dev/null
"""
LOOK = (
    "cd /srv; stat -c '%n %a %u %g %h %s %Y' file link pipe sparse sub/second; cat file; readlink link; "
    # DHCP writes resolv.conf when it comes to it.
    "cd /; ls -d /etc/* /[a-z]* | grep -v resolv.conf | md5sum"
)


@pytest.fixture
def folder(host: Host) -> Iterator[str]:
    path = host.sh("mktemp -d").strip()
    yield path
    host.sh(f"rm -rf {path}")


def snapshots(host: Host, name: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "snapshot", "list", name, "--format", "json").stdout)
    return [one["name"] for one in found]


def image_count(host: Host) -> int:
    return len(json.loads(syscont(host, "image", "list", "--format", "json").stdout))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_backup_comes_back(host: Host, launch: Launch, folder: str, compression: str) -> None:
    one, images = launch("", "-c", "user.note=a\nb", "-c", "snapshots.expiry=1w"), image_count(host)
    one.sh(FILL)
    before = one.sh(LOOK)
    syscont(host, "snapshot", "create", one.name, "s")
    one.sh("echo two >/srv/file")
    after = one.sh(LOOK)
    file = f"{folder}/backup"
    syscont(host, "export", one.name, file, "--compression", compression)
    assert one.state == "running"
    assert host.sh(f"ls {folder}") == "backup\n"
    back = Instance(host, f"{one.name}-back")
    try:
        done = syscont(host, "import", file, back.name)
        assert (done.stdout, done.stderr) == (f"{back.name}\n", "")
        back.do("start")
        assert back.sh(LOOK) == after
        assert snapshots(host, back.name) == ["s"]
        assert back.seen()["config"]["user.note"] == "a\nb"
        syscont(host, "snapshot", "restore", back.name, "s")
        assert back.sh(LOOK) == before
    finally:
        back.do("delete", "--force", check=False)
    until(host, lambda: image_count(host) == images)


def test_through_pipes_and_only_the_instance(host: Host, launch: Launch) -> None:
    one = launch()
    one.sh("echo data >/data")
    syscont(host, "snapshot", "create", one.name, "s")
    back = Instance(host, f"{one.name}-back")
    try:
        host.sh(f"syscont export {one.name} - --instance-only | cat | syscont import - {back.name}")
        assert snapshots(host, back.name) == []
        back.do("start")
        assert back.sh("cat /data") == "data\n"
        done = syscont(host, "import", "/dev/null", "x", check=False)
        assert done.returncode != 0
    finally:
        back.do("delete", "--force", check=False)


def test_an_instance_becomes_an_image(host: Host, launch: Launch) -> None:
    one = launch()
    one.sh("echo first >/data; rm -rf /media; echo 0123456789abcdef0123456789abcdef >/etc/machine-id")
    syscont(host, "snapshot", "create", one.name, "s")
    one.sh("echo second >/data")
    made = [syscont(host, "publish", one.name, "--alias", "now", "--property", "os=mine").stdout.strip()]
    made.append(syscont(host, "publish", f"{one.name}/s", "--alias", "then").stdout.strip())
    try:
        taken = syscont(host, "publish", one.name, "--alias", "now", check=False)
        assert "alias 'now' exists already" in taken.stderr
        shown = json.loads(syscont(host, "image", "show", "now", "--format", "json").stdout)
        assert (shown["fingerprint"], shown["properties"]["os"]) == (made[0], "mine")
        for alias, data in (("now", "second"), ("then", "first")):
            copy = launch(alias)
            assert copy.sh("cat /data /etc/machine-id; ls -d /media 2>/dev/null || true") == f"{data}\n"
            copy.do("delete", "--force")
    finally:
        syscont(host, "image", "delete", *made, check=False)


def test_what_can_not_be_written_leaves_nothing(host: Host, launch: Launch, folder: str) -> None:
    one = launch()
    with leftovers.nothing_happens(host):
        assert syscont(host, "export", one.name, f"{folder}/no/such/file", check=False).returncode
        assert syscont(host, "export", "none", f"{folder}/file", check=False).returncode == 3
        assert syscont(host, "export", one.name, "-", check=False, input="").returncode == 0
        host.sh(f"syscont export {one.name} - | head -c 1000 >/dev/null; true")
        assert syscont(host, "publish", f"{one.name}/none", check=False).returncode == 3
        assert host.sh(f"ls -A {folder}") == ""


def test_hostile_backups_change_nothing(host: Host, busybox: str, canary: None, folder: str) -> None:
    """Each is refused with one line, and nothing of it is left; the canary is what it was."""
    python(host, "hostile_backups", folder)
    names = host.sh(f"ls {folder}").split()
    assert len(names) > 20
    with leftovers.nothing_happens(host):
        for name in names:
            done = syscont(host, "import", f"{folder}/{name}", "hostile", check=False)
            assert done.returncode != 0, name
            assert len(done.stderr.splitlines()) == 1, (name, done.stderr)
            assert "Traceback" not in done.stderr


def test_incus_reads_what_we_write_and_we_what_it_writes(make_host: MakeHost) -> None:
    host = make_host(variant="incus")
    syscont(host, "image", "build", "busybox")
    syscont(host, "launch", "busybox", "ours", "-c", "user.note=kept")
    one = Instance(host, "ours")
    one.sh("echo first >/data; chown 12:34 /data")
    syscont(host, "snapshot", "create", "ours", "s")
    one.sh("echo second >/data")
    syscont(host, "export", "ours", "/root/ours.tar.gz")
    host.sh("incus admin init --minimal; incus profile device remove default eth0", timeout=60)
    host.sh("incus import /root/ours.tar.gz theirs && incus start theirs", timeout=60)
    look = "cat /data; stat -c %u:%g /data"
    assert host.sh(f"incus exec theirs -- sh -c '{look}'") == "second\n12:34\n"
    assert host.sh("incus config get theirs user.note") == "kept\n"
    assert "s" in host.sh("incus snapshot list theirs --format csv").split(",")[0]
    host.sh("incus config set theirs raw.lxc lxc.log.level=1; incus export theirs /root/theirs.tar.gz", timeout=60)
    done = syscont(host, "import", "/root/theirs.tar.gz")
    assert done.stdout == "theirs\n"
    back = Instance(host, "theirs")
    back.do("start")
    assert back.sh(look) == "second\n12:34\n"
    assert back.seen()["config"]["user.note"] == "kept"
    syscont(host, "snapshot", "restore", "theirs", "s")
    assert back.sh(look) == "first\n12:34\n"
