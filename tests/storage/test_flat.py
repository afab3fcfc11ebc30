# SPDX-License-Identifier: Apache-2.0
"""Disks as their guests see them: what QEMU makes of overlay and image is what we read, and what archives give back."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import InvalidError
from sysd.storage import qcow2, tar
from sysd.storage.flat import Flat, Piece, flatten, spans
from sysd.storage.pack_disks import pack

MIB = 1 << 20
CLUSTER = 65536
SIZE = 8 * MIB


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    """An overlay of 8 MiB, and below it a disk of 4 MiB with data in its first and last cluster."""
    overlay, base = tmp_path / "overlay", tmp_path / "base"
    overlay.write_bytes(qcow2.empty(SIZE))
    base.write_bytes(os.urandom(CLUSTER))
    with base.open("r+b") as stream:
        stream.seek(4 * MIB - CLUSTER)
        stream.write(os.urandom(CLUSTER))
    return overlay, base


def write(overlay: Path, base: Path, *commands: str) -> None:
    """As a machine's QEMU does."""
    given = {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay)}, "backing": _raw(base)}
    told = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *told, f"json:{json.dumps(given)}"], check=True, capture_output=True)


def _raw(path: Path) -> dict[str, Any]:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(path)}, "read-only": True}


def expected(overlay: Path, base: Path, place: Path) -> bytes:
    given = {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay)}, "backing": _raw(base)}
    subprocess.run(["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(given)}", place], check=True)
    return place.read_bytes()


def read(flat: Flat) -> bytes:
    out = bytearray(flat.size)
    for piece in flat.pieces:
        out[piece.offset : piece.end] = os.pread(piece.fd, piece.length, piece.place).ljust(piece.length, b"\0")
    return bytes(out)


def flattened(overlay: Path, base: Path) -> bytes:
    with overlay.open("rb") as over, base.open("rb") as below:
        return read(flatten(over.fileno(), below.fileno()))


@pytest.mark.parametrize(
    "commands",
    [
        (),
        ("write -P 7 0 64k",),
        ("write -P 7 1000 3000", "write -P 8 5M 100k", "write -P 9 8188k 4k"),
        ("write -z 0 64k", "write -P 1 2M 1M", "write -z 2560k 64k", "discard 2M 64k"),
        ("write -P 3 4190208 8192",),
    ],
)
def test_what_qemu_has_written(tmp_path: Path, disks: tuple[Path, Path], commands: tuple[str, ...]) -> None:
    if commands:
        write(*disks, *commands)
    assert flattened(*disks) == expected(*disks, tmp_path / "raw")


