# SPDX-License-Identifier: Apache-2.0
"""Disks made of trees: what other programs say of the partition table and both file systems, and hostile trees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sysd.images import bootable, initrd, tools
from sysd.images.metadata import host_architecture
from sysd.model.errors import InvalidError, UnsupportedError
from tests.images.archives import Entry, directory, hard_link, metadata, symlink, tar
from tests.images.conftest import Place

MIB = 1 << 20
ROOM = 1 << 32
KERNEL, INITRD = os.urandom(300_000), os.urandom(200_000)
FACTS = json.dumps({"architecture": host_architecture()})

pytestmark = pytest.mark.skipif(
    host_architecture() not in bootable._MACHINES, reason="syscont makes no disks for this architecture"
)


def loaders(*, shim: bool = False) -> list[Entry]:
    name = bootable._MACHINES[host_architecture()].efi
    plain = f"usr/lib/systemd/boot/efi/systemd-boot{name}.efi"
    signed = [Entry(f"usr/lib/shim/shim{name}.efi.signed", data=b"shim"), Entry(f"{plain}.signed", data=b"signed")]
    return [Entry(plain, data=b"plain"), *(signed if shim else [])]


def machine(*more: Entry, version: str = "6.1.0-9", loader: bool = True) -> list[Entry]:
    return [
        Entry("sbin/init", mode=0o755),
        Entry(f"boot/vmlinuz-{version}", data=KERNEL),
        Entry(f"boot/initrd.img-{version}", data=INITRD),
        *(loaders() if loader else []),
        *more,
    ]


def make(place: Place, *entries: Entry) -> dict[str, Any]:
    result = place.built(tar(entries), FACTS, ROOM, vm=True)
    assert sorted(os.listdir(place.target)) == ["disk.img", "initrd", "kernel"]
    return result


def table(disk: Path) -> dict[str, Any]:
    subprocess.run(["sfdisk", "--verify", disk], check=True, capture_output=True)
    done = subprocess.run(["sfdisk", "--json", disk], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)["partitiontable"]
    return found


def esp(disk: Path, path: str) -> bytes:
    return subprocess.run(["mtype", "-i", f"{disk}@@1M", f"::/{path}"], check=True, capture_output=True).stdout


def root(disk: Path) -> Path:
    """The root file system alone, which must be whole."""
    last = table(disk)["partitions"][-1]
    alone = disk.parent.parent / "root.img"
    with disk.open("rb") as source, alone.open("wb") as target:
        source.seek(last["start"] * 512)
        os.truncate(target.fileno(), last["size"] * 512)
        for at in range(0, last["size"] * 512, MIB):
            data = source.read(min(MIB, last["size"] * 512 - at))
            if data.strip(b"\0"):
                os.pwrite(target.fileno(), data, at)
    subprocess.run(["e2fsck", "-fn", alone], check=True, capture_output=True)
    return alone


def debugfs(alone: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, alone], check=True, capture_output=True, text=True).stdout


def test_a_disk(place: Place) -> None:
    capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    result = make(
        place,
        *machine(),
        Entry("bin/tool", mode=0o4751, uid=7, gid=8, data=b"x", mtime=1700000000),
        hard_link("bin/other", "bin/tool"),
        symlink("bin/link", "tool"),
        Entry("bin/ping", mode=0o755, pax={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
        directory("etc/kernel"),
    )
    disk = place.target / "disk.img"
    assert result["kind"] == "virtual-machine"
    assert result["disk_size"] == disk.stat().st_size
    assert result["size"] == disk.stat().st_blocks * 512 < 100 * MIB
    found = table(disk)
    assert found["label"] == "gpt"
    first, second = found["partitions"]
    assert (first["name"], first["type"]) == ("esp", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
    assert (second["name"], second["attrs"]) == ("root", "GUID:59")
    assert second["type"] == str(bootable._MACHINES[host_architecture()].root).upper()
    assert result["kernel_command"].startswith(f"root=PARTUUID={second['uuid'].lower()} ro console=tty")
    alone = root(disk)
    try:
        assert debugfs(alone, "cat /etc/kernel/cmdline") == result["kernel_command"] + "\n"
        status = debugfs(alone, "stat /bin/tool")
        assert "Mode:  04751" in status
        assert "User:     7   Group:     8" in status
        assert "Links: 2" in status
        assert debugfs(alone, "stat /bin/link").count('"tool"') == 1
        assert "security.capability" in debugfs(alone, "ea_list /bin/ping")
    finally:
        alone.unlink()


def test_what_is_started(place: Place) -> None:
    result = make(place, *machine())
    disk = place.target / "disk.img"
    assert (place.target / "kernel").read_bytes() == KERNEL
    assert (place.target / "initrd").read_bytes() == INITRD
    assert esp(disk, "syscont/6.1.0-9/linux") == KERNEL
    assert esp(disk, "syscont/6.1.0-9/initrd") == INITRD
    entry = dict(
        line.split(" ", 1) for line in esp(disk, "loader/entries/syscont-6.1.0-9.conf").decode().splitlines()
    )
    assert entry["options"] == result["kernel_command"]
    assert (entry["linux"], entry["initrd"]) == ("/syscont/6.1.0-9/linux", "/syscont/6.1.0-9/initrd")
    name = bootable._MACHINES[host_architecture()].efi
    assert esp(disk, f"EFI/BOOT/BOOT{name.upper()}.EFI") == b"plain"


def test_a_direct_start_needs_its_disk_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firmware starts it with the initrd that the distribution made."""
    monkeypatch.setattr(initrd, "INIT", Path(sys.executable))
    modules = "lib/modules/6.1.0-9"
    own = "".join(f"kernel/{name}.ko\n" for name in initrd.NEEDED).encode()
    index = [Entry(f"{modules}/modules.dep", data=b"\n"), Entry(f"{modules}/modules.builtin", data=own)]
    make(place, *machine(*index))
    small = (place.target / "initrd").read_bytes()
    assert small.startswith(b"070701")
    assert Path(sys.executable).read_bytes() in small
    assert esp(place.target / "disk.img", "syscont/6.1.0-9/initrd") == INITRD


