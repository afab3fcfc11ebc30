# SPDX-License-Identifier: Apache-2.0
"""The command as a process, and a daemon for it to talk to."""

from __future__ import annotations

import os
import posix
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.fake_daemon import FakeDaemon, Handler

SYSCONT = Path(__file__).resolve().parents[2] / "data/bin/syscont"

Serve = Callable[[dict[str, Handler]], FakeDaemon]
Completed = subprocess.CompletedProcess[str]


class Command:
    """Runs syscont against one socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "SYSCONT_SOCKET": str(self.socket), "TERM": "dumb"}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-IS", str(SYSCONT), *words]

    def __call__(self, *words: str, stdin: str = "") -> Completed:
        return subprocess.run(
            self.argv(*words),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


@pytest.fixture
def socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "varlink"
    monkeypatch.setitem(posix.environ, b"SYSCONT_SOCKET", str(path).encode())
    return path


@pytest.fixture
def serve(socket_path: Path) -> Iterator[Serve]:
    daemons: list[FakeDaemon] = []

    def start(handlers: dict[str, Handler]) -> FakeDaemon:
        daemons.append(FakeDaemon(socket_path, handlers))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def syscont(socket_path: Path) -> Command:
    return Command(socket_path)
