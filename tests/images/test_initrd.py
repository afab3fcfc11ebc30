# SPDX-License-Identifier: Apache-2.0
"""The initrd of machines that start with their image's kernel: which modules it has, in which order, and when there is
none, so that the image's own serves."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysd.images import initrd
from sysd.images.metadata import host_architecture

VERSION = "6.1.0-9"
KERNEL = f"lib/modules/{VERSION}"
PCI, BLOCK, EXT4 = (
    f"kernel/drivers/{name}.ko" for name in ("virtio/virtio_pci", "block/virtio_blk", "../fs/ext4/ext4")
)
PLAIN = {PCI: b"pci", BLOCK: b"block", EXT4: b"ext4"}
"""Paths of modules, and what is in their files."""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    path = tmp_path / "guest-init"
    path.write_bytes(b"the program")
    monkeypatch.setattr(initrd, "INIT", path)
    return path.read_bytes()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / KERNEL).mkdir(parents=True)
    return path


def fill(tree: Path, files: Mapping[str, bytes], needs: Mapping[str, str] | None = None, builtin: str = "") -> None:
    for name, data in files.items():
        path = tree / KERNEL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    lines = [f"{name}: {(needs or {}).get(name, '')}".strip() for name in files]
    (tree / KERNEL / "modules.dep").write_text("".join(f"{line}\n" for line in lines))
    (tree / KERNEL / "modules.builtin").write_text(builtin)


@contextmanager
def root_of(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def build(tree: Path, architecture: str = host_architecture()) -> bytes | None:
    with root_of(tree) as fd:
        return initrd.build(fd, VERSION, architecture)


def unpack(tree: Path, target: Path) -> list[str]:
    """Names of its modules, in order; as cpio(1) reads it."""
    archive = build(tree)
    assert archive is not None
    target.mkdir()
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=target, check=True)
    return sorted(os.listdir(target / "modules"))


def test_what_is_in_it(tree: Path, tmp_path: Path, program: bytes) -> None:
    fill(tree, PLAIN)
    out = tmp_path / "out"
    assert unpack(tree, out) == ["00-virtio_pci.ko", "01-virtio_blk.ko", "02-ext4.ko"]
    assert (out / "init").read_bytes() == program
    assert (out / "init").stat().st_mode & 0o777 == 0o755
    assert (out / "modules/02-ext4.ko").read_bytes() == b"ext4"
    assert (out / "dev/console").is_char_device()
    assert all((out / name).is_dir() for name in ("dev", "proc", "root", "sys"))


def test_what_is_needed_comes_first(tree: Path, tmp_path: Path) -> None:
    ring, virtio, crc = "kernel/virtio_ring.ko", "kernel/virtio.ko", "kernel/crc32c-intel.ko"
    files = {**PLAIN, ring: b"r", virtio: b"v", crc: b"c", "kernel/other.ko": b"o"}
    fill(tree, files, {PCI: f"{ring} {virtio}", BLOCK: f"{ring} {virtio}", ring: virtio})
    names = [name[3:-3] for name in unpack(tree, tmp_path / "out")]
    assert names == ["crc32c_intel", "virtio", "virtio_ring", "virtio_pci", "virtio_blk", "ext4"]


def test_what_the_kernel_has_is_left_out(tree: Path, tmp_path: Path) -> None:
    fill(tree, {BLOCK: b"block"}, builtin=f"{PCI}\n{EXT4}\n")
    assert unpack(tree, tmp_path / "out") == ["00-virtio_blk.ko"]


def test_compressed_modules(tree: Path, tmp_path: Path) -> None:
    fill(tree, {f"{PCI}.xz": lzma.compress(b"pci"), f"{BLOCK}.gz": gzip.compress(b"block"), EXT4: b"ext4"})
    out = tmp_path / "out"
    assert unpack(tree, out) == ["00-virtio_pci.ko", "01-virtio_blk.ko", "02-ext4.ko"]
    assert (out / "modules/00-virtio_pci.ko").read_bytes() == b"pci"
    assert (out / "modules/01-virtio_blk.ko").read_bytes() == b"block"


@pytest.mark.parametrize(
    ("files", "needs"),
    [
        pytest.param({PCI: b"p", BLOCK: b"b"}, {}, id="one is nowhere"),
        pytest.param({**PLAIN, f"{BLOCK}.xz": b"no xz"}, {BLOCK: f"{BLOCK}.xz"}, id="damaged"),
        pytest.param({PCI: b"p", f"{BLOCK}.zst": b"z", EXT4: b"e"}, {}, id="of a form that is not read"),
        pytest.param(PLAIN, {EXT4: "kernel/missing.ko"}, id="its needs are not there"),
        pytest.param(PLAIN, {EXT4: "../../../../outside"}, id="its needs are elsewhere"),
        pytest.param({PCI: b"p", BLOCK: b"", EXT4: b"e"}, {}, id="empty"),
        pytest.param(PLAIN, {EXT4: "x" * 300}, id="what is no name"),
        pytest.param(PLAIN, {EXT4: "kernel/a\0b.ko"}, id="what is no path"),
        pytest.param(PLAIN, {EXT4: " ".join(f"{'./' * n}{PCI}" for n in range(100))}, id="a hundred"),
    ],
)
def test_no_module_no_initrd(tree: Path, files: Mapping[str, bytes], needs: Mapping[str, str]) -> None:
    (tree.parent / "outside").write_text("the host's")
    fill(tree, files, needs)
    assert build(tree) is None


def test_a_bomb(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initrd, "_MAX_MODULE", 1 << 16)
    for suffix, compress in (("xz", lzma.compress), ("gz", gzip.compress)):
        fill(tree, {PCI: b"p", f"{BLOCK}.{suffix}": compress(bytes(1 << 20)), EXT4: b"e"})
        assert build(tree) is None


def test_many_large_ones(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tree, PLAIN)
    monkeypatch.setattr(initrd, "_MAX_SUM", sum(map(len, PLAIN.values())))
    assert build(tree)
    monkeypatch.setattr(initrd, "_MAX_SUM", initrd._MAX_SUM - 1)
    assert build(tree) is None


def test_modules_that_are_links_to_the_host(tree: Path) -> None:
    canary = tree.parent / "canary.ko"
    canary.write_bytes(b"the host's")
    fill(tree, PLAIN)
    (tree / KERNEL / EXT4).unlink()
    (tree / KERNEL / EXT4).symlink_to(canary)
    assert build(tree) is None


def test_another_architecture(tree: Path) -> None:
    fill(tree, PLAIN)
    assert build(tree, "s390x") is None


def test_a_kernel_without_an_index(tree: Path) -> None:
    assert build(tree) is None


def test_syscont_is_not_installed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tree, PLAIN)
    monkeypatch.setattr(initrd, "INIT", tree / "missing")
    assert build(tree) is None
