# SPDX-License-Identifier: Apache-2.0
"""What is printed."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sysd.cli import output
from sysd.cli.info import render
from sysd.cli.progress import progress_line

PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | PRINTABLE
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(PRINTABLE, inner), max_leaves=20)


@given(VALUES)
def test_yaml_is_read_back(value: Any) -> None:
    assert yaml.safe_load(output.yaml(value)) == value


@pytest.mark.parametrize("word", ["yes", "No", "null", "true", "~", "1e3", "0x1", "2001-01-01", "- a", "a: b", "y", ""])
def test_yaml_keys_stay_strings(word: str) -> None:
    assert yaml.safe_load(output.yaml({word: word})) == {word: word}


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])), min_size=2))
def test_csv_is_read_back(row: list[str]) -> None:
    assert next(csv.reader(io.StringIO(output.csv_line(row)))) == row


@pytest.mark.parametrize(
    ("text", "keep", "cleaned"),
    [
        ("plain ünïcode", "", "plain ünïcode"),
        ("\x1b[31mred\x1b[0m", "", "?[31mred?[0m"),
        ("a\rb\nc\td", "", "a?b?c?d"),
        ("a\nb\x07", "\n", "a\nb?"),
        ("\x9b31m", "", "?31m"),
        ("\u202egnp.exe", "", "?gnp.exe"),
        ("\udcff", "", "?"),
    ],
)
def test_clean(text: str, keep: str, cleaned: str) -> None:
    assert output.clean(text, keep) == cleaned


def test_table() -> None:
    rows = [["web1", "10.0.0.1\n10.0.0.2", "x"], ["longer-name", "", "y"]]
    assert output.table(["NAME", "IPV4", "T"], rows) == (
        "NAME         IPV4      T\n"
        "web1         10.0.0.1  x\n"
        "             10.0.0.2\n"
        "longer-name  -         y\n"
    )


def test_table_of_nothing() -> None:
    assert output.table(["A", "B"], []) == "A  B\n"
    assert output.table([], []) == ""


def test_table_takes_braces_as_they_are() -> None:
    assert output.table(["{}"], [["{0}"]]) == "{}\n{0}\n"


def test_info_lines_up() -> None:
    assert render([("Name", "web1"), ("Addresses", "a\nb")]) == "     Name: web1\nAddresses: a\n           b\n"


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        ({"target": "t", "kind": "create", "stage": ""}, "t: create"),
        ({"target": "t", "stage": "unpack", "done": 0, "total": 10}, "t: unpack"),
        ({"target": "t", "stage": "unpack", "done": 2048, "total": 0}, "t: unpack 2.00KiB"),
        (
            {"target": "t", "stage": "unpack", "done": 25, "total": 100},
            "t: unpack [#####---------------]  25% 25B of 100B",
        ),
        (
            {"target": "t", "stage": "unpack", "done": 300, "total": 100},
            "t: unpack [####################] 100% 100B of 100B",
        ),
        ({"target": "\x1b]0;t\x07", "stage": "s"}, "?]0;t?: s"),
    ],
)
def test_progress_line(operation: dict[str, Any], line: str) -> None:
    assert progress_line(operation) == line
