# SPDX-License-Identifier: Apache-2.0
"""The page on systemd's Container Interface has every item, done or explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/CONTAINER_INTERFACE.md").read_text()
# As many items as each section of systemd.io/CONTAINER_INTERFACE has.
SECTIONS = {
    "Execution Environment": 7,
    "Environment Variables": 5,
    "Advanced Integration": 6,
    "Networking": 3,
    "The `/run/host/` Hierarchy": 11,
    "What You Shouldn't Do": 8,
}


def rows(section: str) -> list[list[str]]:
    """The cells of each row of a section's table, without its head."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize(("section", "items"), SECTIONS.items())
def test_each_item_is_there_and_done_or_explained(section: str, items: int) -> None:
    found = rows(section)
    assert [int(row[0]) for row in found] == list(range(1, items + 1))
    for _, item, done, tests in found:
        assert item
        assert "::" in tests or done.startswith("Not done"), item


def test_there_are_no_other_sections() -> None:
    assert re.findall("^## (.*)$", PAGE, re.M) == list(SECTIONS)
