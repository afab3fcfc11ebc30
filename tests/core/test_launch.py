# SPDX-License-Identifier: Apache-2.0
"""The launcher, and what changes devices of a running guest, where they are told nothing that makes sense. All else
of them is for vm-tests."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"


def launch(spec: Path, notify: Path) -> str:
    environment = {"NOTIFY_SOCKET": str(notify)}
    done = subprocess.run(
        [BUILD / "launch", spec], env=environment, capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"id_base": 1', "no JSON object"),
        ("{}", "id_base is missing"),
        ('{"id_base": "1"}', "id_base is missing"),
        (json.dumps({"id_base": 1, "shares": {}}), "shares is missing"),
        (json.dumps({"id_base": 1, "shares": [], "state_dir": "/nowhere"}), "/nowhere: No such file or directory"),
    ],
)
def test_launch_says_what_it_is_not_told(tmp_path: Path, written: str, why: str) -> None:
    (tmp_path / "spec").write_text(written)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        said = launch(tmp_path / "spec", tmp_path / "notify")
        assert said.startswith("cannot start the instance: ")
        assert why in said
        assert why in notify.recv(4096).decode().removeprefix("STATUS=")


def test_launch_without_a_file(tmp_path: Path) -> None:
    assert "No such file" in launch(tmp_path / "none", tmp_path / "notify")
    done = subprocess.run([BUILD / "launch"], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, "service manager" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "why"), [([], "usage"), (["--release", "/none"], "/none: No such file"), (["0"], "JSON")]
)
def test_plug_says_what_it_is_not_told(words: list[str], why: str) -> None:
    done = subprocess.run([BUILD / "plug", *words], input="", capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, why in done.stderr) == (1, True)
