# SPDX-License-Identifier: Apache-2.0
"""Which firmware machines start by, as the host's descriptions of it say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sysd.model.errors import FailedError
from sysd.runtime.vm import firmware


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is a link to another, as Debian has it, and before it one that is not there."""
    for name in ("code", "variables"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("code")
    for name, code in (("10-gone", "gone"), ("20-there", "link")):
        text = json.dumps(description(tmp_path / code, tmp_path / "variables"))
        (tmp_path / f"{name}.json").write_text(text)
    monkeypatch.setattr(firmware, "FOLDERS", (tmp_path,))
    return tmp_path


def description(code: Path, variables: Path) -> dict[str, object]:
    files = {"executable": {"filename": str(code)}, "nvram-template": {"filename": str(variables)}}
    return {
        "interface-types": ["uefi"],
        "mapping": {"device": "flash", **files},
        "targets": [{"architecture": os.uname().machine, "machines": ["pc-q35-*"]}],
        "features": [],
    }


def test_links_are_followed_here(described: Path) -> None:
    found = firmware.find(secure=False)
    assert found == firmware.Uefi(described / "code", described / "variables")


def test_none_that_is_secure(described: Path) -> None:
    with pytest.raises(FailedError, match="no UEFI with secure boot"):
        firmware.find(secure=True)
