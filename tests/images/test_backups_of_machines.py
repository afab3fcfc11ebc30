# SPDX-License-Identifier: Apache-2.0
"""Backups of virtual machines: what we write is read again, so is what LXD and Incus write; hostile ones are not."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sysd.images import backup, backup_disks
from sysd.images.backup_disks import NVRAM_SIZE
from sysd.images.metadata import host_architecture
from sysd.model.errors import SyscontError
from sysd.storage import qcow2
from sysd.storage.pack_disks import pack
from tests.images.conftest import LIMIT, Place, spooled

MIB = 1 << 20
DISK = bytes(MIB) + os.urandom(196 * 512) + bytes(3 * MIB) + b"end".ljust(512, b"\0")
OWN = "backup/virtual-machine"
SNAPSHOTS = "backup/virtual-machine-snapshots"
KERNELS = "backup/syscont-kernels"
PRINT = "ab" * 32
INDEX = {"name": "vm1", "type": "virtual-machine", "optimized": False, "snapshots": ["s"],
         "config": {"container": {"architecture": host_architecture()}}}  # fmt: skip


@dataclass
class Unpacked:
    folder: Path
    results: list[dict[str, Any]]

    @property
    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        return found

    def content(self, number: int, name: str = "disk.img") -> bytes:
        return (self.folder / str(number) / name).read_bytes()

    def names(self, number: int) -> list[str]:
        return sorted(os.listdir(self.folder / str(number)))


Unpack = Callable[..., Unpacked]


@pytest.fixture
def unpack(place: Place, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    monkeypatch.setattr(backup, "flush", lambda fd: None)

    def run(archive: bytes, limit: int = LIMIT) -> Unpacked:
        folder = place.target / f"draft{len(os.listdir(place.target))}"
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with spooled(archive) as file:
                return Unpacked(folder, backup.Unpacking(fd, limit).run(file))
        finally:
            os.close(fd)

    return run


Member = tuple[str, bytes | str]


def archive(*members: Member | tarfile.TarInfo, index: Any = INDEX) -> bytes:
    """As Go's archive/tar writes it; a text is where a link leads to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in (("backup/index.yaml", json.dumps(index).encode()), *members):
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            info = tarfile.TarInfo(member[0])
            if isinstance(member[1], str):
                info.type, info.linkname = tarfile.SYMTYPE, member[1]
                tar.addfile(info)
                continue
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def test_what_incus_writes(unpack: Unpack) -> None:
    variables = os.urandom(NVRAM_SIZE)
    found = unpack(
        archive(
            (f"{SNAPSHOTS}/s/OVMF_VARS_4M.ms.fd", bytes(NVRAM_SIZE)),
            (f"{SNAPSHOTS}/s/backup.yaml", b"odd"),
            (f"{SNAPSHOTS}/s.img", DISK),
            (f"{OWN}/OVMF_VARS_4M.fd", bytes(NVRAM_SIZE)),
            (f"{OWN}/OVMF_VARS_4M.ms.fd", variables),
            (f"{OWN}/agent-client.crt", b"---"),
            (f"{OWN}/config/systemd/x.service", b"---"),
            (f"{OWN}/qemu.nvram", "OVMF_VARS_4M.ms.fd"),
            (f"{OWN}.img", DISK + bytes(1000)),
        )
    )
    assert [result["properties"] for result in found.results] == [{"volume": "s"}, {}]
    snapshot, own = found.results
    assert (own["kind"], own["disk_size"], own["kernel_command"]) == ("virtual-machine", len(DISK) + 1024, "")
    assert (snapshot["disk_size"], snapshot["init"]) == (len(DISK), "other")
    assert found.content(1) == DISK + bytes(1024)
    assert own["size"] <= 300_000  # holes stay so
    assert found.names(1) == ["disk.img", "nvram.fd"]
    assert found.content(1, "nvram.fd") == variables
    assert found.names(0) == ["disk.img"]  # nothing says which file it was
    assert found.index["left-out"] == ["variables of the firmware of s"]
    assert len({result["fingerprint"] for result in found.results}) == 2


