# SPDX-License-Identifier: Apache-2.0
"""Our JSON is json's."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd import codec

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


def same(a: Any, b: Any) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@given(VALUES)
def test_encode_is_read_by_json(value: Any) -> None:
    assert same(json.loads(codec.encode(value)), value)
    assert codec.encode(value, codec.quote_ascii) == json.dumps(value, separators=(",", ":"))
    assert codec.pretty(value) == json.dumps(value, indent=2)


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_decode_reads_json(value: Any, indent: int | None, ascii_only: bool) -> None:
    assert same(codec.decode(json.dumps(value, indent=indent, ensure_ascii=ascii_only)), value)


@given(st.text(alphabet='[]{}",:0123456789.eE+-truefalsn \t\n\\uN', max_size=20))
def test_decode_accepts_what_json_accepts(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            codec.decode(text)
    else:
        assert same(codec.decode(text), expected)


@pytest.mark.parametrize("text", ["", " ", "x", "{", '{"a":1}}', "[1] 2", '"\n"', "[1,]", "nul", '{"a" 1}'])
def test_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.decode(text)


@pytest.mark.parametrize("text", ["Infinity", "-Infinity", " [1] ", '"\\ud83d\\ude00"', "1e3", "-0.0", "1" * 30])
def test_corners(text: str) -> None:
    assert codec.decode(text) == json.loads(text)


def test_not_a_number_is_one_value() -> None:
    assert math.isnan(codec.decode("NaN"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_floats_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        codec.encode(value)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        codec.encode({"a": {1}})


@given(VALUES)
def test_without_the_accelerator(value: Any) -> None:
    scanner, codec.SCANNER = codec.SCANNER, None
    try:
        assert same(codec.decode(codec.encode(value)), value)
    finally:
        codec.SCANNER = scanner