def test_secure_boot(place: Place) -> None:
    """The shim starts what stands beside it under this name."""
    make(place, *machine(*loaders(shim=True), loader=False))
    name, disk = bootable._MACHINES[host_architecture()].efi, place.target / "disk.img"
    assert esp(disk, f"EFI/BOOT/BOOT{name.upper()}.EFI") == b"shim"
    assert esp(disk, f"EFI/BOOT/grub{name}.efi") == b"signed"


def test_the_newest_kernel(place: Place) -> None:
    older = [Entry(f"boot/{name}-6.1.0-{n}", data=b"old") for n in (8, 9) for name in ("vmlinuz", "initrd.img")]
    without = Entry("boot/vmlinuz-7.0", data=b"no initrd")
    make(place, *machine(*older, without, version="6.1.0-10"))
    assert (place.target / "kernel").read_bytes() == KERNEL


def test_the_same_image_has_the_same_names(place: Place) -> None:
    commands = {make(place, *machine())["kernel_command"] for _ in range(2)}
    assert len(commands) == 1
    assert make(place, *machine(Entry("x")))["kernel_command"] not in commands


def test_it_is_another_image_than_the_container_of_the_same_tree(place: Place) -> None:
    archive = tar(machine())
    one, two = place.built(archive, FACTS), place.built(archive, FACTS, ROOM, vm=True)
    assert one["fingerprint"] != two["fingerprint"]
    assert one["kind"] == "container"


def test_split(place: Place) -> None:
    result = place.split(tar([metadata()]), tar(machine()), ROOM, vm=True)
    assert (result["init"], result["properties"]["os"]) == ("other", "Test")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([Entry("sbin/init", mode=0o755)], "no kernel"),
        ([Entry("boot/vmlinuz-6.1"), *machine()[2:], Entry("sbin/init", mode=0o755)], "no kernel"),
        (machine(loader=False), "no boot loader"),
        (machine(version="6.1 0"), "no kernel"),
        (machine(version="x" * 100), "no kernel"),
        ([*machine()[:1], directory("boot/vmlinuz-6"), Entry("boot/initrd.img-6", data=b"x")], "no kernel"),
        ([*machine()[:1], symlink("boot", "/proc/self")], "no kernel"),
        (machine()[1:], "no init"),
    ],
)
def test_what_can_not_be_a_machine(place: Place, entries: list[Entry], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        place.built(tar(entries), FACTS, ROOM, vm=True)
    assert not (place.target / "disk.img").exists()


def test_links_lead_to_the_tree_alone(place: Place) -> None:
    """The kernel is the guest's file, and what kernel-install is told is written into the tree, not to the host."""
    canary = place.base / "canary"
    links = [
        symlink("boot/vmlinuz-9", f"{canary}/file"),
        symlink("boot/initrd.img-9", f"{canary}/file"),
        symlink("etc/kernel", str(canary)),
    ]
    make(place, *machine(*links))
    assert (place.target / "kernel").read_bytes() == KERNEL
    cmdline = Entry("etc/kernel/cmdline", type=b"2", link=f"{canary}/file")
    make(place, *machine(cmdline))


def test_a_disk_has_a_limit(place: Place) -> None:
    with pytest.raises(InvalidError, match="the image's disk takes more than"):
        place.built(tar(machine()), FACTS, 200 * MIB, vm=True)


def test_a_program_is_missing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysd.images.tools._ENVIRONMENT", {"PATH": "/nonexistent"})
    with pytest.raises(UnsupportedError, match=r"mkfs\.vfat is missing") as caught:
        place.built(tar(machine()), FACTS, ROOM, vm=True)
    assert caught.value.hint == "apt install dosfstools"
    monkeypatch.setattr(tools, "PATH", "/nonexistent")
    with pytest.raises(UnsupportedError, match="mcopy is missing") as caught:
        tools.need(tools.DISK_MAKERS)
    assert caught.value.hint == "apt install mtools"


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(Exception, match="could not make the disk: last words"):
        tools.run([sys.executable, "-c", "import sys; print('first\\nlast words', file=sys.stderr); sys.exit(3)"])