@pytest.mark.parametrize("size", [0, 131072, NVRAM_SIZE - 1, NVRAM_SIZE + 1, 64 * MIB // 16])
def test_variables_of_another_firmware_stay_out(unpack: Unpack, size: int) -> None:
    found = unpack(archive((f"{OWN}/qemu.nvram", bytes(size)), (f"{OWN}.img", DISK)))
    assert found.names(0) == ["disk.img"]
    assert found.index["left-out"] == ["variables of the firmware of the instance"]


def ours(folder: Path, index: Any) -> bytes:
    (folder / "base").write_bytes(DISK)
    (folder / "overlay").write_bytes(qcow2.empty(8 * MIB))
    (folder / "small").write_bytes(b"kernel")
    disk = [str(folder / "overlay"), str(folder / "base")]
    out = io.BytesIO()
    plan = {
        "files": {"backup/index.yaml": json.dumps(index), f"{KERNELS}/{PRINT}/command": "ro quiet"},
        "folders": [OWN],
        "copies": {f"{KERNELS}/{PRINT}/{name}": str(folder / "small") for name in ("kernel", "initrd")},
        "links": {},
        "disks": {f"{OWN}.img": disk, f"{SNAPSHOTS}/s.img": disk},
    }
    pack(plan, out.write)
    return out.getvalue()


def test_what_we_write(unpack: Unpack, tmp_path_factory: pytest.TempPathFactory) -> None:
    written = ours(tmp_path_factory.mktemp("disks"), {**INDEX, "syscont-kernels": {"": PRINT, "s": PRINT}})
    found = unpack(written, limit=2 * MIB)  # of data there is less
    for number, result in enumerate(found.results):
        assert found.names(number) == ["disk.img", "initrd", "kernel"]
        assert found.content(number) == DISK.ljust(8 * MIB, b"\0")
        assert (result["disk_size"], result["kernel_command"]) == (8 * MIB, "ro quiet")
    assert found.index["left-out"] == []


@pytest.mark.parametrize("kernels", [None, [], {"": []}, {"": "cd" * 32}, {"": "../x"}, {"": 7}])
def test_kernels_that_are_not_there(
    unpack: Unpack, tmp_path_factory: pytest.TempPathFactory, kernels: object
) -> None:
    found = unpack(ours(tmp_path_factory.mktemp("disks"), {**INDEX, "syscont-kernels": kernels}))
    assert found.results[0]["kernel_command"] == ""
    assert found.names(0) == ["disk.img"]


def special(name: str, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


GOOD = (f"{OWN}.img", DISK)


@pytest.mark.parametrize(
    "members",
    [
        (),
        ((f"{OWN}/qemu.nvram", bytes(NVRAM_SIZE)),),
        ((f"{SNAPSHOTS}/s.img", DISK),),
        (GOOD, GOOD),
        ((f"{OWN}.img", b""),),
        ((f"{OWN}.img", "/dev/sda"),),
        (special(f"{OWN}.img", type=tarfile.BLKTYPE),),
        (special(f"{OWN}.img", type=tarfile.LNKTYPE, linkname="backup/index.yaml"),),
        (special(f"{OWN}.img", type=tarfile.DIRTYPE),),
        (GOOD, (f"{SNAPSHOTS}/../s.img", DISK)),
        (GOOD, (f"{SNAPSHOTS}/-s.img", DISK)),
        (GOOD, (f"{SNAPSHOTS}/a b.img", DISK)),
        (GOOD, (f"{SNAPSHOTS}/{'s' * 64}.img", DISK)),
        (GOOD, (f"{SNAPSHOTS}/t/qemu.nvram", bytes(NVRAM_SIZE))),
        (GOOD, (f"{OWN}/qemu.nvram", bytes(NVRAM_SIZE)), (f"{KERNELS}/x/kernel", b"k")),
        (GOOD, (f"{KERNELS}/{PRINT}/init", b"k")),
        (GOOD, (f"{KERNELS}/{PRINT}/kernel", "/etc/shadow")),
        (GOOD, (f"{KERNELS}/{PRINT}/kernel", b"k"), (f"{KERNELS}/{PRINT}/kernel", b"k")),
        (GOOD, (f"{KERNELS}/{PRINT}/command", b"x" * 2000)),
        (GOOD, (f"{KERNELS}/{PRINT}/command", b"only")),
        (GOOD, ("backup/container/rootfs/sbin/init", b"#!")),
        (GOOD, ("backup/virtual-machine.bin", b"zfs")),
        (special(f"{OWN}.img", size=MIB, pax_headers={"size": "-1"}),),
        (special(f"{OWN}.img", size=512, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                                      "GNU.sparse.realsize": str(1 << 60)}),),
    ],
)  # fmt: skip
def test_hostile_backups(unpack: Unpack, members: tuple[Any, ...]) -> None:
    with pytest.raises(SyscontError):
        unpack(archive(*members, index={**INDEX, "syscont-kernels": {"": PRINT}}))


def test_a_container_that_is_none(unpack: Unpack) -> None:
    with pytest.raises(SyscontError, match="says something else"):
        unpack(archive(GOOD, index={**INDEX, "type": "container"}))


def test_more_data_than_there_is_room(unpack: Unpack) -> None:
    data = os.urandom(MIB)
    members = [(f"{SNAPSHOTS}/s{number}.img", data) for number in range(5)]
    assert len(unpack(archive(GOOD, *members), limit=6 * MIB).results) == 6
    with pytest.raises(SyscontError, match="more data than its limit"):
        unpack(archive(GOOD, *members), limit=4 * MIB)


def test_many_snapshots(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "MAX_VOLUMES", 3)
    members = [(f"{SNAPSHOTS}/s{number}.img", b"x" * 512) for number in range(3)]
    with pytest.raises(SyscontError, match="more than 3 snapshots"):
        unpack(archive(GOOD, *members))


def test_many_kernels(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_disks, "MAX_VOLUMES", 3)
    members = [(f"{KERNELS}/{number:064x}/kernel", b"x") for number in range(4)]
    with pytest.raises(SyscontError, match="more than 3 kernels"):
        unpack(archive(GOOD, *members))
