# SPDX-License-Identifier: Apache-2.0
"""Sizes of root disks, proved by filling them: on a pool that has project quotas, and on one that has none."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import Instance, python, syscont, unique, until
from hosts import Host, apt

MIB = 1 << 20
ROOM = 2 * MIB
"""What folders, and the guest's own few files, may take."""
HOSTILE = Path(__file__).parent / "on_guest/project.c"
SERVICES = "syscontd.socket syscontd-handover.socket syscontd.service"
MAKE_POOL = f"""
set -e
systemctl stop {SERVICES} 'syscont-net@*'
ip link delete syscontbr0 || :
truncate -s 1G /var/tmp/pool
mkfs.ext4 -q -O quota,project -E quotatype=prjquota /var/tmp/pool
mount -o loop,prjquota /var/tmp/pool /var/lib/syscont
systemctl start syscontd.socket
"""


@pytest.fixture(scope="module")
def pool(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """A host with quotas where syscont keeps its instances."""
    with host_kind(base=installed("plain")) as one:
        one.sh(MAKE_POOL, timeout=60)
        syscont(one, "image", "build", "busybox")
        yield one


class Launch:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.made: list[str] = []

    def __call__(self, size: str, *options: str, verb: str = "launch") -> Instance:
        return self.taken(unique(), verb, *options, *([f"--device=root,size={size}"] if size else []), "busybox")

    def taken(self, name: str, *words: str) -> Instance:
        """`syscont WORDS NAME`, which makes an instance of that name."""
        self.made.append(name)
        syscont(self.host, *words, name)
        return Instance(self.host, name)


@pytest.fixture
def launch(pool: Host) -> Iterator[Launch]:
    """Makes instances of the test's own; in the end nothing of them is counted any more."""
    one = Launch(pool)
    yield one
    for name in one.made:
        syscont(pool, "delete", "--force", name, check=False)
    counted = quotas(pool)
    assert not counted["stray"]
    assert not counted["of"].keys() & set(one.made)


def quotas(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(python(host, "quotas").stdout)
    return found


def counted(one: Instance) -> tuple[int, int]:
    """(bytes in use, size) as the kernel has it."""
    used, most = quotas(one.host)["of"][one.name]
    return used, most


def fill(one: Instance, mebibytes: int, path: str = "/big") -> int:
    """Write so much; the bytes that it came to."""
    one.exec("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mebibytes}", check=False)
    return int(one.sh(f"stat -c %s {path}"))


def resize(one: Instance, size: str, check: bool = True) -> str:
    words = ("set", one.name, "root", f"size={size}") if size else ("unset", one.name, "root", "size")
    return syscont(one.host, "device", *words, check=check).stderr


def about(size: int) -> Any:
    return pytest.approx(size, abs=ROOM)


@pytest.mark.needs_quotas
def test_a_size_holds_and_changes_live(launch: Launch) -> None:
    one, neighbour = launch("16MiB"), launch("")
    assert fill(one, 40) == about(16 * MIB)
    assert one.sh("df -m / | awk 'END { print $2 }'") == "16\n"
    assert fill(neighbour, 40) == 40 * MIB
    # A file of the image counts once it is changed in any way, as a whole.
    before, _ = counted(neighbour)
    size = int(neighbour.sh("chmod 0755 /bin/busybox; stat -c %s /bin/busybox"))
    assert counted(neighbour)[0] - before == pytest.approx(size, rel=0.1)
    # xfs leaves some blocks unused: 15.94MiB.
    assert "MiB of 16.00MiB" in syscont(one.host, "info", one.name).stdout
    # Without room for a byte it starts again, and lets itself be used.
    syscont(one.host, "restart", one.name)
    assert fill(one, 1, "/more") == about(0)
    resize(one, "32MiB")
    assert fill(one, 40, "/more") == about(16 * MIB)
    error = resize(one, "24MiB", check=False)
    assert "24.00MiB is less than the 32.00MiB in use" in error
    assert counted(one) == (about(32 * MIB), 32 * MIB)
    assert one.seen()["devices"]["root"]["size"] == "32MiB"
    one.sh("rm /more")
    resize(one, "24MiB")
    assert fill(one, 40, "/more") == about(8 * MIB)
    resize(one, "")
    assert fill(one, 40, "/more") == 40 * MIB
    assert counted(one)[1] == 0


@pytest.mark.heavy
@pytest.mark.needs_quotas
def test_copies_and_snapshots(launch: Launch) -> None:
    one = launch("16MiB")
    host = one.host
    assert fill(one, 6) == 6 * MIB
    # A copy is counted by itself, links and all, and none is made that would be full from the beginning.
    one.sh("ln /big /second; mkdir /folder; ln -s /big /folder/link; mkfifo /folder/pipe")
    copy = launch.taken(unique(), "copy", one.name)
    assert counted(copy) == (about(6 * MIB), 16 * MIB)
    error = syscont(host, "copy", one.name, "small", "--device=root,size=4MiB", check=False).stderr
    assert "less than the" in error
    assert "small" not in quotas(host)["of"]
    syscont(host, "start", copy.name)
    copy.sh("mv /folder/link /folder/pipe /second /")
    assert fill(copy, 40, "/more") == about(10 * MIB)
    # Snapshots are not counted, so that they can't fill the disk; what one brings back is.
    syscont(host, "snapshot", "create", one.name, "s0")
    assert counted(one) == (about(6 * MIB), 16 * MIB)
    resize(one, "40MiB")
    assert fill(one, 30, "/more") == 30 * MIB
    syscont(host, "snapshot", "restore", one.name, "s0")
    assert counted(one) == (about(6 * MIB), 16 * MIB)
    assert fill(one, 40, "/more") == about(10 * MIB)
    assert counted(launch.taken(unique(), "copy", f"{one.name}/s0")) == (about(6 * MIB), 16 * MIB)


@pytest.mark.heavy
@pytest.mark.needs_quotas
def test_names_backups_and_profiles(launch: Launch) -> None:
    one = launch("16MiB", verb="create")
    host = one.host
    syscont(host, "export", one.name, "/var/tmp/backup.tar", "--compression", "none")
    again = launch.taken(unique(), "import", "/var/tmp/backup.tar")
    assert counted(again)[1] == 16 * MIB
    moved = launch.taken(unique(), "rename", one.name)
    assert counted(moved)[1] == 16 * MIB
    syscont(host, "profile", "create", "small")
    syscont(host, "profile", "device", "add", "small", "root", "disk", "path=/", "pool=default", "size=8MiB")
    try:
        given = launch("", "--profile=default", "--profile=small")
        assert fill(given, 40) == about(8 * MIB)
        syscont(host, "profile", "device", "set", "small", "root", "size=12MiB")
        assert fill(given, 40) == about(12 * MIB)
        done = syscont(host, "profile", "device", "set", "small", "root", "size=8MiB", check=False)
        assert "less than the" in done.stderr
        assert counted(given)[1] == 12 * MIB
        syscont(host, "delete", "--force", given.name)
    finally:
        syscont(host, "profile", "delete", "small", check=False)


@pytest.mark.needs_quotas
def test_guests_stay_counted(launch: Launch, tmp_path: Path) -> None:
    one = launch("16MiB")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "hostile", HOSTILE], check=True)
    one.host.push(tmp_path / "hostile", "/var/tmp/hostile")
    syscont(one.host, "file", "push", "--mode=0755", "/var/tmp/hostile", f"{one.name}/hostile")
    one.sh("mkdir /folder")
    for folder in ("/folder", "/"):
        said = one.exec("/hostile", folder).stdout.splitlines()
        assert said == [*(f"{what} Invalid argument" for what in ("project", "inheritance", "flags")), "unchanged done"]
    assert fill(one, 40, "/folder/big") < 16 * MIB


