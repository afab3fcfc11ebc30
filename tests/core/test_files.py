# SPDX-License-Identifier: Apache-2.0
"""What is done to files in a tree, with a folder as the tree's root: nothing beyond it is ever touched."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sysd.model.errors import CancelledError, ExistsError, InvalidError, NotFoundError, SyscontError
from sysd.model.files import Action, FileRequest
from sysd.runtime.files import archives
from sysd.runtime.files.actions import MAX_UNSIZED, Tree
from sysd.runtime.files.worker import explained

Do = Callable[..., dict[str, str]]
ME = {"uid": os.getuid(), "gid": os.getgid()}
CANARY = "the host's"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The guest's root; beside it lies what it must not reach."""
    (tmp_path / "canary").write_text(CANARY)
    (tmp_path / "etc").mkdir()
    root = tmp_path / "root"
    for name in ("etc", "srv", "dev"):
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture
def do(root: Path, tmp_path: Path) -> Iterator[Do]:
    """One action; raises as the worker would answer."""
    fd = os.open(root, os.O_RDONLY)

    def run(action: Action, path: str, data: bytes | int = b"", **options: object) -> dict[str, str]:
        request = FileRequest(action, path, **options)  # type: ignore[arg-type]
        tree = Tree(fd, lambda done, total: None)
        method: dict[Action, Callable[[FileRequest, int], dict[str, str]]] = {
            Action.PUSH: tree.push,
            Action.PULL: tree.pull,
            Action.PUSH_TREE: partial(archives.push_tree, tree),
            Action.PULL_TREE: partial(archives.pull_tree, tree),
        }
        source = tmp_path / "data"
        if isinstance(data, bytes):
            source.write_bytes(data)
        stream = data if isinstance(data, int) else os.open(source, os.O_RDWR)
        try:
            if action in method:
                return method[action](request, stream)
            return tree.make_directory(request) if action is Action.MAKE_DIRECTORY else tree.delete(request)
        except OSError as error:
            raise explained(error, request) from error
        finally:
            if isinstance(data, bytes):
                os.close(stream)

    yield run
    os.close(fd)
    assert (tmp_path / "canary").read_text() == CANARY
    assert {path.name for path in tmp_path.iterdir()} <= {"canary", "etc", "root", "data", "copy"}
    assert not list((tmp_path / "etc").iterdir())


def pulled(do: Do, tmp_path: Path, path: str) -> bytes:
    with open(tmp_path / "copy", "wb+") as copy:
        do(Action.PULL, path, copy.fileno())
        copy.seek(0)
        return copy.read()


@pytest.mark.parametrize(
    "bad",
    ["", "etc", "/..", "/a/../b", "/a/..", "/a\0b", "/" + "a" * 256, "/" + "ä" * 128, "/a" * 2100, "../x"],
    ids=lambda text: repr(text[:8]),
)
def test_paths_that_lead_elsewhere(bad: str) -> None:
    with pytest.raises(InvalidError):
        FileRequest(Action.PULL, bad)


