# SPDX-License-Identifier: Apache-2.0
"""The command as one file, on systems that are no Linux, against a host that is one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.remote.lab import WAIT, Commands, Host, until
from tests.remote.test_cli_far import token

ROOT = Path(__file__).resolve().parents[2]
BIG = 20 << 20


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("client") / "syscont.pyz"
    subprocess.run([sys.executable, str(ROOT / "tools/build-client"), str(made)], check=True)
    return made


class Elsewhere(Command):
    def __init__(self, program: Path, system: str, folder: Path) -> None:
        super().__init__(folder / "no-socket")
        self._program = program
        self._system = system
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        place = "APPDATA" if self._system == "win32" else "HOME"
        return {"PATH": os.environ["PATH"], place: str(self._folder / "home")}

    def argv(self, *words: str) -> list[str]:
        harness = str(ROOT / "tests/remote/elsewhere.py")
        return ["/usr/bin/python3", "-I", harness, self._system, str(self._program), *words]


@pytest.fixture(params=["win32", "darwin"])
def syscont(program: Path, host: Host, tmp_path: Path, request: pytest.FixtureRequest) -> Elsewhere:
    return knowing(Elsewhere(program, request.param, tmp_path), host)


@pytest.fixture
def on_windows(program: Path, host: Host, tmp_path: Path) -> Elsewhere:
    return knowing(Elsewhere(program, "win32", tmp_path), host)


def knowing(command: Elsewhere, host: Host) -> Elsewhere:
    done = command("remote", "add", "r1", token(host, "alice"))
    assert (done.stderr, done.returncode) == ("", 0)
    return command


def test_to_look(syscont: Elsewhere) -> None:
    done = syscont("list", "r1:")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "web1" in done.stdout
    assert "Tasks: 7" in syscont("info", "r1:web1").stdout
    assert "of alice" in syscont("info", "r1:").stdout
    assert syscont("info", "r1:nobody").returncode == 3
    assert syscont("remote", "switch", "r1").returncode == 0
    assert "web2" in syscont("list", "--format", "json").stdout
    assert "r1 (current)" in syscont("remote", "list").stdout


def test_there_is_no_daemon(syscont: Elsewhere) -> None:
    done = syscont("list")
    assert done.returncode == 1
    assert "syscontd" in done.stderr
    assert "Traceback" not in done.stderr


def test_commands(syscont: Elsewhere) -> None:
    done = syscont("exec", "r1:web1", "--", "sh", "-c", "cat; echo oops >&2; exit 9", stdin="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "oops\n", 9)
    assert syscont("exec", "-n", "r1:web1", "--", "cat", stdin="not read").stdout == ""


def test_much_both_ways(syscont: Elsewhere, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(1 << 20) * (BIG >> 20))
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        argv = syscont.argv("exec", "r1:web1", "--", "cat")
        subprocess.run(argv, env=syscont.environment, stdin=source, stdout=target, timeout=120, check=True)
    with open(tmp_path / "in", "rb") as one, open(tmp_path / "out", "rb") as other:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()


def test_an_interrupt_goes_to_the_command(syscont: Elsewhere, commands: Commands) -> None:
    process = subprocess.Popen(syscont.argv("exec", "r1:web1", "--", "sleep", "60"), env=syscont.environment)
    until(lambda: bool(commands.running))
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT) == 130
    assert commands.signals == [signal.SIGINT]


def test_files(syscont: Elsewhere, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    for _ in range(2):
        done = syscont("file", "push", str(tmp_path / "here"), "r1:web1/there")
        assert (done.stderr, done.returncode) == ("", 0)
        done = syscont("file", "pull", "r1:web1/there", str(tmp_path / "back"))
        assert (done.stderr, done.returncode) == ("", 0)
        assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()
    assert syscont("file", "push", "-", "r1:web1/said", stdin="words").returncode == 0
    assert syscont("file", "pull", "r1:web1/said", "-").stdout == "words"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folders(program: Path, host: Host, tmp_path: Path) -> None:
    syscont = knowing(Elsewhere(program, "darwin", tmp_path), host)
    here = tmp_path / "site"
    (here / "deep/deeper").mkdir(parents=True)
    (here / "deep/deeper/file").write_bytes(os.urandom(300_000))
    (here / "empty").touch()
    done = syscont("file", "push", "-r", str(here), "r1:web1/srv")
    assert (done.stderr, done.returncode) == ("", 0)
    assert tree(tmp_path / "files/srv/site") == tree(here)
    (tmp_path / "back").mkdir()
    done = syscont("file", "pull", "-r", "r1:web1/srv/site", str(tmp_path / "back"))
    assert (done.stderr, done.returncode) == ("", 0)
    assert tree(tmp_path / "back/site") == tree(here)


def test_what_can_not_be_done_is_said(on_windows: Elsewhere, tmp_path: Path) -> None:
    """macOS has terminals and processes as Linux has."""
    for words in (["exec", "-t", "r1:web1", "true"], ["console", "r1:web1"],
                  ["file", "push", "-r", str(tmp_path), "r1:web1/"]):  # fmt: skip
        done = on_windows(*words)
        assert done.returncode
        assert "this system" in done.stderr
        assert "Traceback" not in done.stderr
