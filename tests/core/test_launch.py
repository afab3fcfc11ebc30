# SPDX-License-Identifier: Apache-2.0
"""The launchers, and what changes devices of a running guest, where they are told nothing that makes sense. All else
of them is for vm-tests."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"


def launch(spec: Path, notify: Path, program: str = "launch") -> str:
    environment = {"NOTIFY_SOCKET": str(notify)}
    done = subprocess.run(
        [BUILD / program, spec], env=environment, capture_output=True, text=True, timeout=10, check=False
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


def machine(**changes: object) -> str:
    return json.dumps({"owner": 1, "state_dir": "STATE", "descriptors": []} | changes)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "no JSON object"),
        ("{}", "owner is missing"),
        (machine(owner=0), "the owner is to be a user without rights"),
        (machine(state_dir="/nowhere"), "/nowhere: No such file or directory"),
        (machine(state_dir=None), "state_dir is missing"),
        (machine(descriptors={}), "descriptors is missing"),
        (machine(descriptors=[{}]), "fd is missing"),
        (machine(descriptors=[5]), "fd is missing"),
        (machine(descriptors=[{"fd": 9}]), "descriptor 9: not from 10 to 200"),
        (machine(descriptors=[{"fd": 1 << 40}]), "descriptor 1099511627776: not from 10 to 200"),
        (machine(descriptors=[{"fd": 10, "kind": "other"}]), "'other' is no kind of descriptor"),
        (machine(descriptors=[{"fd": 10, "kind": "file", "path": "/nowhere"}]), "write is missing"),
        (machine(descriptors=[{"fd": 10, "kind": "file", "path": "/none", "write": False}]), "/none: No such file"),
        (machine(descriptors=[{"fd": at, "kind": "stream", "hand": "x"} for at in range(10, 16)]), "more sockets than"),
        (machine(host_links=[""]), "network set-up"),
    ],
)
def test_launch_vm_says_what_it_is_not_told(tmp_path: Path, written: str, why: str) -> None:
    (tmp_path / "spec").write_text(written.replace("STATE", str(tmp_path)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        said = launch(tmp_path / "spec", tmp_path / "notify", "launch-vm")
        assert said.startswith("cannot start the instance: ")
        assert why in said
        assert why in notify.recv(4096).decode().removeprefix("STATUS=")


@pytest.mark.parametrize("program", ["launch", "launch-vm"])
def test_launch_without_a_file(tmp_path: Path, program: str) -> None:
    assert "No such file" in launch(tmp_path / "none", tmp_path / "notify", program)
    done = subprocess.run([BUILD / program], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, "service manager" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "why"), [([], "usage"), (["--release", "/none"], "/none: No such file"), (["0"], "JSON")]
)
def test_plug_says_what_it_is_not_told(words: list[str], why: str) -> None:
    done = subprocess.run([BUILD / "plug", *words], input="", capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, why in done.stderr) == (1, True)