@pytest.mark.parametrize(
    "bad", [{"name": ".."}, {"name": "a/b"}, {"mode": 0o10000}, {"mode": -2}, {"uid": 1 << 32}, {"gid": -2}], ids=repr
)
def test_options_that_cannot_be(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        FileRequest(Action.PUSH, "/a", **bad)  # type: ignore[arg-type]


def test_push_and_pull(do: Do, root: Path, tmp_path: Path) -> None:
    assert do(Action.PUSH, "/srv/x", b"hello", mode=0o640, **ME) == {"size": "5"}
    assert stat.S_IMODE((root / "srv/x").stat().st_mode) == 0o640
    assert pulled(do, tmp_path, "/srv/x") == b"hello"
    do(Action.PUSH, "/srv/x", b"other")
    assert stat.S_IMODE((root / "srv/x").stat().st_mode) == 0o640
    assert os.listdir(root / "srv") == ["x"]


def test_a_file_goes_into_a_folder_under_its_name(do: Do, root: Path) -> None:
    for path in ("/srv", "/srv/", "/"):
        do(Action.PUSH, path, b"1", name="file", **ME)
    assert (root / "srv/file").exists()
    assert (root / "file").exists()
    with pytest.raises(InvalidError, match="is a directory"):
        do(Action.PUSH, "/srv", b"1")
    with pytest.raises(NotFoundError, match="no directory /new/"):
        do(Action.PUSH, "/new/", b"1", name="file")
    do(Action.PUSH, "/new/", b"1", name="file", parents=True, **ME)
    assert (root / "new/file").exists()


def test_missing_folders(do: Do, root: Path) -> None:
    with pytest.raises(NotFoundError, match="no directory /a/b"):
        do(Action.PUSH, "/a/b/c", b"1", **ME)
    do(Action.PUSH, "/a/b/c", b"1", parents=True, **ME)
    assert (root / "a/b/c").read_bytes() == b"1"


def test_a_push_that_fails_leaves_what_was_there(do: Do, root: Path) -> None:
    (root / "srv/x").write_text("old")
    with pytest.raises(SyscontError):
        do(Action.PUSH, "/srv/x", os.open(root, os.O_RDONLY))  # reading it fails
    assert (root / "srv/x").read_text() == "old"
    assert os.listdir(root / "srv") == ["x"]


# a guest that puts links and worse in the way


LINKS = ("../../canary", "../../etc", "/canary", "/../canary", "/../../../../etc", "/proc/self/root/etc", "/proc/1/cwd")


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_nowhere_outside(do: Do, root: Path, tmp_path: Path, target: str) -> None:
    (root / "srv/link").symlink_to(target)
    for action, path in (
        (Action.PUSH, "/srv/link"),
        (Action.PUSH, "/srv/link/file"),
        (Action.MAKE_DIRECTORY, "/srv/link/sub"),
        (Action.DELETE, "/srv/link/canary"),
        (Action.PULL_TREE, "/srv/link"),
    ):
        try:
            do(action, path, **(ME if action is Action.PUSH else {}))
        except SyscontError:
            continue
    with pytest.raises(SyscontError):
        pulled(do, tmp_path, "/srv/link/../canary".replace("/..", ""))


def test_links_inside_are_followed_as_the_guest_would(do: Do, root: Path) -> None:
    (root / "real").mkdir()
    (root / "srv/link").symlink_to("/real")
    (root / "real/file").write_text("1")
    (root / "srv/to").symlink_to("../real/file")
    do(Action.PUSH, "/srv/link/new", b"2", **ME)
    do(Action.PUSH, "/srv/to", b"3")
    assert (root / "real/new").read_text() == "2"
    assert (root / "real/file").read_text() == "3"
    assert (root / "srv/to").is_symlink()


def test_only_files_are_read_and_written(do: Do, root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "srv/fifo")
    (root / "srv/loop").symlink_to("loop")
    (root / "srv/proc").symlink_to("/proc/self/fd/0")
    for name in ("fifo", "loop", "proc"):
        with pytest.raises(SyscontError):
            pulled(do, tmp_path, f"/srv/{name}")
    with pytest.raises(InvalidError, match="is a fifo"):
        do(Action.PUSH, "/srv/fifo", b"1")


def test_a_link_to_nothing_is_replaced(do: Do, root: Path) -> None:
    (root / "etc/resolv.conf").symlink_to("../run/nothing")
    do(Action.PUSH, "/etc/resolv.conf", b"1", **ME)
    assert (root / "etc/resolv.conf").read_text() == "1"
    assert not (root / "etc/resolv.conf").is_symlink()


def test_a_tree_that_is_changed_meanwhile(do: Do, root: Path) -> None:
    """A folder that turns into a link and back, as fast as it goes."""
    (root / "srv/a").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "srv/a", root / "srv/b")
            os.symlink("../../etc", root / "srv/a")
            os.unlink(root / "srv/a")
            os.rename(root / "srv/b", root / "srv/a")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                do(Action.PUSH, "/srv/a/file", b"1", **ME)
                do(Action.DELETE, "/srv/a/file")
            except SyscontError:
                continue
    finally:
        stop.set()
        thread.join()


# odd files


