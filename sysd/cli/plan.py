# SPDX-License-Identifier: Apache-2.0
"""What apply and edit are going to do: which objects are made, which of their values change, and what that needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sysd.cli.document import Node
from sysd.cli.errors import CliError
from sysd.cli.lifecycle import ALIVE
from sysd.cli.objects import DEVICE, KINDS, Call, Kind, Values
from sysd.cli.output import clean
from sysd.model.errors import SyscontError
from sysd.model.secrets import PRIVATE

CREATE, CHANGE, SAME = "create", "change", "unchanged"


@dataclass(frozen=True, slots=True)
class Row:
    """One value that changes: None where there is none. waits: in force only after a restart, for it runs."""

    key: str
    old: str | None
    new: str | None
    waits: bool = False

    def line(self) -> str:
        if self.key.startswith(PRIVATE):
            # A plan ends up in logs.
            what = "is removed" if self.new is None else "is set" if self.old is None else "changes"
        else:
            what = f"{_shown(self.old)} -> {_shown(self.new)}"
        return f"{self.key}: {what}" + ("  (needs a restart)" if self.waits else "")


@dataclass(slots=True)
class Step:
    """What is to be done about one object."""

    kind: Kind
    reference: str
    action: str
    rows: list[Row] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """The running instances that have to be restarted for all of it to be in force."""

    def text(self) -> str:
        head = f"{self.action:<{len(SAME)}}  {self.kind.name} {self.reference}\n"
        return head + "".join(f"{'':{len(SAME) + 4}}{row.line()}\n" for row in self.rows)

    def data(self) -> dict[str, Any]:
        """For programs; private values are left out."""
        changes = [
            {"key": row.key, "needsRestart": row.waits}
            | ({} if row.key.startswith(PRIVATE) else {"old": row.old, "new": row.new})
            for row in self.rows
        ]
        return {"kind": self.kind.name, "name": self.reference, "action": self.action, "changes": changes}


def make_plan(document: Node) -> list[Step]:
    """The steps, in an order in which each finds what it needs."""
    sections = document.fields([kind.section for kind in KINDS])
    wanted = [(kind, _objects(kind, sections[kind.section])) for kind in KINDS if kind.section in sections]
    steps: list[Step] = []
    for kind, objects in wanted:
        current = kind.current(objects)
        for reference, (values, node) in objects.items():
            if reference in current:
                steps.append(change(kind, reference, current[reference], values))
            else:
                steps.append(_make(kind, reference, values, node))
    return steps


def _objects(kind: Kind, section: Node) -> dict[str, tuple[Values, Node]]:
    """All objects of a section, read whole before anything is asked or done."""
    found: dict[str, tuple[Values, Node]] = {}
    for node, values in kind.read_all(section):
        reference = kind.reference(values)
        if reference in found:
            raise node.error(f"{kind.name} {reference} is there twice")
        found[reference] = (values, node)
    return found


def _make(kind: Kind, reference: str, wanted: Values, node: Node) -> Step:
    try:
        calls = [kind.making(reference, wanted), *kind.finishing(reference, wanted)]
    except SyscontError as error:
        raise node.error(error.message, error.hint) from None
    shown = {name: value for name, value in wanted.items() if name not in ("name", "project")}
    rows = [Row(key, None, value) for key, value in flat(shown).items() if value]
    return Step(kind, reference, CREATE, rows, calls)


def change(kind: Kind, reference: str, current: Values, wanted: Values) -> Step:
    """The step from what there is to what is wanted."""
    wanted = kind.completed(current, wanted)
    changed = {name: wanted[name] for name in kind.editable if name in wanted and wanted[name] != current.get(name)}
    before, after = flat({name: current.get(name) for name in changed}), flat(changed)
    keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    waiting = [key for key in keys if not kind.is_live(key)]
    running = kind.runs(reference, current) if waiting and wanted.get("state") != "stopped" else []
    rows = [Row(key, before.get(key), after.get(key), key in waiting and bool(running)) for key in keys]
    step = Step(kind, reference, CHANGE if rows else SAME, rows, waiting=running)
    if changed:
        step.calls.append(kind.changing(reference, changed))
    _change_state(step, current, wanted)
    return step


def _change_state(step: Step, current: Values, wanted: Values) -> None:
    """An instance that is to run or not."""
    runs, to_run = current.get("state") in ALIVE, wanted.get("state")
    if to_run and runs != (to_run == "running"):
        verb = "StartInstance" if to_run == "running" else "StopInstance"
        step.rows.append(Row("state", str(current.get("state")), to_run))
        step.calls.append((verb, {"name": step.reference}))
        step.action = CHANGE


def flat(values: Values) -> dict[str, str]:
    """Values by the names that people know them by: keys of config as they are, a device whole."""
    return dict(_flat(values))


def _said(options: dict[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in sorted(options.items()))


def _quoted(rule: dict[str, str]) -> str:
    """So that no two rules look alike."""
    return " ".join(shlex.quote(f"{key}={text}") for key, text in sorted(rule.items()))


def _flat(values: Values) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name == "config":
            yield from (value or {}).items()
        elif name == "devices":
            for device, options in (value or {}).items():
                yield DEVICE + device, _said(options)
        elif isinstance(value, list):
            yield name, ", ".join(_quoted(each) if isinstance(each, dict) else each for each in value)
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        elif value is not None:
            yield name, str(value)


def _shown(value: str | None) -> str:
    if value is None:
        return "(unset)"
    first, more, _ = value.partition("\n")
    return (clean(first) + "..." if more else clean(first)) or '""'


def summary(steps: list[Step]) -> str:
    """One line on all of it."""
    counts = [(CREATE, "to create"), (CHANGE, "to change"), (SAME, "unchanged")]
    parts = [f"{sum(step.action == action for step in steps)} {words}" for action, words in counts]
    waiting = len(to_restart(steps))
    instances = "1 instance needs" if waiting == 1 else f"{waiting} instances need"
    return ", ".join(parts) + (f"; {instances} a restart" if waiting else "")


def to_restart(steps: list[Step]) -> list[str]:
    """Each instance that has to be, once, however many changes it is for."""
    stopped = {step.reference for step in steps for method, _ in step.calls if method == "StopInstance"}
    return [name for name in dict.fromkeys(name for step in steps for name in step.waiting) if name not in stopped]


def failed(error: CliError, step: Step) -> CliError:
    """The error with what it is about."""
    return CliError(f"{step.kind.name} {step.reference}: {error.message}", error.hint, error.code, error.name)
