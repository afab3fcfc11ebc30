# SPDX-License-Identifier: Apache-2.0
"""The parser: tables of command lines and what they come to."""

from __future__ import annotations

import pytest

from sysd.cli.aliases import ALIASES
from sysd.cli.errors import UsageError
from sysd.cli.main import find_verb
from sysd.cli.options import parse
from sysd.cli.verbs import VERBS

ACCEPTED = [
    ("launch busybox", ["busybox"], {}, {}),
    ("launch busybox c1 --wait", ["busybox", "c1"], {"wait": ""}, {}),
    ("launch -w busybox c1 -c a=b --config=c=d=e", ["busybox", "c1"], {"wait": ""}, {"config": ["a=b", "c=d=e"]}),
    ("launch -ca=b busybox", ["busybox"], {}, {"config": ["a=b"]}),
    ("launch -wca=b busybox", ["busybox"], {"wait": ""}, {"config": ["a=b"]}),
    ("stop a b --timeout 5 -f c", ["a", "b", "c"], {"timeout": "5", "force": ""}, {}),
    ("stop --timeout=5 -- -x", ["-x"], {"timeout": "5"}, {}),
    ("stop -fh", [], {"force": "", "help": ""}, {}),
    ("list --format json -c ns", [], {"format": "json", "columns": "ns"}, {}),
    ("list -cns --format=csv", [], {"format": "csv", "columns": "ns"}, {}),
    ("exec c1 -- ls -la", ["c1", "ls", "-la"], {}, {}),
    ("exec c1 ls -la --help", ["c1", "ls", "-la", "--help"], {}, {}),
    ("exec -t c1 -u root -- ls -u", ["c1", "ls", "-u"], {"tty": "", "user": "root"}, {}),
    ("exec c1 --env A=1 --env B= ls -- x", ["c1", "ls", "--", "x"], {}, {"env": ["A=1", "B="]}),
    ("exec c1 -- -- x", ["c1", "--", "x"], {}, {}),
    ("logs c1 -fn5 -- --since today", ["c1", "--since", "today"], {"follow": "", "lines": "5"}, {}),
    ("image import - --alias a", ["-"], {}, {"alias": ["a"]}),
    ("image alias add stable debian/trixie", ["stable", "debian/trixie"], {}, {}),
]

REFUSED = [
    ("launch", "too few arguments"),
    ("launch a b c", "too many arguments"),
    ("launch -c", "needs a value"),
    ("launch a --config", "needs a value"),
    ("launch a -c novalue", "KEY=VALUE"),
    ("launch a -c =x", "KEY=VALUE"),
    ("launch a --wait=yes", "takes no value"),
    ("stop a --timeout x", "whole number"),
    ("stop a --timeout -1", "whole number"),
    ("stop a --timeout ٣", "whole number"),
    ("stop a --timeout 99999999999", "whole number"),
    ("list --format xml", "not acceptable"),
    ("list --fromat json", "did you mean '--format'"),
    ("list -Z", "unknown option '-Z'"),
    ("lanch x", "did you mean 'launch'"),
    ("image biuld x", "did you mean 'image build'"),
    ("config gte x", "did you mean 'config get'"),
    ("qqqqq", "see 'syscont help'"),
    ("image qqqqq", "see 'syscont help image'"),
    ("--bogus list", "after the verb"),
]


@pytest.mark.parametrize(("line", "args", "values", "lists"), ACCEPTED)
def test_accepted(line: str, args: list[str], values: dict[str, str], lists: dict[str, list[str]]) -> None:
    parsed = parse(*find_verb(line.split()))
    assert (parsed.args, parsed.values, parsed.lists) == (args, values, lists)


@pytest.mark.parametrize(("line", "text"), REFUSED)
def test_refused(line: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*find_verb(line.split()))
    assert text in caught.value.text
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("line", "verb", "rest"),
    [
        ("", "help", []),
        ("--help", "help", []),
        ("-h", "help", []),
        ("--version", "version", ["--client"]),
        ("image", "help", ["image"]),
        ("image --help", "help", ["image"]),
        ("image alias", "help", ["image", "alias"]),
        ("ls", "list", []),
        ("image alias create a b", "image alias add", ["a", "b"]),
    ],
)
def test_verbs_are_found(line: str, verb: str, rest: list[str]) -> None:
    found, words = find_verb(line.split())
    assert (found.name, words) == (verb, rest)


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert parse(VERBS["launch"], ["x", "-c", "a=b=c", "-c", "d="]).pairs("config") == {"a": "b=c", "d": ""}


def test_aliases_stand_for_verbs() -> None:
    assert set(ALIASES.values()) <= set(VERBS)
    assert not set(ALIASES) & set(VERBS)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_option_names_are_unique(verb: object) -> None:
    from sysd.cli.options import Verb

    assert isinstance(verb, Verb)
    longs = [option.long for option in verb.options]
    shorts = [option.short for option in verb.options if option.short]
    assert len(set(longs)) == len(longs)
    assert len(set(shorts)) == len(shorts)
    assert "h" not in shorts
    assert "help" not in longs
