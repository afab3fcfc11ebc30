# SPDX-License-Identifier: Apache-2.0
"""The oldest Debian that is supported: its systemd, kernel interfaces and libraries are older in a hundred ways."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import Instance, syscont
from hosts import Host, Recipe


@pytest.fixture(scope="module")
def old_host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe("bookworm")) as host:
        host.install_deb(deb)
        syscont(host, "image", "build", "busybox")
        yield host


def test_a_life(old_host: Host) -> None:
    syscont(old_host, "launch", "--wait", "busybox", "old", "-c", "limits.processes=200")
    old = Instance(old_host, "old")
    assert old.exec("id", "-u").stdout == "0\n"
    assert old.exec("cat", "/proc/self/uid_map").stdout.split()[1] != "0"
    old_host.sh("echo there >/root/there; syscont file push /root/there old/root/there")
    syscont(old_host, "snapshot", "create", "old", "before")
    old.exec("rm", "/root/there")
    syscont(old_host, "device", "add", "old", "srv", "disk", "source=/srv", "path=/mnt/srv")
    old.exec("ls", "/mnt/srv")
    syscont(old_host, "stop", "old")
    syscont(old_host, "snapshot", "restore", "old", "before")
    assert old_host.sh("syscont file pull old/root/there -") == "there\n"


def test_backups(old_host: Host) -> None:
    syscont(old_host, "create", "busybox", "kept")
    syscont(old_host, "export", "kept", "/root/kept.tar")
    syscont(old_host, "delete", "kept")
    syscont(old_host, "import", "/root/kept.tar", "kept")
    syscont(old_host, "start", "kept")
    assert Instance(old_host, "kept").exec("hostname").stdout == "kept\n"


def test_commands_and_daemon_start_anew(old_host: Host) -> None:
    syscont(old_host, "launch", "busybox", "stays")
    old_host.run(["systemctl", "restart", "syscontd.service", "syscont-exec.service"])
    assert Instance(old_host, "stays").exec("echo", "still").stdout == "still\n"
