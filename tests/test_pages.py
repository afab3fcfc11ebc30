# SPDX-License-Identifier: Apache-2.0
"""What the documentation says is tested is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("CONTAINER_INTERFACE.md", "isolation.md")
NAMED = sorted(
    {
        found
        for page in PAGES
        for found in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py::\w+)`", (ROOT / "docs" / page).read_text())
    }
)


def test_tests_are_named_on_each_page() -> None:
    assert len(NAMED) > 50
    assert all("::" in (ROOT / "docs" / page).read_text() for page in PAGES)


@pytest.mark.parametrize("named", NAMED)
def test_named_tests_exist(named: str) -> None:
    """Those without a folder are in vm-tests."""
    file, _, function = named.partition("::")
    path = ROOT / file if "/" in file else ROOT / "vm-tests" / file
    assert re.search(rf"^def {function}\(", path.read_text(), re.M)


def test_each_advisory_has_a_guard_and_a_test_or_is_said_to_be_open() -> None:
    text = (ROOT / "docs/isolation.md").read_text().partition("\n## What has broken elsewhere\n")[2]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "| CVE-" in line]
    assert len(rows) > 20
    for advisory, _, guard, test in rows:
        assert "::" in test or guard.startswith("Open to"), advisory
    known = [number for row in rows for number in re.findall(r"CVE-\d+-\d+", row[0])]
    assert len(known) == len(set(known))
