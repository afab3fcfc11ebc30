# SPDX-License-Identifier: Apache-2.0
"""Help, completion and the man page say all that the table of verbs holds."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sysd.cli import completion, manpage, words
from sysd.cli.errors import EXIT_STATUSES
from sysd.cli.examples import EXAMPLES
from sysd.cli.help import WIDTH, group_help, overview, verb_help
from sysd.cli.main import find_verb
from sysd.cli.options import Verb, parse
from sysd.cli.verbs import GROUPS, SECTIONS, VERBS
from tests.cli.conftest import Command, Serve

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"bash": "syscont.bash", "zsh": "_syscont", "fish": "syscont.fish"}
each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@each_verb
def test_each_verb_has_a_function(verb: Verb) -> None:
    assert callable(getattr(importlib.import_module(f"sysd.cli.{verb.module}"), verb.function))


@each_verb
def test_help_of_a_verb_is_whole(verb: Verb) -> None:
    text = verb_help(verb)
    assert verb.usage in text
    assert verb.summary in text
    assert "Examples:\n" in text
    for option in verb.options:
        assert option.forms in text
    assert all(len(line) <= WIDTH + 4 for line in text.splitlines())


@each_verb
def test_examples_are_command_lines_that_are_accepted(verb: Verb) -> None:
    for command, _ in EXAMPLES[verb.name]:
        _, syscont, rest = command.partition("syscont ")
        assert syscont
        line = rest.partition(" | ")[0].partition(" && ")[0].partition(" >")[0].partition(" <")[0].rstrip(")")
        found, arguments = find_verb(line.split())
        assert found is verb
        if "'" not in line:
            parse(found, arguments)


def test_words_are_about_verbs() -> None:
    assert set(EXAMPLES) == set(VERBS)
    assert set(words.DETAILS) <= set(VERBS)


def test_each_verb_is_in_one_section() -> None:
    listed = [name for _, names in SECTIONS for name in names]
    assert sorted(listed) == sorted(VERBS)


def test_overview_names_all_verbs_and_statuses() -> None:
    text = overview()
    assert all(name in text for name in VERBS)
    assert all(f"  {status} " in text for status, _ in EXIT_STATUSES)


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_names_its_verbs(group: str) -> None:
    assert all(name in group_help(group) for name in VERBS if name.startswith(f"{group} "))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "First steps:"),
        ("--help", "First steps:"),
        ("help launch", "syscont launch"),
        ("launch --help", "syscont launch"),
        ("exec c1 -h", "syscont exec"),
        ("image", "syscont image VERB"),
        ("image build -h", "debian/SUITE"),
        ("help ls", "syscont list"),
    ],
)
def test_ways_to_help(syscont: Command, line: str, text: str) -> None:
    done = syscont(*line.split())
    assert done.returncode == 0
    assert text in done.stdout


@pytest.mark.parametrize("shell", GENERATED)
def test_completion_in_the_tree_is_up_to_date(shell: str) -> None:
    text = (ROOT / "data/completions" / GENERATED[shell]).read_text()
    assert text == completion.SHELLS[shell](), f"run: syscont completion {shell} >data/completions/{GENERATED[shell]}"


@pytest.mark.parametrize("shell", GENERATED)
def test_completion_is_a_script_that_its_shell_reads(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    path = ROOT / "data/completions" / GENERATED[shell]
    subprocess.run([shell, "-n", path], check=True, timeout=20)
    assert not re.search("@[a-z]+@", completion.SHELLS[shell]())


COMPLETED = [
    ("syscont sta", "start"),
    ("syscont image ", "alias build import list show delete"),
    ("syscont image alias a", "add"),
    ("syscont start c1 ", "c1 c2"),
    ("syscont start --", "--wait --stateless --all --project --help"),
    ("syscont list --format ", "table compact csv json yaml"),
    ("syscont list --format j", "json"),
    ("syscont launch b", "busybox"),
    ("syscont launch busybox ", ""),
    ("syscont launch -c a=b ", "busybox tiny"),
    ("syscont exec c1 -- ", ""),
    ("syscont config set c1 limits.proc", "limits.processes"),
    ("syscont launch --config limits.proc", "limits.processes"),
    ("syscont launch -c limits.proc", "limits.processes"),
    ("syscont config keys --device n", "nic none"),
    ("syscont no-such-verb ", ""),
]


@pytest.mark.parametrize(("line", "candidates"), COMPLETED)
def test_bash_completes(serve: Serve, syscont: Command, line: str, candidates: str) -> None:
    serve(
        {
            "ListInstances": lambda call: call.reply({"instances": [{"name": "c1"}, {"name": "c2"}]}),
            "ListImages": lambda call: call.reply({"images": [{"fingerprint": "ab", "aliases": ["busybox", "tiny"]}]}),
        }
    )
    program = " ".join(syscont.argv())
    script = (
        f'syscont() {{ {program} "$@"; }}; source {ROOT}/data/completions/syscont.bash; '
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _syscont; echo "${COMPREPLY[*]}"'
    )
    typed = line.replace("=", " = ").split(" ")
    done = subprocess.run(
        ["bash", "-c", script, "bash", *typed],
        env=syscont.environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (candidates, "")


def test_man_page_in_the_tree_is_up_to_date() -> None:
    text = (ROOT / "docs/man/syscont.1").read_text()
    assert text == manpage.page(), "run: python3 -m sysd.cli.manpage >docs/man/syscont.1"


def test_man_page_is_sound() -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", ROOT / "docs/man/syscont.1"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
