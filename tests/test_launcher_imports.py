# SPDX-License-Identifier: Apache-2.0
"""What the launcher may import: each start of an instance waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Beside C modules, and what the bare interpreter has loaded already.
ALLOWED = {"__future__", "_collections_abc", "genericpath", "os", "os.path", "posixpath", "stat"}

PROBE = """
import sys
before = set(sys.modules)
sys.path += [sys.argv[1], "/usr/lib/python3/dist-packages"]
import sysd.runtime.launcher
for name in sorted(set(sys.modules) - before):
    if (getattr(sys.modules[name], "__file__", None) or "").endswith(".py"):
        print(name)
"""


def test_the_launcher_imports_little() -> None:
    argv = [sys.executable, "-IS", "-c", PROBE, str(ROOT)]
    found = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    ours = {"sysd", "sysd._cext", "sysd.codec", "sysd.runtime"}
    ours |= {f"sysd.runtime.{name}" for name in ("launcher", "beneath", "layers", "provision", "replay")}
    assert ours <= set(found) <= ours | ALLOWED