def test_holes_stay_holes(do: Do, root: Path, tmp_path: Path) -> None:
    with open(root / "srv/sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate(2 << 30)
    with open(tmp_path / "copy", "wb+") as copy:
        do(Action.PULL, "/srv/sparse", copy.fileno())
        info = os.fstat(copy.fileno())
        assert (info.st_size, info.st_blocks < 1 << 14) == (2 << 30, True)
        os.pread(copy.fileno(), 3, 1 << 30)
        assert os.pread(copy.fileno(), 3, 1 << 30) == b"end"


def test_appending_to_a_file_keeps_what_it_has(do: Do, root: Path, tmp_path: Path) -> None:
    with open(root / "srv/sparse", "wb") as file:
        file.truncate(1 << 16)
        file.seek(1 << 16)
        file.write(b"x")
    (tmp_path / "copy").write_bytes(b"log")
    with open(tmp_path / "copy", "ab") as copy:
        do(Action.PULL, "/srv/sparse", copy.fileno())
    assert (tmp_path / "copy").read_bytes() == b"log" + bytes(1 << 16) + b"x"


def test_a_file_that_grows_is_read_to_where_it_ended(do: Do, root: Path) -> None:
    (root / "srv/log").write_bytes(b"x" * 100)
    reader, writer = os.pipe()
    do(Action.PULL, "/srv/log", writer)
    os.close(writer)
    assert os.read(reader, 1000) == b"x" * 100
    os.close(reader)
    assert MAX_UNSIZED < 1 << 30


def test_a_reader_that_is_gone(do: Do, root: Path) -> None:
    (root / "srv/log").write_bytes(b"x" * 100)
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(CancelledError):
        do(Action.PULL, "/srv/log", writer)
    os.close(writer)


# folders


def test_making_and_deleting_folders(do: Do, root: Path) -> None:
    do(Action.MAKE_DIRECTORY, "/srv/a", mode=0o750, **ME)
    assert stat.S_IMODE((root / "srv/a").stat().st_mode) == 0o750
    with pytest.raises(ExistsError):
        do(Action.MAKE_DIRECTORY, "/srv/a", **ME)
    do(Action.MAKE_DIRECTORY, "/srv/a", parents=True, **ME)
    do(Action.MAKE_DIRECTORY, "/srv/a/b/c", parents=True, **ME)
    with pytest.raises(InvalidError, match="not empty"):
        do(Action.DELETE, "/srv/a")
    do(Action.DELETE, "/srv/a", recursive=True)
    assert not (root / "srv/a").exists()
    with pytest.raises(NotFoundError):
        do(Action.DELETE, "/srv/a")
    with pytest.raises(InvalidError, match="root folder"):
        do(Action.DELETE, "/")


def test_of_a_link_the_link_is_deleted(do: Do, root: Path) -> None:
    (root / "srv/link").symlink_to("../etc")
    do(Action.DELETE, "/srv/link", recursive=True)
    assert (root / "etc").is_dir()
    assert not os.path.lexists(root / "srv/link")


def test_a_tree_there_and_back(do: Do, root: Path, tmp_path: Path) -> None:
    top = root / "srv/top"
    (top / "sub").mkdir(parents=True)
    (top / "sub/file").write_bytes(b"1" * 1000)
    os.link(top / "sub/file", top / "hard")
    (top / "link").symlink_to("sub/nothing")
    os.mkfifo(top / "fifo")
    (top / "\udcff name\n").write_text("odd")
    os.chmod(top / "sub", 0o711)
    os.utime(top / "sub/file", (1e9, 1e9))
    with open(tmp_path / "copy", "wb+") as archive:
        assert do(Action.PULL_TREE, "/srv/top", archive.fileno())["skipped"] == "0"
        archive.seek(0)
        do(Action.PUSH_TREE, "/new", archive.fileno(), parents=True)
    new = root / "new/top"
    assert (new / "sub/file").read_bytes() == b"1" * 1000
    assert (new / "sub/file").stat().st_ino == (new / "hard").stat().st_ino
    assert (new / "sub/file").stat().st_mtime == 1e9
    assert os.readlink(new / "link") == "sub/nothing"
    assert stat.S_ISFIFO((new / "fifo").lstat().st_mode)
    assert (new / "\udcff name\n").read_text() == "odd"
    assert stat.S_IMODE((new / "sub").stat().st_mode) == 0o711


def test_a_tree_that_is_too_deep(do: Do, root: Path, tmp_path: Path) -> None:
    here = os.open(root / "srv", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    with open(tmp_path / "copy", "wb+") as archive, pytest.raises(InvalidError, match="nested"):
        do(Action.PULL_TREE, "/srv", archive.fileno())
    assert len(os.listdir("/proc/self/fd")) == before
    do(Action.DELETE, "/srv/d", recursive=True)
    assert not (root / "srv/d").exists()


def test_a_damaged_archive(do: Do) -> None:
    with pytest.raises(InvalidError, match="damaged"):
        do(Action.PUSH_TREE, "/srv", b"no archive" * 100)
