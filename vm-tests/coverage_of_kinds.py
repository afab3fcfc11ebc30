# SPDX-License-Identifier: Apache-2.0
"""No test may go unrun: a ledger over the runs on all kinds of host."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HELP = (
    "keep in FILE which tests ran; once there was a run on every kind of host, a test that "
    "ran on none of them is a failure (remove FILE to begin anew)"
)


class Worker:
    """In a worker of pytest-xdist: tells the process that has the ledger which tests there are."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.wanted: list[str] = told.setdefault("wanted", [])

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if _wanted(item):
            self.wanted.append(item.nodeid)


def _wanted(item: pytest.Item) -> bool:
    return not item.get_closest_marker("heavy")


class EveryTestRan:
    """A pytest plugin that writes down what ran, and fails the last run if something didn't."""

    def __init__(self, ledger: Path, kind: str, kinds: frozenset[str]) -> None:
        self.ledger, self.kinds = ledger, kinds
        known = json.loads(ledger.read_text()) if ledger.exists() else {}
        self.kinds_run = {kind, *known.get("kinds", [])}
        self.ran = set(known.get("ran", []))
        self.wanted: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if _wanted(item):
            self.wanted.add(item.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done."""
        self.wanted.update(node.workeroutput["wanted"])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self.ran.add(report.nodeid)

    def missing(self) -> Sequence[str]:
        return sorted(self.wanted - self.ran)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        lists = {"kinds": sorted(self.kinds_run), "ran": sorted(self.ran)}
        self.ledger.write_text(json.dumps(lists, indent=1))
        if self.missing() and self.kinds_run >= self.kinds and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.missing():
            terminalreporter.section("ran on no kind of host yet")
            for name in self.missing():
                terminalreporter.line(name)
