# SPDX-License-Identifier: Apache-2.0
"""What has become of a tree: applied to what it was, it is what it is."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sysd.storage import changes as module
from sysd.storage.changes import Change, TooDeepError, changes


@pytest.fixture
def was(tmp_path: Path) -> Path:
    made = tmp_path / "was"
    made.mkdir()
    return made


def seen(was: Path, now: Path, since: int) -> list[Change]:
    before, after = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (was, now))
    try:
        return list(changes(before, after, since))
    finally:
        os.close(before)
        os.close(after)


def copied(was: Path) -> tuple[Path, int]:
    """A copy to be changed; and when it was not yet."""
    now = was.with_name("now")
    shutil.copytree(was, now, symlinks=True)
    for path in (now, *now.rglob("*")):  # copytree gives a folder its time before it is filled
        info = (was / path.relative_to(now)).lstat()
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    # By the clock of files, which goes by ticks: the first that is later than all of the copy.
    probe, last = was.with_name("probe"), max(path.lstat().st_ctime_ns for path in (now, *now.rglob("*")))
    while True:
        probe.touch()
        if (since := probe.stat().st_ctime_ns) > last:
            return now, since
        time.sleep(0.001)


def paths(found: list[Change], *, gone: bool) -> set[str]:
    return {os.fsdecode(each.path) for each in found if each.gone is gone}


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda now: (now / name).write_text(text)


def test_nothing_has_changed(was: Path) -> None:
    (was / "a").mkdir()
    (was / "a/b").write_text("b")
    now, since = copied(was)
    assert seen(was, now, since) == []


def as_if_untouched(now: Path) -> None:
    """What a guest can do to hide that it has written."""
    had = (now / "a/file").stat()
    (now / "a/file").write_text("FILE")
    os.utime(now / "a/file", ns=(had.st_atime_ns, had.st_mtime_ns))


def another_kind(now: Path) -> None:
    (now / "a/file").unlink()
    (now / "a/file").mkdir()
    (now / "a/file/x").write_text("x")


@pytest.mark.parametrize(
    ("change", "there", "gone"),
    [
        (write("a/file", "other"), {"a/file"}, set()),
        (write("a/new", "new"), {"a", "a/new"}, set()),
        (as_if_untouched, {"a/file"}, set()),
        (lambda now: (now / "a/file").chmod(0o4755), {"a/file"}, set()),
        (lambda now: (now / "a/file").unlink(), {"a"}, {"a/file"}),
        (another_kind, {"a", "a/file", "a/file/x"}, {"a/file"}),
        (lambda now: shutil.rmtree(now / "a"), {""}, {"a"}),
        (lambda now: (now / "a").rename(now / "b"), {"", "b", "b/file", "b/link"}, {"a"}),
        (lambda now: os.link(now / "a/file", now / "second"), {"", "a/file", "second"}, set()),
    ],
)
def test_one_change(was: Path, change: Callable[[Path], object], there: set[str], gone: set[str]) -> None:
    (was / "a").mkdir()
    (was / "a/file").write_text("file")
    (was / "a/link").symlink_to("/nowhere")
    now, since = copied(was)
    change(now)
    found = seen(was, now, since)
    # What is in a folder that was only renamed is what it was, but was not there.
    assert (paths(found, gone=False), paths(found, gone=True)) == (there, gone)


def test_a_clock_that_was_set_back_hides_no_other_size(was: Path) -> None:
    (was / "file").write_text("file")
    now, since = copied(was)
    (now / "file").write_text("longer")
    assert paths(seen(was, now, since + (1 << 60)), gone=False) == {"file"}


def test_it_is_not_too_deep(was: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEPTH", 4)
    now, since = copied(was)
    (now / "1/2/3/4").mkdir(parents=True)
    seen(was, now, since)
    (now / "1/2/3/4/5").mkdir()
    with pytest.raises(TooDeepError):
        seen(was, now, since)


def lay_over(was: Path, now: Path, found: list[Change]) -> None:
    """As who unpacks it does: what is gone first."""
    for each in found:
        path = was / os.fsdecode(each.path)
        if each.gone:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for each in found:
        if each.gone:
            continue
        source, target = (root / os.fsdecode(each.path) for root in (now, was))
        if source.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(source, target)


def shape(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        link = path.is_symlink()
        found[str(path.relative_to(root))] = os.readlink(path) if link else path.is_dir() or path.read_bytes()
    return found


@pytest.mark.parametrize("seed", range(40))
def test_anything_may_happen(was: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        happen(was, dice)
    now, since = copied(was)
    for _ in range(30):
        happen(now, dice)
    lay_over(was, now, seen(was, now, since))
    assert shape(was) == shape(now)


def happen(root: Path, dice: random.Random) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    others = [path for path in root.rglob("*") if path not in folders]
    place = dice.choice(folders) / dice.choice("abcd")
    taken = place.exists() or place.is_symlink()
    match dice.choice(["file", "folder", "link", "remove", "rename", "write"]):
        case "file" if not taken:
            place.write_text(str(dice.random()))
        case "folder" if not taken:
            place.mkdir()
        case "link" if not taken:
            place.symlink_to("/" + dice.choice("xyz"))
        case "remove" if taken:
            shutil.rmtree(place) if place in folders else place.unlink()
        case "rename" if not taken and len(folders) > 1:
            source = dice.choice([*folders[1:], *others])
            if source not in place.parents:
                source.rename(place)
        case "write" if others:
            target = dice.choice(others)
            if not target.is_symlink():
                target.write_text(str(dice.random()))
