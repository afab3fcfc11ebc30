# SPDX-License-Identifier: Apache-2.0
"""Disks of virtual machines on their way in: their format is what was said, and what is on them is all there is."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sysd.images import disk
from sysd.images.disk import Format
from sysd.images.metadata import host_architecture
from sysd.model.errors import FailedError, InvalidError, UnsupportedError
from sysd.storage import qcow2
from tests.images.archives import Entry, metadata, tar
from tests.images.conftest import LIMIT, Place

MIB = 1 << 20
FACTS = json.dumps({"architecture": host_architecture()})
CONTENT = bytes(64 << 10) + os.urandom(100_000) + bytes(5 * MIB) + b"end"


def as_qcow2(folder: Path, content: bytes = CONTENT, *options: str) -> bytes:
    raw, made = folder / "raw", folder / "qcow2"
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, made], check=True)
    return made.read_bytes()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


def check(place: Place, result: dict[str, Any], content: bytes = CONTENT) -> None:
    size = -(-len(content) // 512) * 512
    assert os.listdir(place.target) == ["disk.img"]
    assert (place.target / "disk.img").read_bytes() == content.ljust(size, b"\0")
    shown = (result["kind"], result["disk_size"], result["kernel_command"], result["init"], result["templates"])
    assert shown == ("virtual-machine", size, "", "other", [])


def test_raw(place: Place) -> None:
    result = place.bare(CONTENT, Format.RAW, FACTS)
    check(place, result)
    # What nobody wrote takes no room.
    assert result["size"] <= 400_000
    assert result["size"] == (place.target / "disk.img").stat().st_blocks * 512


@pytest.mark.parametrize("options", [(), ("-c",), ("-c", "-o", "compression_type=zstd,extended_l2=on")])
def test_qcow2(place: Place, folder: Path, options: tuple[str, ...]) -> None:
    data = as_qcow2(folder, CONTENT, *options)
    result = place.bare(data, Format.QCOW2, FACTS)
    check(place, result)
    assert result["fingerprint"] == hashlib.sha256(data).hexdigest()


def test_the_header_of_another_format_is_data_on_a_raw_disk(place: Place, folder: Path) -> None:
    data = as_qcow2(folder)
    result = place.bare(data, Format.RAW, FACTS)
    check(place, result, data)
    # It is another disk than the same file said to be qcow2.
    assert result["fingerprint"] != place.bare(data, Format.QCOW2, FACTS)["fingerprint"]


@pytest.mark.parametrize("name", ["rootfs.img", "disk.qcow2"])
def test_unified(place: Place, folder: Path, name: str) -> None:
    archive = tar([metadata(), Entry(name, data=as_qcow2(folder))])
    result = place.unified(archive)
    check(place, result)
    assert result["fingerprint"] == hashlib.sha256(archive).hexdigest()
    assert result["properties"]["os"] == "Test"


def test_split(place: Place, folder: Path) -> None:
    data, described = as_qcow2(folder), tar([metadata()])
    result = place.split(described, data)
    check(place, result)
    assert result["fingerprint"] == hashlib.sha256(described + data).hexdigest()
    check(place, place.split(described, data, form=Format.QCOW2))
    check(place, place.split(described, data, form=Format.RAW), data)


def test_other_formats_than_were_said(place: Place) -> None:
    for data in (CONTENT, b"", b"Q", b"QFI\xfb", tar([metadata()])):
        with pytest.raises(InvalidError, match=r"not in the format qcow2|ends in its header"):
            place.bare(data, Format.QCOW2, FACTS)
    with pytest.raises(InvalidError, match="the disk is empty"):
        place.bare(b"", Format.RAW, FACTS)
    with pytest.raises(InvalidError, match="no archive") as caught:
        place.unified(qcow2.empty(MIB))
    assert "--format qcow2" in caught.value.hint


def test_a_disk_and_a_tree(place: Place, folder: Path) -> None:
    tree, image = Entry("rootfs/sbin/init", mode=0o755), Entry("rootfs.img", data=as_qcow2(folder))
    for entries in ([tree, image], [image, tree]):
        with pytest.raises(InvalidError, match="both a disk and rootfs/"):
            place.unified(tar([metadata(), *entries]))
    with pytest.raises(InvalidError, match="two disks"):
        place.unified(tar([metadata(), image, image]))
    with pytest.raises(InvalidError, match=r"metadata\.yaml is missing"):
        place.unified(tar([image]))
    link = Entry("rootfs.img", type=b"2", link="/etc/passwd")
    with pytest.raises(InvalidError, match="not a plain file"):
        place.unified(tar([metadata(), link]))


def test_a_disk_that_leads_elsewhere(place: Place, folder: Path) -> None:
    secret, made = folder / "secret", folder / "disk"
    secret.write_bytes(b"secret" * MIB)
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-b", secret, "-F", "raw", made, "6M"], check=True)
    backed = made.read_bytes()
    subprocess.run([*create, "-o", f"data_file={secret},data_file_raw=on", made, "6M"], check=True)
    for data, why in ((backed, "backing file"), (made.read_bytes(), "another file")):
        with pytest.raises(InvalidError, match=why):
            place.bare(data, Format.QCOW2, FACTS)
        with pytest.raises(InvalidError, match=why):
            place.split(tar([metadata()]), data)
        with pytest.raises(InvalidError, match=why):
            place.unified(tar([metadata(), Entry("rootfs.img", data=data)]))
        check(place, place.bare(data, Format.RAW, FACTS), data)


def test_a_disk_may_be_larger_than_what_may_be_written(place: Place) -> None:
    result = place.bare(qcow2.empty(qcow2.MAX_SIZE - (1 << 32)), Format.QCOW2, FACTS)
    assert result["disk_size"] == qcow2.MAX_SIZE - (1 << 32)
    assert result["size"] < MIB


def test_data_has_a_limit(place: Place, folder: Path) -> None:
    noise = os.urandom(3 * MIB)
    for form, data in ((Format.RAW, noise), (Format.QCOW2, as_qcow2(folder, noise))):
        with pytest.raises(InvalidError, match=r"more data than its limit|more than its limit"):
            place.bare(data, form, FACTS, limit=2 * MIB)
    # Compressed, it comes in few bytes.
    packed = as_qcow2(folder, b"x" * (32 * MIB), "-c")
    assert len(packed) < MIB
    with pytest.raises(InvalidError, match="more data than its limit"):
        place.bare(packed, Format.QCOW2, FACTS, limit=16 * MIB)
    assert place.bare(packed, Format.QCOW2, FACTS, limit=LIMIT)["disk_size"] == 32 * MIB


def test_one_cluster_for_a_whole_disk(place: Place) -> None:
    """A file of 400 kB that would be written out as half a GiB."""
    cluster = 1 << 16
    head = bytearray(qcow2.empty(1 << 30))
    struct.pack_into(">Q", head, 3 * cluster, 4 * cluster)
    data = bytes(head) + struct.pack(">Q", 5 * cluster) * (cluster // 8) + b"x" * cluster
    with pytest.raises(InvalidError, match="more data than its limit"):
        place.bare(data, Format.QCOW2, FACTS)


def test_damage_behind_the_header(place: Place, folder: Path) -> None:
    """QEMU's refusal is an error of the import's."""
    data = bytearray(as_qcow2(folder, CONTENT, "-c"))
    cluster = 1 << 16
    table = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 40)[0])[0] & ~(1 << 63)
    struct.pack_into(">Q", data, table + 8, 1 << 62 | 3 * cluster)
    with pytest.raises(FailedError, match="qemu-img could not make the disk"):
        place.bare(bytes(data), Format.QCOW2, FACTS)


def test_qemu_img_is_missing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysd.images.tools._ENVIRONMENT", {"PATH": "/nonexistent"})
    with pytest.raises(UnsupportedError, match="qemu-img is missing") as caught:
        place.bare(qcow2.empty(MIB), Format.QCOW2, FACTS)
    assert caught.value.hint == "apt install qemu-utils"


def test_a_pipe_in_odd_pieces(folder: Path) -> None:
    target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    left = [CONTENT]

    def read(size: int) -> bytes:
        data, left[0] = left[0][: min(size, 70_001)], left[0][min(size, 70_001) :]
        return data

    try:
        disk.receive(read, Format.RAW, target, LIMIT)
    finally:
        os.close(target)
    assert (folder / "disk.img").read_bytes().rstrip(b"\0") == CONTENT
