# SPDX-License-Identifier: Apache-2.0
"""The reference pages say what the schemas say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sysd.model import network, project, server, zones
from sysd.model.config import KEYS
from sysd.model.devices.check import SCHEMAS
from sysd.model.schema import Key
from tools import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_page_in_the_tree_is_up_to_date(name: str) -> None:
    text = (reference.FOLDER / name).read_text()
    assert text == reference.PAGES[name](), "run: make generate"


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        (reference.config, KEYS),
        (reference.projects, project.KEYS),
        (reference.of_server, server.KEYS),
        (reference.of_zones, zones.KEYS),
    ],
)
def test_each_key_is_there_once_with_what_is_to_know(page: Callable[[], str], keys: tuple[Key, ...]) -> None:
    lines = page().splitlines()
    for key in keys:
        (row,) = [line for line in lines if line.startswith(f"| `{key.name}` |")]
        assert (key.refused or key.help).replace("|", "\\|") in row


def test_each_type_of_device_has_its_options() -> None:
    sections = reference.devices().split("\n## ")[1:]
    for (kind, schema), section in zip(SCHEMAS.items(), sections, strict=True):
        assert section.startswith(f"`{kind}`\n")
        assert all(f"| `{key.name}` |" in section for key in schema.keys)


def test_each_key_explains_itself() -> None:
    for schema_keys in (KEYS, project.KEYS, server.KEYS, network.KEYS, zones.KEYS, *(s.keys for s in SCHEMAS.values())):
        for key in schema_keys:
            assert key.help or key.refused, key.name
            assert "\n" not in key.help + key.refused, key.name
