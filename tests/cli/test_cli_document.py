# SPDX-License-Identifier: Apache-2.0
"""Strict YAML: what is taken, and that what is not is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.cli import document
from sysd.cli.errors import UsageError


def top(text: str) -> document.Node:
    node = document.read(text, "FILE")
    assert node is not None
    return node


@pytest.mark.parametrize("word", ["yes", "1.10", "0x10", "2026-01-01", "1_000", "'null'", "true", "'a b'", '"\\n"'])
def test_scalars_stay_as_they_are_written(word: str) -> None:
    read = top(f"a: {word}").members()["a"].text()
    assert read == {"'null'": "null", "'a b'": "a b", '"\\n"': "\n"}.get(word, word)


def test_nothing_is_no_document() -> None:
    assert document.read("", "FILE") is None
    assert document.read("# only words\n", "FILE") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "FILE:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\na: 2", "FILE:2: a: is there twice"),
        ("a: !!python/object/apply:os.system [id]", "FILE:1: a: not a single value"),
        ("a: !!python/name:os.system x", "FILE:1: a: what tag:yaml.org,2002:python/name:os.system means is not known"),
        ("a: !!binary aGk=", "FILE:1: a: what tag:yaml.org,2002:binary means is not known here"),
        ("a:", 'FILE:1: a: has no value (write "" for an empty one)'),
        ("a: ~", "FILE:1: a: has no value"),
        ("b: &x 1\na: *x", "FILE:2: anchors and aliases are not taken"),
        ("<<: {a: 1}", "FILE:1: what tag:yaml.org,2002:merge means is not known here"),
        ("a: 1\n---\na: 2", "FILE:3: a second document"),
        ("a: {b: 1}", "FILE:1: a: not a single value"),
        ("? [1]\n: 2", "FILE:1: not a single value"),
        ("a: '\0'", "FILE: not YAML:"),
        ("[" * 3000 + "]" * 3000, "FILE:1: nested too deeply"),
        ("- a", "FILE:1: not a map of keys to values"),
        ("!!set {a}", "FILE:1: what tag:yaml.org,2002:set means is not known here"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        top(text).fields(("a",))["a"].text()
    assert caught.value.text.startswith(message)


def test_unknown_fields_are_named_with_their_path() -> None:
    item = top("list:\n- name: x\n  confg: {}\n").members()["list"].items()[0]
    with pytest.raises(UsageError) as caught:
        item.named("x").fields(("name", "config"))
    assert caught.value.text == "FILE:3: list[x].confg: unknown field (did you mean 'config'?)"
    with pytest.raises(UsageError, match=r"FILE:2: list\[0\]: has no image"):
        item.fields(("name", "confg"), needed=("image",))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.dictionaries(TEXTS, TEXTS, max_size=5))
def test_what_is_written_is_read_again(values: dict[str, str]) -> None:
    members = top(document.write({"config": values})).members()["config"].members()
    assert {key: node.text() for key, node in members.items()} == values


def test_texts_of_several_lines_are_written_as_they_are() -> None:
    assert document.write({"a": "#cloud-config\nruncmd: [x]\n"}) == "a: |\n  #cloud-config\n  runcmd: [x]\n"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        node = document.read(data.decode("utf-8", "replace"), "FILE")
        if node is not None:
            node.members()
    except UsageError:
        pass


def test_files_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid UTF-8"):
        document.text_of(str(tmp_path / "bytes"))
    monkeypatch.setattr(document, "MOST", 10)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(UsageError, match="too long"):
        document.text_of(str(tmp_path / "long"))
