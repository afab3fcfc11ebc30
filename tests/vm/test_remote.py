# SPDX-License-Identifier: Apache-2.0
"""What begins commands in a guest: run by the shells that guests have, here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.model.errors import InvalidError
from sysd.runtime.execute import DEFAULT_PATH, Command
from sysd.runtime.vm import remote
from tests.vm.local import SHELLS, Place

Outcome = tuple[int, bytes, bytes]


@pytest.fixture(params=SHELLS, name="place")
def _place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(remote, "FOLDER", str(tmp_path / "commands"))
    return Place(request.param, tmp_path)


def _me(*argv: str, **others: object) -> Command:
    """As whoever runs the tests: only root can be another."""
    return Command(argv, user="" if os.getuid() == 0 else str(os.getuid()), **others)  # type: ignore[arg-type]


def _run(place: Place, command: Command) -> Outcome:
    argv = place.argv(remote.begin(command, "token"))
    ended = subprocess.run(argv, capture_output=True, env=place.environment, timeout=30, check=False)
    assert not list(Path(remote.FOLDER).iterdir())
    return ended.returncode, ended.stdout, ended.stderr


def test_environment(place: Place) -> None:
    """That of a command in a container, and nothing else."""
    status, output, _ = _run(place, _me("env", environment={"A": "b c\nd", "LANG": "de_DE", "x y": "'"}))
    found = dict(entry.split("=", 1) for entry in output.decode().replace("\nd\n", "\\nd\n").splitlines())
    assert status == 0
    assert {"HOME", "USER"} < set(found)
    del found["HOME"], found["USER"]
    assert found == {"PATH": DEFAULT_PATH, "A": "b c\\nd", "LANG": "de_DE", "x y": "'"}


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 7", 7), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -SEGV $$", 139), ("kill -PIPE $$", 141)],
)
def test_statuses(place: Place, script: str, status: int) -> None:
    """And not a word of the shell above it."""
    assert _run(place, _me("/bin/sh", "-c", script)) == (status, b"", b"")


def test_commands_that_are_none(place: Place) -> None:
    status, _, errors = _run(place, _me("no-such-program"))
    assert status == 127
    assert b"no-such-program" in errors
    assert _run(place, _me("/etc/passwd"))[0] == 126
    assert _run(place, _me("no=program"))[0] == 127


def test_folder(place: Place, tmp_path: Path) -> None:
    odd = tmp_path / "-a 'b' $(c)"
    odd.mkdir()
    assert _run(place, _me("pwd", cwd=str(odd)))[1].decode() == f"{odd}\n"
    assert _run(place, _me("pwd", cwd="/no/such/folder"))[1] == b"/\n"


def test_unknown_user(place: Place) -> None:
    words = place.argv(remote.begin(Command(["true"], user="no$(such)'user"), "token"))
    ended = subprocess.run(words, capture_output=True, env=place.environment, check=False)
    assert (ended.returncode, ended.stderr) == (126, b"syscont: no user 'no$(such)'user' in the instance\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1])
def test_signals(place: Place, number: int) -> None:
    argv = place.argv(remote.begin(_me("sleep", "30"), "token"))
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=place.environment) as process:
        kill = place.argv(remote.send_signal("token", number))
        begun = time.monotonic()
        assert subprocess.run(kill, env=place.environment, check=False).returncode == 0
        assert process.communicate()[1] == b""
        assert process.returncode == 128 + number
        assert time.monotonic() - begun < 10


def test_signal_to_no_command(place: Place) -> None:
    kill = place.argv(remote.send_signal("no-such-token", 15))
    assert subprocess.run(kill, env=place.environment, check=False, capture_output=True).returncode == 1


TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_any_words(texts: list[str]) -> None:
    """Through a login shell, and a shell, and env: each word is what it was."""
    command = Command(["/usr/bin/printf", "%s\\0", *texts])
    words = ["/bin/sh", "-c", 'exec "$@"', "sh", *command.argv]
    for shell in ("/bin/dash", "/bin/bash"):
        ended = subprocess.run([shell, "-c", remote.line(words)], capture_output=True, check=True)
        assert ended.stdout.decode().split("\0")[:-1] == texts


def test_line_that_is_too_long() -> None:
    with pytest.raises(InvalidError, match="too long"):
        remote.line(["echo", "'" * 40_000])
