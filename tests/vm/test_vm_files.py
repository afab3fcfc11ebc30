# SPDX-License-Identifier: Apache-2.0
"""The program that does the work on a guest's files, run by the shells that guests have, here."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.model.errors import ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.files import Action, FileRequest
from sysd.runtime.vm import files, guest_files
from tests.vm.local import SHELLS, Place

ME = {"uid": os.getuid(), "gid": os.getgid()}
"""Only root can give files to others."""
ODD = "-a 'b'\n$(c)\\ \"\n"


@pytest.fixture(params=SHELLS, name="place")
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    return tree


def _work(place: Place, request: FileRequest, data: int = -1) -> dict[str, str]:
    return asyncio.run(files.work(place.start, request, data, lambda stage, done, total: None))


def _push(place: Place, path: str, content: bytes, *, by_pipe: bool = False, **others: object) -> dict[str, str]:
    if by_pipe:
        data, other = os.pipe()
        writer = threading.Thread(target=_write, args=(other, content))
        writer.start()
    else:
        data = os.memfd_create("content")
        os.write(data, content)
        os.lseek(data, 0, os.SEEK_SET)
    try:
        request = FileRequest(Action.PUSH, path, **(ME | others))  # type: ignore[arg-type]
        return _work(place, request, data)
    finally:
        os.close(data)
        if by_pipe:
            writer.join()


def _write(fd: int, content: bytes) -> None:
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)


def _pull(place: Place, path: str, action: Action = Action.PULL) -> tuple[dict[str, str], bytes]:
    data = os.memfd_create("content")
    try:
        result = _work(place, FileRequest(action, path), data)
        return result, os.pread(data, os.fstat(data).st_size, 0)
    finally:
        os.close(data)


CONTENT = bytes(range(256)) * 1000


@pytest.mark.parametrize("by_pipe", [False, True])
def test_push_and_pull(place: Place, tree: Path, by_pipe: bool) -> None:
    path = f"{tree}/{ODD}"
    assert _push(place, path, CONTENT, by_pipe=by_pipe, mode=0o4750) == {"size": "256000"}
    assert Path(path).read_bytes() == CONTENT
    result, content = _pull(place, path)
    assert content == CONTENT
    assert result == {"mode": "4750", "uid": str(ME["uid"]), "gid": str(ME["gid"]), "size": "256000"}
    assert os.listdir(tree) == [ODD]


def test_file_that_is_there_keeps_its_mode(place: Place, tree: Path) -> None:
    path = tree / "file"
    path.write_bytes(b"old")
    path.chmod(0o600)
    before = path.stat().st_ino
    _push(place, str(path), b"new", uid=-1, gid=-1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != before
    assert path.read_bytes() == b"new"
    _push(place, str(path), b"", mode=0o644)
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (0o644, b"")


def test_links(place: Place, tree: Path) -> None:
    (tree / "file").write_bytes(b"old")
    (tree / "link").symlink_to("file")
    (tree / "broken").symlink_to("nothing")
    _push(place, f"{tree}/link", b"new")
    assert (tree / "link").is_symlink()
    assert (tree / "file").read_bytes() == b"new"
    _push(place, f"{tree}/broken", b"new")
    assert not (tree / "broken").is_symlink()


def test_folders_on_the_way(place: Place, tree: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no directory .*/a/b"):
        _push(place, f"{tree}/a/b/c", b"x")
    _push(place, f"{tree}/a/b/c", b"x", parents=True)
    with pytest.raises(NotFoundError, match=r"no directory .*/d/"):
        _push(place, f"{tree}/d/", b"x", name="file")
    _push(place, f"{tree}/d/", b"x", name="file", parents=True)
    _push(place, f"{tree}/d", b"x", name="other")
    assert sorted(os.listdir(tree / "d")) == ["file", "other"]
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o755


def test_places_that_are_none(place: Place, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "file").write_bytes(b"")
    with pytest.raises(InvalidError, match="is a directory") as caught:
        _push(place, str(tree), b"x")
    assert caught.value.hint == "name the file in it"
    with pytest.raises(InvalidError, match="is a fifo"):
        _push(place, f"{tree}/fifo", b"x")
    with pytest.raises(InvalidError, match="is no directory"):
        _push(place, f"{tree}/file/below", b"x")
    for path, error in {"fifo": InvalidError, "nothing": NotFoundError, "": InvalidError}.items():
        with pytest.raises(error):
            _pull(place, f"{tree}/{path}")
    with pytest.raises(InvalidError, match="is a device node"):
        _pull(place, "/dev/null")
    assert sorted(os.listdir(tree)) == ["fifo", "file"]


def test_file_without_a_size(place: Place) -> None:
    result, content = _pull(place, "/proc/version")
    assert content == Path("/proc/version").read_bytes()
    assert result["size"] == str(len(content))


def test_data_that_end_early(place: Place, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost looks like the end of a file."""
    monkeypatch.setattr(files, "_left", lambda data: 10)
    with pytest.raises(FailedError, match="ended early"):
        _push(place, f"{tree}/file", b"x" * 9)
    assert not os.listdir(tree)


