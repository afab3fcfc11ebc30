# SPDX-License-Identifier: Apache-2.0
"""qcow2 files: ours are what QEMU takes for whole and empty disks, and of others only those that need nothing else."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import InvalidError
from sysd.storage import qcow2

GIB = 1 << 30
CLUSTER = 65536


def qemu_img(*argv: object) -> Any:
    done = subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout) if "--output=json" in argv else done.stdout


def inspect(data: bytes) -> qcow2.Qcow2:
    fd = os.memfd_create("disk")
    try:
        os.write(fd, data)
        found = qcow2.inspect(fd)
        assert 0 <= qcow2.data_size(fd, found) <= found.size
        return found
    finally:
        os.close(fd)


def changed(at: int, form: str, value: int, data: bytes = qcow2.empty(GIB)) -> bytes:
    out = bytearray(data)
    struct.pack_into(f">{form}", out, at, value)
    return bytes(out)


@pytest.mark.parametrize("size", [512, CLUSTER, 512 << 20, (512 << 20) + 512, 10 * GIB, 1 << 40, qcow2.MAX_SIZE])
def test_an_empty_disk_is_one_to_qemu(tmp_path: Path, size: int) -> None:
    path = tmp_path / "root.qcow2"
    path.write_bytes(qcow2.empty(size))
    checked = qemu_img("check", "-f", "qcow2", "--output=json", path)
    assert not checked.keys() & {"corruptions", "leaks"}
    assert checked["check-errors"] == 0
    shown = qemu_img("info", "-f", "qcow2", "--output=json", path)
    assert (shown["virtual-size"], shown["cluster-size"]) == (size, CLUSTER)
    assert "backing-filename" not in shown
    special = shown["format-specific"]["data"]
    assert (special["compat"], special["lazy-refcounts"], special["corrupt"]) == ("1.1", False, False)
    found = inspect(path.read_bytes())
    assert (found.version, found.size, found.cluster_bits) == (3, size, 16)


def test_an_empty_disk_can_be_written_and_is_whole_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "root.qcow2"
    path.write_bytes(qcow2.empty(10 * GIB))
    for at in (0, 5 * GIB, 10 * GIB - 65536):
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {at} 64k", path], check=True, capture_output=True)
    assert qemu_img("check", "-f", "qcow2", "--output=json", path)["allocated-clusters"] == 3
    fd = os.open(path, os.O_RDONLY)
    try:
        assert qcow2.data_size(fd, qcow2.inspect(fd)) == 3 * CLUSTER
    finally:
        os.close(fd)


def test_a_disk_is_made_larger_by_a_word_of_its_header(tmp_path: Path) -> None:
    """So whoever dies while it is, it has one size or the other and no error."""
    path = tmp_path / "root.qcow2"
    path.write_bytes(qcow2.empty(GIB))
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", path], check=True, capture_output=True)
    before = path.read_bytes()
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, str(4 << 40)], check=True)
    after = path.read_bytes()
    assert inspect(after).size == 4 << 40
    assert before[:24] + after[24:32] + before[32:] == after


@pytest.mark.parametrize("size", [0, -512, 513, qcow2.MAX_SIZE + 512])
def test_sizes_that_no_disk_has(size: int) -> None:
    with pytest.raises(InvalidError, match="a disk can't have"):
        qcow2.empty(size)


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=2M",
        "compression_type=zstd",
        "extended_l2=on",
        "refcount_bits=64",
        "preallocation=metadata",
    ],
)
def test_whole_disks_of_qemu(tmp_path: Path, options: str) -> None:
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "1G")
    assert inspect(path.read_bytes()).size == GIB


def test_disks_of_qemu_that_need_another_file(tmp_path: Path) -> None:
    base, path = tmp_path / "base", tmp_path / "disk"
    qemu_img("create", "-q", "-f", "raw", base, "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
    with pytest.raises(InvalidError, match="backing file"):
        inspect(path.read_bytes())
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", path)
    assert inspect(path.read_bytes()).size == 1 << 20
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", path, "1M")
    with pytest.raises(InvalidError, match="another file"):
        inspect(path.read_bytes())


def test_encrypted_and_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    secret = "secret,id=s,data=x"
    qemu_img("create", "-q", "--object", secret, "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,"
             "encrypt.iter-time=10", path, "1M")  # fmt: skip
    with pytest.raises(InvalidError, match="encrypted"):
        inspect(path.read_bytes())
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    qemu_img("snapshot", "-c", "one", path)
    with pytest.raises(InvalidError, match="snapshots"):
        inspect(path.read_bytes())


EXTENSIONS = {"format": 0xE2792ACA, "data file": 0x44415441, "encrypted": 0x0537BE77}
WRONG = {
    "magic": changed(0, "B", 0),
    "short": qcow2.empty(GIB)[:90],
    "version 1": changed(4, "I", 1),
    "version 4": changed(4, "I", 4),
    "backing": changed(8, "Q", 200),
    "small clusters": changed(20, "I", 8),
    "large clusters": changed(20, "I", 22),
    "absurd clusters": changed(20, "I", 0xFFFFFFFF),
    "no size": changed(24, "Q", 0),
    "huge": changed(24, "Q", (16 << 40) + 512),
    "absurd size": changed(24, "Q", (1 << 64) - 512),
    "odd size": changed(24, "Q", 1000),
    "aes": changed(32, "I", 1),
    "small table": changed(36, "I", 1),
    "huge table": changed(36, "I", (32 << 20) // 8 + 1),
    "table beyond": changed(40, "Q", 1 << 40),
    "table nowhere": changed(40, "Q", 0),
    "table askew": changed(40, "Q", 3 * CLUSTER + 8),
    "counts beyond": changed(48, "Q", 1 << 62),
    "counts nowhere": changed(48, "Q", 0),
    "counts are the table": changed(48, "Q", 3 * CLUSTER),
    "no counts": changed(56, "I", 0),
    "many counts": changed(56, "I", 129),
    "snapshots": changed(60, "I", 1),
    "corrupt": changed(72, "Q", 2),
    "data file": changed(72, "Q", 4),
    "zstd without": changed(72, "Q", 8),
    "parts of small clusters": changed(20, "I", 13, changed(72, "Q", 16)),
    "unknown feature": changed(72, "Q", 32),
    "unknown last feature": changed(72, "Q", 1 << 63),
    "raw data file": changed(88, "Q", 2),
    "order": changed(96, "I", 7),
    "short header": changed(100, "I", 96),
    "odd header": changed(100, "I", 108),
    "long header": changed(100, "I", 1 << 31),
    "unknown compression": changed(104, "B", 1, changed(100, "I", 112)),
    "other compression": changed(104, "B", 2, changed(72, "Q", 8, changed(100, "I", 112))),
    **{name: changed(104, "Q", kind << 32 | 8) for name, kind in EXTENSIONS.items()},
    "endless extension": changed(104, "Q", 1 << 32 | 0xFFFFFFF8),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        inspect(data)


@pytest.mark.parametrize("data", [changed(72, "Q", 1), changed(88, "Q", 1), changed(104, "Q", 0x6803F857 << 32 | 8)])
def test_what_harms_nobody(data: bytes) -> None:
    """The dirty mark, a mark for bitmaps, names of features."""
    assert inspect(data).size == GIB


def test_a_small_file_for_a_huge_disk_is_seen_through() -> None:
    """Each cluster of the disk is the same one of the file."""
    table = struct.pack(">Q", 5 * CLUSTER) * (CLUSTER // 8)
    first = changed(3 * CLUSTER, "Q", 4 * CLUSTER)
    fd = os.memfd_create("disk")
    os.write(fd, first + table + bytes(CLUSTER))
    found = qcow2.inspect(fd)
    assert qcow2.data_size(fd, found) == 512 << 20
    os.pwrite(fd, struct.pack(">Q", 4 * CLUSTER), 3 * CLUSTER + 8)
    with pytest.raises(InvalidError, match="used twice"):
        qcow2.data_size(fd, found)
    os.pwrite(fd, struct.pack(">Q", 1 << 50), 3 * CLUSTER + 8)
    with pytest.raises(InvalidError, match="outside of the file"):
        qcow2.data_size(fd, found)
    os.close(fd)


@given(st.lists(st.tuples(st.integers(4, 130), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 5))
def test_strange_headers(changes: list[tuple[int, int]], clusters: int) -> None:
    data = bytearray(qcow2.empty(GIB))
    for at, value in changes:
        data[at] = value
    try:
        found = inspect(bytes(data[: clusters * CLUSTER] if clusters else data))
    except InvalidError:
        return
    assert 0 < found.size <= qcow2.MAX_SIZE
    assert found.l1_needed <= found.l1_size


@given(st.binary(max_size=600))
def test_noise(data: bytes) -> None:
    with pytest.raises(InvalidError):
        inspect(qcow2.MAGIC + data)
