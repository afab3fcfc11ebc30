# SPDX-License-Identifier: Apache-2.0
"""Containers that were in use when their host began to send them: the rest is laid over what came first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sysd.images import backup
from sysd.model.backup import GONE, REST, SETTLED
from sysd.model.errors import SyscontError
from tests.images.archives import Entry, directory, hard_link, symlink, tar
from tests.images.conftest import LIMIT, Place, spooled

ROOT = "backup/container/rootfs"
INDEX = Entry("backup/index.yaml", data=json.dumps({"name": "c1", "type": "container", "snapshots": []}).encode())
FIRST = [
    INDEX,
    directory(ROOT),
    directory(f"{ROOT}/sbin"),
    Entry(f"{ROOT}/sbin/init", data=b"#!init", mode=0o755),
    directory(f"{ROOT}/srv"),
    directory(f"{ROOT}/srv/deep"),
    Entry(f"{ROOT}/srv/deep/file", data=b"was"),
    Entry(f"{ROOT}/srv/one", data=b"one"),
    hard_link(f"{ROOT}/srv/two", f"{ROOT}/srv/one"),
    symlink(f"{ROOT}/srv/link", "/canary"),
    Entry(SETTLED, data=os.urandom(2000)),
]

Unpack = Callable[..., Path]


@pytest.fixture
def unpack(place: Place, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    monkeypatch.setattr(backup, "flush", lambda fd: None)

    def run(*rest: Entry) -> Path:
        folder = place.target / f"draft{len(os.listdir(place.target))}"
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with spooled(tar([*FIRST, *rest])) as file:
                backup.Unpacking(fd, LIMIT).run(file)
        finally:
            os.close(fd)
        return folder / "0/rootfs/srv"

    return run


def gone(*paths: str, number: int = 0) -> Entry:
    return Entry(f"{GONE}/{number}", data=b"".join(os.fsencode(path) + b"\0" for path in paths))


def test_what_is_on_disk_is_told(unpack: Unpack, capfd: pytest.CaptureFixture[str]) -> None:
    unpack()
    stages = [json.loads(line)["stage"] for line in capfd.readouterr().out.splitlines()]
    assert stages.count("settled") == 1


def test_the_rest_is_laid_over_it(unpack: Unpack) -> None:
    srv = unpack(
        gone("srv/deep", "srv/two"),
        gone("srv/link", number=1),
        Entry(f"{REST}/srv/deep", data=b"a file now"),
        directory(f"{REST}/srv/link", mode=0o700, mtime=1234567890),
        Entry(f"{REST}/srv/link/in", data=b"in"),
        Entry(f"{REST}/srv/one", data=b"another", mode=0o4755),
    )
    assert sorted(os.listdir(srv)) == ["deep", "link", "one"]
    assert (srv / "deep").read_text() == "a file now"
    assert (srv / "link/in").read_text() == "in"
    assert (srv / "link").stat().st_mtime == 1234567890
    assert ((srv / "one").read_text(), (srv / "one").stat().st_mode & 0o7777) == ("another", 0o4755)


def test_a_folder_that_was_just_filled_may_be_gone(unpack: Unpack) -> None:
    srv = unpack(Entry(f"{REST}/srv/deep/new", data=b"new"), gone("srv/deep"), directory(f"{REST}/srv/deep"))
    assert os.listdir(srv / "deep") == []


def test_a_name_of_several_is_written_alone(unpack: Unpack) -> None:
    srv = unpack(Entry(f"{REST}/srv/one", data=b"another"))
    assert ((srv / "one").read_text(), (srv / "two").read_text()) == ("another", "one")


def test_what_is_not_there_is_no_error(unpack: Unpack) -> None:
    assert (unpack(gone("srv/nothing", "srv/one")) / "two").exists()


@pytest.mark.parametrize(
    "path", ["../0/rootfs", "/etc", "srv/../../x", ".", "./.", "srv/link/x", "srv/one/x", "a" * 5000, "x/" * 300]
)
def test_hostile_lists(unpack: Unpack, place: Place, path: str) -> None:
    with pytest.raises(SyscontError):
        unpack(gone(path))
    assert sorted(os.listdir(place.base)) == ["canary", "store"]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(f"{GONE}/0", data=b"srv\0" * (2 << 20)),
        symlink(f"{GONE}/0", "/etc/passwd"),
        Entry(f"{REST}/srv/link/x", data=b"x"),
        Entry(f"{REST}/../x", data=b"x"),
        Entry(REST, data=b"no folder"),
        Entry(f"{REST}/srv/sda", type=b"4", device=(8, 0)),
    ],
)
def test_hostile_rests(unpack: Unpack, entry: Entry) -> None:
    with pytest.raises(SyscontError):
        unpack(entry)