def test_make_directories(place: Place, tree: Path) -> None:
    def make(path: str, **others: object) -> None:
        _work(place, FileRequest(Action.MAKE_DIRECTORY, f"{tree}/{path}", **(ME | others)))  # type: ignore[arg-type]

    make("a", mode=0o1777)
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o1777
    make("b/")
    assert stat.S_IMODE((tree / "b").stat().st_mode) == 0o755
    with pytest.raises(ExistsError):
        make("a")
    with pytest.raises(NotFoundError):
        make("c/d")
    make("c/d", parents=True)
    make("c/d", parents=True)
    (tree / "file").write_bytes(b"")
    with pytest.raises(InvalidError):
        make("file", parents=True)
    with pytest.raises(ExistsError):
        _work(place, FileRequest(Action.MAKE_DIRECTORY, "/"))


def test_delete(place: Place, tree: Path) -> None:
    def delete(path: str, recursive: bool = False) -> None:
        _work(place, FileRequest(Action.DELETE, f"{tree}/{path}", recursive=recursive))

    (tree / ODD / "below").mkdir(parents=True)
    (tree / "link").symlink_to(ODD)
    with pytest.raises(InvalidError, match="is not empty"):
        delete(ODD)
    delete("link")
    delete(f"{ODD}/below")
    (tree / ODD / "file").write_bytes(b"")
    delete(ODD, recursive=True)
    assert not os.listdir(tree)
    with pytest.raises(NotFoundError):
        delete("nothing")
    with pytest.raises(InvalidError, match="in use as a mount point"):
        _work(place, FileRequest(Action.DELETE, "/proc", recursive=True))
    with pytest.raises(InvalidError, match="root folder"):
        _work(place, FileRequest(Action.DELETE, "/", recursive=True))


def test_folders_as_archives(place: Place, tree: Path) -> None:
    (tree / "from" / ODD).mkdir(parents=True)
    (tree / "from" / ODD / "file").write_bytes(CONTENT)
    (tree / "from" / "link").symlink_to(ODD)
    result, archive = _pull(place, f"{tree}/from", Action.PULL_TREE)
    assert result["skipped"] == "0"
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        names = sorted(name.strip("/") for name in found.getnames())
    assert names == sorted(["from", f"from/{ODD}", f"from/{ODD}/file", "from/link"])
    data = os.memfd_create("archive")
    os.write(data, archive)
    os.lseek(data, 0, os.SEEK_SET)
    with pytest.raises(NotFoundError):
        _work(place, FileRequest(Action.PUSH_TREE, f"{tree}/to"), data)
    os.lseek(data, 0, os.SEEK_SET)
    _work(place, FileRequest(Action.PUSH_TREE, f"{tree}/to", parents=True), data)
    os.close(data)
    assert (tree / "to" / "from" / ODD / "file").read_bytes() == CONTENT
    with pytest.raises(NotFoundError):
        _pull(place, f"{tree}/nothing", Action.PULL_TREE)


REQUEST = FileRequest(Action.PULL, "/x")


@given(st.integers(0, 255), st.text(alphabet=st.sampled_from("\x1e\x1f=aNotFound\n"), max_size=200) | st.text())
def test_any_record(status: int, said: str) -> None:
    """A guest can say anything: what comes of it are texts for people, or an error of ours."""
    found: dict[str, str] | None = None
    with contextlib.suppress(SyscontError):
        found = files._result(status, said, REQUEST)
    assert found is None or (status == 0 and len(found) <= files.MAX_FIELDS)


def test_records() -> None:
    record, field = guest_files.RECORD, guest_files.FIELD
    assert files._result(0, f"noise{record}={field}a{field}b", REQUEST) == {"a": "b"}
    with pytest.raises(NotFoundError, match="why"):
        files._result(1, f"noise{record}NotFound{field}why{field}", REQUEST)
    for status, said in ((1, f"{record}="), (0, f"{record}NotFound{field}a{field}b"), (0, ""), (1, "no space\n")):
        with pytest.raises(FailedError, match="/x: "):
            files._result(status, said, REQUEST)
