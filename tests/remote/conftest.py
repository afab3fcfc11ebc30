# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.lab import Commands, Files, Host, echo, listing


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def host(tmp_path: Path, commands: Commands) -> Iterator[Host]:
    files = tmp_path / "files"
    files.mkdir()
    methods = {"Echo": echo, **commands.methods, **Files(files).methods, **listing("web1", "web2")}
    made = Host(tmp_path / "host", methods)
    yield made
    made.close()