@pytest.mark.heavy
@pytest.mark.needs_quotas
def test_sizes_of_a_project(launch: Launch) -> None:
    host = launch.host
    syscont(host, "project", "create", "lab", "--config", "features.profiles=false", "--config", "limits.disk=40MiB")

    def make(name: str, size: str = "") -> str:
        device = [f"--device=root,size={size}"] if size else []
        return syscont(host, "--project", "lab", "create", *device, "busybox", name, check=False).stderr

    try:
        assert "its root disk has to have a size" in make("none")
        assert not make("first", "16MiB")
        assert not make("second", "16MiB")
        assert "limits.disk is 40.00MiB" in make("third", "16MiB")
        done = syscont(host, "device", "set", "lab:first", "root", "size=32MiB", check=False)
        assert "its instances would have 48.00MiB" in done.stderr
        assert "its root disk has to have a size" in resize(Instance(host, "lab:first"), "", check=False)
        assert "32.00MiB" in syscont(host, "project", "info", "lab").stdout
        assert syscont(host, "project", "set", "lab", "limits.disk=20MiB", check=False).returncode
    finally:
        syscont(host, "delete", "lab:first", "lab:second", check=False)
        syscont(host, "project", "delete", "lab")


@pytest.mark.heavy
@pytest.mark.needs_quotas
def test_a_crash_leaks_nothing(launch: Launch) -> None:
    one = launch("16MiB")
    assert fill(one, 12) == 12 * MIB
    for seconds in (0.05, 0.3, 0.8):
        copy = one.host.spawn(["syscont", "copy", one.name, "half"])
        one.host.sh(f"sleep {seconds}; systemctl kill --signal=KILL syscontd.service")
        copy.wait()
        until(one.host, lambda: syscont(one.host, "list", check=False).returncode == 0)
        known = quotas(one.host)
        assert not known["stray"]
        if "half" in known["of"]:
            assert known["of"]["half"] == [about(12 * MIB), 16 * MIB]
            syscont(one.host, "delete", "half")
    assert counted(one) == (about(12 * MIB), 16 * MIB)


@pytest.mark.needs_quotas
def test_copies_share_data_where_the_file_system_can(pool: Host, tmp_path: Path) -> None:
    """btrfs, which has no quotas that would serve."""
    apt.ensure("btrfs-progs")
    image = tmp_path / "btrfs"
    with image.open("wb") as file:
        file.truncate(128 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["gzip", "-1", image], check=True)
    pool.push(image.with_suffix(".gz"), "/var/tmp/btrfs.gz")
    pool.sh("gunzip /var/tmp/btrfs.gz; mkdir /mnt/btrfs; mount -o loop /var/tmp/btrfs /mnt/btrfs")
    try:
        found = json.loads(python(pool, "clone", "/mnt/btrfs").stdout)
        assert found["same"]
        assert found["shared"] == found["extents"] > 0
        assert not found["limited"]
    finally:
        pool.sh("umount /mnt/btrfs; rm -r /mnt/btrfs /var/tmp/btrfs")


def test_where_nobody_counts_a_size_is_refused(host: Host, busybox: str) -> None:
    """Of the shared host, whose file system is the machine's, or has no such option."""
    done = syscont(host, "create", "--device=root,size=1GiB", busybox, "sized", check=False)
    assert "has no quotas" in done.stderr
    assert "mounted with prjquota" in done.stderr
    assert "sized" not in syscont(host, "list").stdout
