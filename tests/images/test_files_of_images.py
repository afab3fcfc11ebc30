# SPDX-License-Identifier: Apache-2.0
"""What a worker has left becomes an image when it is all that an image of its kind has, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sysd.manager.images import check_files
from sysd.manager.uploads import Upload
from sysd.model.errors import FailedError, InvalidError
from sysd.model.image import Image, Init
from sysd.model.instance import Kind

SIZE = 1 << 20
CONTAINER = Image("0" * 64, "x86_64", Init.SYSTEMD, 1)
DISK = Image("0" * 64, "x86_64", Init.OTHER, 1, kind=Kind.VM, disk_size=SIZE)
BOOTABLE = Image("0" * 64, "x86_64", Init.SYSTEMD, 1, kind=Kind.VM, disk_size=SIZE, kernel_command="quiet")


def fill(folder: Path, names: str) -> Path:
    for name in names.split():
        if name.endswith("/"):
            (folder / name).mkdir()
        elif ">" in name:
            (folder / name.partition(">")[0]).symlink_to(name.partition(">")[2])
        else:
            (folder / name).touch()
            os.truncate(folder / name, SIZE)
    return folder


@pytest.mark.parametrize(
    ("image", "names"),
    [
        (CONTAINER, "rootfs/"),
        (CONTAINER, "rootfs/ metadata"),
        (DISK, "disk.img"),
        (DISK, "disk.img metadata"),
        (BOOTABLE, "disk.img kernel initrd"),
    ],
)
def test_what_images_have(tmp_path: Path, image: Image, names: str) -> None:
    check_files(fill(tmp_path, names), image)
    assert not (tmp_path / "metadata").exists()


@pytest.mark.parametrize(
    ("image", "names"),
    [
        (CONTAINER, ""),
        (CONTAINER, "disk.img"),
        (CONTAINER, "rootfs/ disk.img"),
        (CONTAINER, "rootfs>/"),
        (CONTAINER, "rootfs"),
        (DISK, ""),
        (DISK, "rootfs/"),
        (DISK, "rootfs/ disk.img"),
        (DISK, "disk.img/"),
        (DISK, "disk.img>/etc/shadow"),
        (DISK, "disk.img kernel initrd"),
        (BOOTABLE, "disk.img"),
        (BOOTABLE, "disk.img kernel"),
        (BOOTABLE, "disk.img kernel>/etc/shadow initrd"),
    ],
)
def test_what_workers_may_not_leave(tmp_path: Path, image: Image, names: str) -> None:
    with pytest.raises(FailedError, match="did not leave"):
        check_files(fill(tmp_path, names), image)


def test_a_disk_of_another_size(tmp_path: Path) -> None:
    os.truncate(fill(tmp_path, "disk.img") / "disk.img", SIZE - 512)
    with pytest.raises(FailedError, match="did not leave"):
        check_files(tmp_path, DISK)


def test_formats_are_known_ones(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as stream:
        Upload(stream.fileno(), form="raw").check()
        for form in ("vmdk", "RAW", "raw,file.filename=/etc/shadow"):
            with pytest.raises(InvalidError, match="unknown format of a disk"):
                Upload(stream.fileno(), form=form).check()
    assert Upload(3, vm=True).arguments(tmp_path) == ["--image", "0", "--vm"]
    assert Upload(metadata=3, rootfs=4, form="qcow2").arguments(Path("/m"))[:6] == [
        "--metadata", "/m", "--rootfs", "0", "--format", "qcow2",
    ]  # fmt: skip
