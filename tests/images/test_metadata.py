# SPDX-License-Identifier: Apache-2.0
"""metadata.yaml: every field deleted, emptied, mistyped and blown up."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.images import metadata
from sysd.model.errors import InvalidError

GOOD = {
    "architecture": "x86_64",
    "creation_date": "1424284563",
    "properties": "{description: 'Debian 12', os: Debian, release: bookworm}",
}
HUGE = "9" * 5000
# Field, what stands in its place (None: nothing does), and whether that is refused.
FIELDS = [
    *(
        ("architecture", value, True)
        for value in (None, "null", "~", "", "[]", "[null]", "{}", "1", "true", "z80", HUGE)
    ),
    ("architecture", "'" + "x" * 100_000 + "'", True),
    *(("architecture", value, False) for value in ("amd64", "'x86_64'", "i686", "X86_64")),
    *(
        ("creation_date", value, True)
        for value in (None, "null", "", "[]", "[null]", "{}", "text", "'1'", "1.5", "true")
    ),
    *(("creation_date", value, True) for value in ("-1", "9999999999999", HUGE, ".inf", ".nan", "0x10", "2024-01-01")),
    *(("creation_date", value, False) for value in ("0", "1", "1700000000")),
    *(("properties", value, True) for value in ("null", "", "[]", "[null]", "text", "1", "[[a, b]]", HUGE)),
    *(("properties", value, True) for value in ("{a: null}", "{a: []}", "{a: [null]}", "{a: {}}", "{a: }")),
    *(("properties", value, True) for value in ("{null: a}", "{[a]: b}", "{{}: b}", "{'': a}", "{a: 1, a: 2}")),
    *(("properties", value, True) for value in (r'{a: "x\ny"}', r'{a: "\e[31m"}', r'{"a\0": b}', r'{a: "\u2028"}')),
    ("properties", r'{a: "\x9b31m"}', True),
    ("properties", f"{{{'k' * 300}: a}}", True),
    ("properties", f"{{a: '{'v' * 9000}'}}", True),
    ("properties", "{" + ", ".join(f"k{n}: v" for n in range(300)) + "}", True),
    *(("properties", value, False) for value in (None, "{}", "{a: ''}", "{a: 1, b: 2.50, c: true, d: 2024-01-01}")),
    *(("expiry_date", value, False) for value in ("1", "null", "[]", "text")),
    *(("templates", value, False) for value in ("{}", "null", "{/etc/hostname: {when: [create], template: h.tpl}}")),
    ("unknown", "[1, {a: b}]", False),
]


def document(changes: dict[str, str | None]) -> bytes:
    fields = {**GOOD, **changes}
    return "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None).encode()


@pytest.mark.parametrize(("name", "value", "refused"), FIELDS, ids=lambda value: str(value)[:40])
def test_field(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, refused: bool) -> None:
    monkeypatch.setattr(metadata, "host_architecture", lambda: "x86_64")
    if not refused:
        metadata.parse(document({name: value}))
        return
    with pytest.raises(InvalidError) as caught:
        metadata.parse(document({name: value}))
    assert name in caught.value.message or "YAML" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a mapping"),
        (b"[]", "not a mapping"),
        (b"text", "not a mapping"),
        (b"null", "not a mapping"),
        (b"a: b\n---\nc: d\n", "not YAML"),
        (b"a: [\n", "not YAML"),
        (b"\xff\xfe\xff", "not UTF-8"),
        (b"a: \x00\n", "not YAML"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: " + b"[" * 5000, "nested"),
        (b"a: " + b"{b: " * 5000, "nested"),
        (b"a: [" + b"1," * 50_000 + b"]", "too large"),
        (b"#" * ((1 << 20) + 1), "more than"),
        (b"architecture: !!python/object/apply:os.system [id]\n", "architecture is not a text"),
        (b"architecture: x86_64\narchitecture: x86_64\n", "twice"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_document(data: bytes, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        metadata.parse(data)


def test_alias_bomb() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{c}: &{c} [{', '.join(['*' + p] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(InvalidError, match="aliases"):
        metadata.parse("\n".join(lines).encode())


def test_properties_stay_as_written() -> None:
    text = "{release: 22.10, serial: 0123, lts: yes, built: 2024-01-01, name: ünï}"
    found = metadata.parse(document({"architecture": os.uname().machine, "properties": text}))
    assert found.properties == {
        "release": "22.10",
        "serial": "0123",
        "lts": "yes",
        "built": "2024-01-01",
        "name": "ünï",
    }
    assert found.created == 1424284563_000_000


@pytest.mark.parametrize(
    ("host", "image", "runs"),
    [
        ("x86_64", "i386", True),
        ("x86_64", "arm64", False),
        ("aarch64", "armhf", True),
        ("aarch64", "aarch64", True),
        ("i686", "x86_64", False),
        ("riscv64", "riscv64", True),
    ],
)
def test_architecture(monkeypatch: pytest.MonkeyPatch, host: str, image: str, runs: bool) -> None:
    monkeypatch.setattr(metadata, "host_architecture", lambda: host)
    if runs:
        assert metadata.runnable(image) == metadata.architecture(image)
        return
    with pytest.raises(InvalidError, match="this host is"):
        metadata.runnable(image)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text(alphabet="ab:,-[]{}&*!|>'\"#\n %@0\t", max_size=60).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(InvalidError):
        metadata.parse(data)