def test_of_many_writes(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    chosen = random.Random(1)
    kinds = ("write -P 5", "write -z", "discard")
    commands = [f"{chosen.choice(kinds)} {chosen.randrange(0, 2040) * 4096} {4096 * chosen.randint(1, 8)}"
                for _ in range(100)]  # fmt: skip
    write(*disks, *commands)
    assert flattened(*disks) == expected(*disks, tmp_path / "raw")


def test_an_image_larger_than_the_disk(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    overlay, base = disks
    overlay.write_bytes(qcow2.empty(MIB))
    assert flattened(overlay, base) == base.read_bytes()[:MIB]


def test_an_archive_gives_the_disk_back(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    write(*disks, "write -P 7 1000 3000", "write -P 8 5M 100k")
    out = io.BytesIO()
    plan = {"files": {"top/a.txt": "text"}, "folders": ["top/sub"], "copies": {"top/sub/copy": str(disks[1])},
            "links": {"top/link": "a.txt"}, "disks": {"top/disk.img": [str(disks[0]), str(disks[1])]}}  # fmt: skip
    pack(plan, out.write)
    assert len(out.getvalue()) < 5 * MIB  # of holes nothing is written
    (tmp_path / "archive").write_bytes(out.getvalue())
    whole = expected(*disks, tmp_path / "raw")
    with tarfile.open(tmp_path / "archive") as found:
        assert found.getnames() == ["top/a.txt", "top/sub", "top/sub/copy", "top/link", "top/disk.img"]
        assert found.extractfile("top/disk.img").read() == whole  # type: ignore[union-attr]
    subprocess.run(["tar", "-xf", tmp_path / "archive", "-C", tmp_path], check=True)
    assert (tmp_path / "top/disk.img").read_bytes() == whole
    assert (tmp_path / "top/sub/copy").read_bytes() == disks[1].read_bytes()
    assert os.readlink(tmp_path / "top/link") == "a.txt"


def test_sizes_that_need_more_digits(tmp_path: Path) -> None:
    """More data than 8 GiB: read as tar(1) and Python do, of which the head is enough."""
    size = 9 << 30
    class Enough(Exception):
        pass

    out = bytearray()

    def write(data: bytes) -> None:
        out.extend(data)
        if len(out) > MIB:
            raise Enough

    with (tmp_path / "data").open("w+b") as stream:
        os.truncate(stream.fileno(), size)
        flat = Flat(1 << 40, [Piece(MIB, size, stream.fileno(), 0)])
        with pytest.raises(Enough):
            tar.Writer(write).disk("top/disk.img", flat)
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as found:
        member = found.next()
    assert member
    assert (member.name, member.size) == ("top/disk.img", 1 << 40)
    listed = subprocess.run(["tar", "-tvf", "-"], input=out, capture_output=True).stdout.decode()
    assert listed.split()[2] == str(1 << 40)


pairs = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), max_size=60)


@given(pairs, st.integers(1, 10))
def test_spans_have_all_data(parts: list[tuple[int, int]], most: int) -> None:
    at, pieces = 0, []
    for hole, length in parts:
        pieces.append(Piece(at + hole, length, 0, at))
        at += hole + length
    found = spans(Flat(at, pieces), most)
    assert len(found) <= most
    assert all(any(a <= piece.offset and piece.end <= a + b for a, b in found) for piece in pieces)
    assert all(first[0] + first[1] < second[0] for first, second in pairwise(found))


def damaged(disks: tuple[Path, Path], at: int, value: int) -> Path:
    with disks[0].open("r+b") as stream:
        stream.seek(at)
        stream.write(struct.pack(">Q", value))
    return disks[0]


def tables(path: Path) -> Iterator[int]:
    data = path.read_bytes()
    (l1,) = struct.unpack_from(">Q", data, 40)
    yield l1
    yield struct.unpack_from(">Q", data, l1)[0] & 0x00FF_FFFF_FFFF_FE00


@pytest.mark.parametrize(
    ("table", "entry", "value"),
    [
        (0, 0, 1 << 40), (0, 0, 0x200), (1, 0, 1 << 62 | CLUSTER), (1, 0, CLUSTER + 512),
    ],
)  # fmt: skip
def test_what_a_guest_that_took_its_qemu_over_may_write(
    disks: tuple[Path, Path], table: int, entry: int, value: int
) -> None:
    write(*disks, "write -P 7 0 64k")
    place = list(tables(disks[0]))[table]
    with pytest.raises(InvalidError, match="qcow2"):
        flattened(damaged(disks, place + 8 * entry, value), disks[1])


def test_the_same_data_everywhere(disks: tuple[Path, Path]) -> None:
    write(*disks, "write -P 7 0 64k")
    _, table = tables(disks[0])
    for entry in range(100):
        damaged(disks, table + 8 * entry, CLUSTER)
    with pytest.raises(InvalidError, match="more data than it is long"):
        flattened(*disks)


def test_other_files_are_never_read(disks: tuple[Path, Path]) -> None:
    """A name in the overlay's header."""
    data = bytearray(disks[0].read_bytes())
    struct.pack_into(">QI", data, 8, 1024, 11)
    data[1024:1035] = b"/etc/shadow"
    disks[0].write_bytes(data)
    with pytest.raises(InvalidError, match="backing file"):
        flattened(*disks)


def fresh() -> bytes:
    """An overlay with data, a zero and a hole, made by hand."""
    data = bytearray(qcow2.empty(SIZE))
    (l1,) = struct.unpack_from(">Q", data, 40)
    table, place = len(data), len(data) + CLUSTER
    data += bytes(CLUSTER) + b"data" * (CLUSTER // 4)
    struct.pack_into(">Q", data, l1, table)
    struct.pack_into(">QQ", data, table, place, 1)
    return bytes(data)


FRESH = fresh()


@given(st.lists(st.tuples(st.integers(0, len(FRESH) - 8), st.binary(min_size=1, max_size=8)), max_size=4),
       st.integers(0, len(FRESH)))  # fmt: skip
def test_mutated_overlays_are_refused_or_read(changes: list[tuple[int, bytes]], end: int) -> None:
    data = bytearray(FRESH)
    for at, new in changes:
        # Most of a file is data; what leads elsewhere is at the beginning of each cluster.
        at = at // CLUSTER * CLUSTER + at % 112
        data[at : at + len(new)] = new
    overlay, base = os.memfd_create("overlay"), os.memfd_create("base")
    try:
        os.write(overlay, data[: max(end, 1)])
        os.write(base, b"x" * CLUSTER)
        found = flatten(overlay, base)
        at = 0
        for piece in found.pieces:
            assert at <= piece.offset < piece.end <= found.size
            at = piece.end
        assert sum(piece.length for piece in found.pieces) <= len(data) + CLUSTER
    except InvalidError:
        pass
    finally:
        os.close(overlay)
        os.close(base)


def test_one_made_by_hand() -> None:
    overlay, base = os.memfd_create("overlay"), os.memfd_create("base")
    try:
        os.write(overlay, FRESH)
        os.write(base, b"x" * (3 * CLUSTER))
        expected = b"data" * (CLUSTER // 4) + bytes(CLUSTER) + b"x" * CLUSTER
        assert read(flatten(overlay, base)) == expected.ljust(SIZE, b"\0")
    finally:
        os.close(overlay)
        os.close(base)
