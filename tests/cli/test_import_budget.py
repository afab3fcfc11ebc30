# SPDX-License-Identifier: Apache-2.0
"""What a hot verb may import: everything else costs its user time. Add to this only with a measurement."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sysd.cli.options import Verb
from sysd.cli.verbs import VERBS
from tests.cli.conftest import SYSCONT, Command, Serve

ROOT = SYSCONT.parents[2]

# Ours, and C modules that are part of the interpreter or one small file of it.
ALWAYS = {"__future__", "_json", "_socket", "sysd", "sysd.cli", "sysd.codec"} | {
    f"sysd.cli.{name}" for name in ("client", "errors", "main", "options", "system", "verbs")
}
HOT = {
    "exec c1 -- true": {"select", "sysd.cli.execute", "sysd.cli.signals"},
    "list": {"sysd.cli.listing", "sysd.cli.output"},
    "list --format csv -c n": {"sysd.cli.listing", "sysd.cli.output"},
    "list --format json": {"sysd.cli.listing", "sysd.cli.output"},
    "start c1": {"sysd.cli.lifecycle"},
    "start c1 c2 --wait": {"sysd.cli.lifecycle"},
    "stop c1 --timeout 3": {"sysd.cli.lifecycle"},
    "delete -f c1": {"sysd.cli.lifecycle"},
    "launch busybox c1": {"sysd.cli.launch", "sysd.cli.output"},
    "launch busybox": {"sysd.cli.launch", "sysd.cli.output", "sysd.cli.petnames"},
    "config set c1 a=b": {"sysd.cli.config", "sysd.cli.output"},
}

# Runs a command line in an interpreter as bare as the real one and says what was imported meanwhile.
PROBE = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv.pop(1))
from sysd.cli.main import run
status = run(sys.argv[1:])
sys.stderr.write(" ".join(sorted(set(sys.modules) - before)))
sys.exit(status)
"""


@pytest.mark.parametrize(("line", "more"), HOT.items())
def test_hot_verbs_import_nothing_heavy(serve: Serve, syscont: Command, line: str, more: set[str]) -> None:
    def fine(call: object) -> None:
        from tests.cli.fake_daemon import Call

        assert isinstance(call, Call)
        call.reply({"exitStatus": 0, "instances": [{"name": "c1"}], "operation": {"status": "done"}})

    methods = "Exec ListInstances StartInstance StopInstance DeleteInstance CreateInstance ChangeConfig".split()
    serve(dict.fromkeys(methods, fine))
    done = subprocess.run(
        [sys.executable, "-IS", "-c", PROBE, str(ROOT), *line.split()],
        env=syscont.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    imported = set(done.stderr.split())
    assert imported - ALWAYS - more == set()
    assert more <= imported


def test_the_script_starts_a_bare_interpreter() -> None:
    assert SYSCONT.read_text().splitlines()[0] == "#!/usr/bin/python3 -IS"


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_no_verb_imports_a_package_at_its_top(verb: Verb) -> None:
    tree = ast.parse((ROOT / "sysd/cli" / f"{verb.module}.py").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
    light = {"__future__", "fcntl", "posix", "select", "sys", "sysd", "termios", "time"}
    assert {name for name in names if not name.startswith(("sysd.cli", "sysd.codec"))} <= light


def test_no_module_is_long() -> None:
    for path in Path(ROOT / "sysd/cli").glob("*.py"):
        assert len(path.read_text().splitlines()) < 500, path
