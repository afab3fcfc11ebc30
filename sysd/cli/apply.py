# SPDX-License-Identifier: Apache-2.0
"""apply: make what there is what a file says, and say before what that takes."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CHANGED, CliError, UsageError
from sysd.cli.output import STDERR, STDOUT, out, say, write_all
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.objects import Call
    from sysd.cli.options import Parsed
    from sysd.cli.plan import Step

    Going = tuple[Step, list[Call]]

STDIN = 0


def run(parsed: Parsed) -> int:
    """``syscont apply``"""
    from sysd.cli.document import read, text_of
    from sysd.cli.plan import SAME, make_plan, to_restart

    document = read(*text_of(parsed.args[0]))
    steps = make_plan(document) if document else []
    _show(parsed, steps)
    pending = [step for step in steps if step.action != SAME]
    if pending and not parsed.flag("dry-run"):
        if not parsed.flag("yes"):
            _ask(parsed.args[0])
        _carry_out(pending)
        if parsed.flag("restart"):
            return _restart(to_restart(pending)) or _status(parsed, pending)
    return _status(parsed, pending)


def _status(parsed: Parsed, pending: list[Step]) -> int:
    return CHANGED if pending and parsed.flag("exit-code") else 0


def _restart(names: list[str]) -> int:
    return client.report(client.run_each("RestartInstance", [{"name": name} for name in names]))


def _show(parsed: Parsed, steps: list[Step]) -> None:
    from sysd.cli.plan import SAME, summary

    form = parsed.value("format", "text")
    if form == "json":
        from sysd.codec import pretty

        return out(pretty([step.data() for step in steps]) + "\n")
    if form == "yaml":
        from sysd.cli.output import yaml

        return out(yaml([step.data() for step in steps]))
    shown = [step for step in steps if step.action != SAME or not parsed.flag("quiet")]
    out("".join(step.text() for step in shown) + summary(steps) + "\n")


def _ask(source: str) -> None:
    """Go on only when somebody says so."""
    if source == "-" or not (posix.isatty(STDIN) and posix.isatty(STDOUT)):
        raise UsageError("apply: there is nobody to ask", "say --yes, or --dry-run to see the plan only")
    write_all(STDERR, b"Apply this? [y/N] ")
    if posix.read(STDIN, 100).strip().lower() not in (b"y", b"yes"):
        raise CliError("apply: nothing was changed")


def _carry_out(steps: list[Step]) -> None:
    """Kind after kind, since one needs the other; those of a kind that are operations side by side. What fails ends
    it after its kind: what is done stays done, and a second run does the rest."""
    for kind in dict.fromkeys(step.kind for step in steps):
        errors: list[CliError] = []
        # The first calls of all, then the second ones: a change before the start that it is for.
        going = [(step, list(step.calls)) for step in steps if step.kind is kind]
        while going := [(step, calls) for step, calls in going if calls]:
            errors += _round(going)
        if errors:
            for error in errors[:-1]:
                say(error.text)
            raise errors[-1]


def _round(going: list[Going]) -> list[CliError]:
    """The next call of each, so many at once; one that fails has no further ones."""
    from sysd.cli.plan import failed

    errors: list[CliError] = []
    for start in range(0, len(going), client.AT_ONCE):
        batch = [(step, calls, client.connect()) for step, calls in going[start : start + client.AT_ONCE]]
        for _, calls, connection in batch:
            connection.send(*calls[0])
        for step, calls, connection in batch:
            try:
                client.ended(connection.receive()[0])
                del calls[0]
            except CliError as error:
                errors.append(failed(error, step))
                calls.clear()
            connection.close()
    return errors
