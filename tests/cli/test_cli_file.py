# SPDX-License-Identifier: Apache-2.0
"""The file verbs against a daemon that plays the worker: which descriptors it gets, and what becomes of the answers."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Serve
from tests.cli.fake_daemon import Call

DONE = {"operation": {"status": "done", "result": {"mode": "4755", "uid": "0", "gid": "0", "size": "4"}}}


def read_all(call: Call, into: list[bytes]) -> None:
    with open(os.dup(call.fds[0]), "rb") as stream:
        into.append(stream.read())
    call.reply(DONE)


def test_a_file_is_passed_with_its_mode_and_owner(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    got: list[bytes] = []
    daemon = serve({"PushFile": lambda call: read_all(call, got)})
    source = tmp_path / "a.txt"
    source.write_text("text")
    source.chmod(0o4640)
    assert syscont("file", "push", str(source), "c1/srv/", "-p").returncode == 0
    info = source.stat()
    assert daemon.calls[0].parameters == {
        "name": "c1", "path": "/srv/", "dataFd": 0, "fileName": "a.txt", "parents": True,
        "mode": 0o640, "uid": info.st_uid, "gid": info.st_gid,
    }  # fmt: skip
    assert got == [b"text"]


def test_attributes_that_are_given_win(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    daemon = serve({"PushFile": lambda call: call.reply(DONE)})
    (tmp_path / "a").touch()
    syscont("file", "push", str(tmp_path / "a"), "lab:c1/x", "--mode", "0600", "--uid", "5", "--gid", "0")
    sent = daemon.calls[0].parameters
    assert (sent["name"], sent["mode"], sent["uid"], sent["gid"]) == ("lab:c1", 0o600, 5, 0)


def test_standard_input_keeps_what_the_file_has(serve: Serve, syscont: Command) -> None:
    got: list[bytes] = []
    daemon = serve({"PushFile": lambda call: read_all(call, got)})
    assert syscont("file", "push", "-", "c1/x", stdin="typed").returncode == 0
    assert daemon.calls[0].parameters == {"name": "c1", "path": "/x", "dataFd": 0}
    assert got == [b"typed"]


def test_what_is_pulled_is_whole_or_not_there(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    def half(call: Call) -> None:
        os.write(call.fds[0], b"half")
        call.error("Failed", "the disk is gone")

    def whole(call: Call) -> None:
        os.write(call.fds[0], b"text")
        call.reply(DONE)

    daemon = serve({"PullFile": half})
    place = tmp_path / "place"
    place.write_text("old")
    assert "the disk is gone" in syscont("file", "pull", "c1/x", str(place)).stderr
    assert place.read_text() == "old"
    daemon.handlers["PullFile"] = whole
    assert syscont("file", "pull", "c1/x", str(place)).returncode == 0
    assert place.read_text() == "text"
    assert stat.S_IMODE(place.stat().st_mode) == 0o755  # no set-user-id from a guest
    assert {path.name for path in tmp_path.iterdir()} <= {"place", "varlink"}


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """(name, type, link or content)"""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o4755
            info.uid, info.gid = os.getuid(), os.getgid()
            data = text.encode() if kind == tarfile.REGTYPE else b""
            info.linkname = "" if data else text
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def pull_of(data: bytes, serve: Serve, syscont: Command, target: Path) -> tuple[int, str]:
    def send(call: Call) -> None:
        with open(os.dup(call.fds[0]), "wb") as stream:
            stream.write(data)
        call.close_fds()
        call.reply({"operation": {"status": "done", "result": {"skipped": "3"}}})

    serve({"PullTree": send})
    done = syscont("file", "pull", "-r", "c1/t", str(target))
    return done.returncode, done.stderr


def test_a_folder_comes_without_rights(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    link = ("t/l", tarfile.SYMTYPE, "/etc/passwd")
    data = archive(("t", tarfile.DIRTYPE, ""), ("t/f", tarfile.REGTYPE, "text"), link)
    code, said = pull_of(data, serve, syscont, tmp_path)
    assert (code, "3 device nodes" in said) == (0, True)
    assert (tmp_path / "t/f").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "t/f").stat().st_mode) == 0o755
    assert os.readlink(tmp_path / "t/l") == "/etc/passwd"


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", tarfile.REGTYPE, "x")],
        [("/evil", tarfile.REGTYPE, "x")],
        [("t", tarfile.SYMTYPE, ".."), ("t/evil", tarfile.REGTYPE, "x")],
        [("t", tarfile.SYMTYPE, ".."), ("t", tarfile.DIRTYPE, ""), ("t/evil", tarfile.REGTYPE, "x")],
        [("t", tarfile.LNKTYPE, "../evil")],
        [("t", tarfile.CHRTYPE, "")],
    ],
    ids=["up", "absolute", "through a link", "link, then folder", "hard link", "device"],
)
def test_an_archive_made_to_break_out(
    serve: Serve, syscont: Command, tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    code, said = pull_of(archive(*members), serve, syscont, target)
    assert (code, len(said.splitlines())) == (1, 1)
    assert not (tmp_path / "evil").exists()


def test_a_folder_goes_as_an_archive(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    got: list[bytes] = []
    daemon = serve({"PushTree": lambda call: read_all(call, got)})
    (tmp_path / "site/sub").mkdir(parents=True)
    (tmp_path / "site/sub/f").write_text("text")
    (tmp_path / "site/l").symlink_to("nowhere")
    assert syscont("file", "push", "-r", str(tmp_path / "site"), "c1/srv", "--uid", "7").returncode == 0
    assert daemon.calls[0].parameters == {"name": "c1", "path": "/srv", "dataFd": 0}
    with tarfile.open(fileobj=io.BytesIO(got[0])) as tar:
        assert {(one.name, one.uid) for one in tar} == {(n, 7) for n in ("site", "site/l", "site/sub", "site/sub/f")}


def test_the_daemons_error_is_the_one_that_is_told(serve: Serve, syscont: Command, tmp_path: Path) -> None:
    def refuse(call: Call) -> None:
        call.close_fds()
        call.error("NotFound", "no such folder")

    serve({"PushTree": refuse, "PullTree": refuse})
    (tmp_path / "site").mkdir()
    (tmp_path / "site/big").write_bytes(bytes(1 << 20))
    done = syscont("file", "push", "-r", str(tmp_path / "site"), "c1/srv")
    assert (done.returncode, done.stderr) == (3, "syscont: no such folder\n")
    done = syscont("file", "pull", "-r", "c1/srv", str(tmp_path))
    assert (done.returncode, done.stderr) == (3, "syscont: no such folder\n")


@pytest.mark.parametrize(
    "words",
    ["pull c1 x", "pull /x y", "push x", "push nothing c1/x", "mkdir c1/x --mode 9", "mkdir c1/x --mode 77777",
     "push -r --mode 1 . c1/x", "delete c1", "edit c1"],
)  # fmt: skip
def test_wrong_words(serve: Serve, syscont: Command, words: str) -> None:
    daemon = serve({})
    done = syscont("file", *words.split())
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert not daemon.calls
