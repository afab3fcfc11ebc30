# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sysd.runtime.trees import MAX_DEPTH, remove_tree


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "sub/file").symlink_to(outside / "kept")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").read_text() == "x"


def test_a_link_in_the_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree").symlink_to(tmp_path / "outside")
    with contextlib.suppress(OSError):
        remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside").is_dir()


def test_deep_trees(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(MAX_DEPTH * 40):
        os.mkdir("d", dir_fd=here)
        os.mkdir("e", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()


def test_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_nothing_stays_open_when_there_is_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    remove_tree(tmp_path / "missing")
    assert len(os.listdir("/proc/self/fd")) == before
