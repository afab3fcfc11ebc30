# SPDX-License-Identifier: Apache-2.0
"""What a worker says is not believed unless it can be true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sysd.images import answers, metadata
from sysd.model.errors import FailedError, InvalidError
from sysd.model.image import Image, Init
from sysd.model.instance import Kind
from sysd.units import helper
from sysd.units.answers import MAX_TEXT

GOOD: dict[str, Any] = {
    "fingerprint": "0f" * 32,
    "architecture": metadata.host_architecture(),
    "init": "systemd",
    "size": 10,
    "properties": {"description": "Ünï", "os": "x"},
    "created": 1,
    "templates": [],
    "kind": "container",
    "disk_size": 0,
    "kernel_command": "",
}
MACHINE = {"kind": "virtual-machine", "disk_size": 1 << 30, "kernel_command": "root=PARTUUID=x quiet"}


def test_a_good_result() -> None:
    image = answers.parse(json.dumps({"result": GOOD}))
    assert isinstance(image, Image)
    assert (image.fingerprint, image.init, image.description) == ("0f" * 32, Init.SYSTEMD, "Ünï")
    assert (image.kind, image.disk_size, image.kernel_command) == (Kind.CONTAINER, 0, "")


def test_a_virtual_machine() -> None:
    image = answers.parse(json.dumps({"result": GOOD | MACHINE}))
    assert isinstance(image, Image)
    assert (image.kind, image.disk_size, image.kernel_command) == (Kind.VM, 1 << 30, "root=PARTUUID=x quiet")


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "../../etc"},
        {"fingerprint": "0F" * 32},
        {"fingerprint": "0f" * 32 + "\n"},
        {"fingerprint": 5},
        {"architecture": "vax"},
        {"architecture": "amd64" if metadata.host_architecture() == "x86_64" else "arm64"},
        {"init": "/bin/sh"},
        {"init": ["systemd"]},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"size": 1 << 70},
        {"properties": []},
        {"properties": {"a": 1}},
        {"properties": {"a": "\x1b[2J"}},
        {"properties": {"a": "x" * 8193}},
        {"created": None},
        {"created": 1 << 62},
        {"imported": 5},
        {"kind": "vm"},
        {"kind": None},
        {"disk_size": 512},
        {"kernel_command": "quiet"},
        MACHINE | {"disk_size": 0},
        MACHINE | {"disk_size": 1000},
        MACHINE | {"disk_size": 1 << 45},
        MACHINE | {"kernel_command": "a\nb"},
        MACHINE | {"kernel_command": "ü"},
        MACHINE | {"kernel_command": "x" * 1025},
        MACHINE | {"kernel_command": ["quiet"]},
    ],
    ids=repr,
)
def test_wrong_results(change: dict[str, Any]) -> None:
    with pytest.raises(FailedError, match="wrong answer"):
        answers.parse(json.dumps({"result": GOOD | change}))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        "5",
        "[" * 60_000,
        '{"result": null}',
        '{"result": {}}',
        '{"error": "x"}',
        '{"error": {"code": "None", "message": "", "hint": ""}}',
        '{"error": {"code": [], "message": "", "hint": ""}}',
        '{"stage": "x"}',
        '{"stage": "x", "done": "1", "total": 2}',
        '{"stage": "x", "done": NaN, "total": 2}',
        '{"stage": "' + "x" * 65 + '", "done": 1, "total": 2}',
        '{"stage": "x", "done": ' + "9" * 5000 + ', "total": 2}',
    ],
    ids=lambda line: line[:30],
)
def test_wrong_lines(line: str) -> None:
    with pytest.raises(FailedError, match="wrong answer"):
        answers.parse(line)


def test_errors_are_fit_to_be_shown() -> None:
    line = {"error": {"code": "InvalidArgument", "message": "bad\x1b[2J\n" + "x" * 9000, "hint": "do"}}
    error = answers.parse(json.dumps(line))
    assert isinstance(error, InvalidError)
    assert error.message.startswith("bad?[2J?x")
    assert len(error.message) == MAX_TEXT
    assert error.hint == "do"


def test_what_metadata_allows_fits_in_a_line() -> None:
    """Quotes grow most when they are written as JSON."""
    properties = {f"{number:03}": '"' * 64 for number in range(230)}
    assert metadata.check_properties(properties)
    line = json.dumps({"result": GOOD | {"properties": properties}}, ensure_ascii=False)
    assert len(line.encode()) < helper.MAX_LINE
    with pytest.raises(InvalidError, match="properties has more than 32 KiB"):
        metadata.check_properties({f"{number:03}": "é" * 100 for number in range(200)})
