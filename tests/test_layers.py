# SPDX-License-Identifier: Apache-2.0
"""The import-layer check passes on the project and sees each way of breaking the rule."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layers", ROOT / "tools/layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["layers"] = module
    spec.loader.exec_module(module)
    return module


layers = _load()


def _complaints(tmp_path: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = tmp_path / "sysd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [line.removeprefix(f"{tmp_path}/") for line in layers.check(tmp_path)]


def test_project_keeps_its_layers() -> None:
    assert layers.check(ROOT) == []


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("model/a.py", "from sysd.store import db"),
        ("model/a.py", "from sysd import units"),
        ("model/a.py", "def f():\n    import sysd.units"),
        ("model/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sysd.manager import core"),
        ("model/a.py", "import importlib\nimportlib.import_module('sysd.images')"),
        ("store/a.py", "from sysd.units import jobs"),
        ("images/a.py", "from ..manager import core"),
        ("images/__init__.py", "from ..network import bridge"),
        ("images/a.py", "from sysd.store import db"),
        ("manager/a.py", "from sysd.dbus import door"),
        ("dbus/a.py", "from sysd.varlink import door"),
        ("dbus/a.py", "from sysd.store import database"),
        ("varlink/a.py", "import sysd.daemon"),
        ("daemon.py", "from sysd.cli import main"),
        ("cli/a.py", "from sysd.manager import core"),
        ("attic/a.py", ""),
    ],
)
def test_upward_import_is_found(tmp_path: Path, where: str, code: str) -> None:
    (complaint,) = _complaints(tmp_path, {where: code})
    assert complaint.startswith(f"sysd/{where}")


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("model/a.py", "import os\nfrom sysd.model import b\nfrom . import c"),
        ("runtime/a.py", "from sysd import _cext\nfrom sysd.units import jobs\nfrom sysd.model.errors import E"),
        ("manager/a.py", "from sysd.store import db\nfrom sysd.images import build"),
        ("daemon.py", "from sysd import __version__\nfrom sysd.dbus import door\nfrom sysd.varlink import door"),
        ("dbus/a.py", "from sysd.units.bus import Bus\nfrom sysd.runtime.execute import Command"),
        ("cli/a.py", "from sysd.model import sizes"),
    ],
)
def test_downward_import_is_fine(tmp_path: Path, where: str, code: str) -> None:
    assert _complaints(tmp_path, {where: code}) == []


def test_hot_path_of_the_command_line_is_kept_light(tmp_path: Path) -> None:
    files = {
        "cli/main.py": "from sysd.cli import table\nfrom .wire import call\ndef cold():\n    import sysd.cli.edit",
        "cli/table.py": "if TYPE_CHECKING:\n    from sysd.model import names",
        "cli/wire.py": "from sysd.model import errors",
        "cli/edit.py": "from sysd.model import config",
    }
    (complaint,) = _complaints(tmp_path, files)
    assert complaint.startswith("sysd/cli/wire.py:1: ")


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sysd/model").mkdir(parents=True)
    assert layers.main(["layers", str(tmp_path)]) == 0
    (tmp_path / "sysd/model/bad.py").write_text("import sysd.daemon\n")
    assert layers.main(["layers", str(tmp_path)]) == 1
    assert "sysd.model.bad must not import sysd.daemon" in capsys.readouterr().err
