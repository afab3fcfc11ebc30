# SPDX-License-Identifier: Apache-2.0
"""Clones are what they were made of, whatever a guest has put there; and they stay within themselves."""

import contextlib
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import CancelledError, FailedError
from sysd.runtime.trees import remove_tree
from sysd.storage.dir import MAX_DEPTH, Dir

NEVER = threading.Event().is_set
ROOT = os.geteuid() == 0


def clone(source: Path, target: Path) -> None:
    Dir().clone(source, target, NEVER)
    assert sorted(os.listdir(target.parent)) == sorted({source.name, target.name})


def facts(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = os.path.normpath(os.path.join(folder, name))
            info = os.lstat(path)
            attributes = {key: os.getxattr(path, key, follow_symlinks=False)
                          for key in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
            content: object = None
            if stat.S_ISREG(info.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            first = inodes.setdefault(info.st_ino, os.path.relpath(path, root))
            # Not the time of access: looking changes it.
            found[os.path.relpath(path, root)] = (
                info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns, attributes, content, first,
            )  # fmt: skip
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def same(source: Path) -> None:
    before = facts(source)
    target = source.with_name("target")
    clone(source, target)
    assert facts(target) == before
    assert facts(source) == before


def test_files_links_and_times(source: Path) -> None:
    (source / "folder").mkdir(mode=0o751)
    (source / "folder/file").write_bytes(b"content" * 100_000)
    (source / "empty").touch(mode=0o4755)
    os.chmod(source / "empty", 0o6711)
    os.link(source / "folder/file", source / "second name")
    os.link(source / "folder/file", source / "folder/third name")
    os.symlink("/etc/passwd", source / "link")
    os.symlink("../../../outside", source / "folder/up")
    os.mkfifo(source / "pipe", 0o622)
    (source / os.fsdecode(b"not utf-8 \xff\n")).write_text("x")
    os.utime(source / "folder/file", ns=(1, 2))
    os.utime(source / "link", ns=(3, 4), follow_symlinks=False)
    os.utime(source / "folder", ns=(5, 1_000_000_001))
    same(source)


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_what_overlayfs_keeps_in_a_layer(source: Path) -> None:
    os.mknod(source / "whiteout", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    os.link(source / "whiteout", source / "whiteout too")
    (source / "opaque").mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 65534, 1000)
    os.symlink("x", source / "link")
    os.chown(source / "link", 12, 34, follow_symlinks=False)
    with contextlib.suppress(OSError):  # the machine's temporary folder may be on a file system without
        os.setxattr(source / "opaque", "trusted.overlay.opaque", b"y")
        os.setxattr(source / "file", "trusted.overlay.origin", bytes(range(256))[:40])
        os.setxattr(source / "link", "trusted.overlay.origin", b"z", follow_symlinks=False)
        os.setxattr(source / "file", "security.capability", b"\1\0\0\2\0\x20" + bytes(14))
        os.setxattr(source / "file", "user.mine", b"")
    same(source)


def test_holes_stay_holes(source: Path) -> None:
    with (source / "sparse").open("wb") as stream:
        stream.seek(64 << 20)
        stream.write(b"end")
        stream.truncate(1 << 30)
    with (source / "all hole").open("wb") as stream:
        stream.truncate(1 << 40)
    clone(source, source.with_name("target"))
    target = source.with_name("target")
    assert (target / "sparse").stat().st_size == 1 << 30
    assert (target / "all hole").stat().st_size == 1 << 40
    assert (target / "sparse").stat().st_blocks * 512 < 8 << 20
    with (target / "sparse").open("rb") as stream:
        stream.seek(64 << 20)
        assert stream.read(4) == b"end\0"


def test_links_lead_nowhere(source: Path, tmp_path: Path) -> None:
    """A layer whose folders are links: nothing is read or written through them."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("safe")
    os.symlink(outside, source / "etc")
    os.symlink(outside / "canary", source / "passwd")
    before = facts(outside)
    target = tmp_path / "target"
    Dir().clone(source, target, NEVER)
    assert facts(outside) == before
    assert (target / "etc").is_symlink()
    assert (target / "passwd").is_symlink()


def test_a_tree_that_is_too_deep_is_refused(source: Path) -> None:
    at = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(MAX_DEPTH + 5):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(FailedError, match="deep"):
            Dir().clone(source, source.with_name("target"), NEVER)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        for name in ("source", "target"):  # deeper than pytest could remove
            remove_tree(source.with_name(name))


def test_cancelled(source: Path) -> None:
    (source / "file").touch()
    with pytest.raises(CancelledError):
        Dir().clone(source, source.with_name("target"), lambda: True)


def test_the_source_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="can't be copied"):
        Dir().clone(tmp_path / "none", tmp_path / "target", NEVER)
