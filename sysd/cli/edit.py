# SPDX-License-Identifier: Apache-2.0
"""edit: an object as YAML in the user's editor, or from standard input."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError, UsageError
from sysd.cli.output import clean, out
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.objects import Kind, Values
    from sysd.cli.options import Parsed

STDIN = 0


def instance(parsed: Parsed) -> int:
    """``syscont edit``"""
    from sysd.cli.objects import CONFIG, INSTANCES, SERVER

    return _edit(INSTANCES, parsed.args[0]) if parsed.args else _edit(SERVER, CONFIG)


def profile(parsed: Parsed) -> int:
    """``syscont profile edit``"""
    from sysd.cli.objects import PROFILES

    return _edit(PROFILES, parsed.args[0])


def project(parsed: Parsed) -> int:
    """``syscont project edit``"""
    from sysd.cli.objects import PROJECTS

    return _edit(PROJECTS, parsed.args[0])


def network(parsed: Parsed) -> int:
    """``syscont network edit``"""
    from sysd.cli.objects import NETWORKS

    return _edit(NETWORKS, parsed.args[0])


def acl(parsed: Parsed) -> int:
    """``syscont network acl edit``"""
    from sysd.cli.objects import ACLS

    return _edit(ACLS, parsed.args[0])


def zone(parsed: Parsed) -> int:
    """``syscont network zone edit``"""
    from sysd.cli.objects import ZONES

    return _edit(ZONES, parsed.args[0])


def _edit(kind: Kind, reference: str) -> int:
    found = kind.current([reference])
    if reference not in found:
        from sysd.cli.errors import NOT_FOUND

        raise CliError(f"no {kind.name} '{reference}'", f"'syscont {kind.listed_by}' shows what there is", NOT_FOUND)
    current = found[reference]
    if posix.isatty(STDIN):
        return _in_editor(kind, reference, current)
    from sysd.cli.document import text_of

    _take(kind, reference, current, *text_of("-"))
    return 0


def _in_editor(kind: Kind, reference: str, current: Values) -> int:
    """Until what was written is accepted, or nothing more is changed."""
    from sysd.cli.document import write

    shown = {field: current.get(field) for field in kind.editable}
    original = _head(kind, reference) + write(shown)
    path = _temporary(original, f"{kind.name}-{reference.replace(':', '-')}")
    text = original
    try:
        while (edited := _edited(path)) not in (original, text):
            text = edited
            try:
                _take(kind, reference, current, text, path)
            except CliError as error:
                # Above what was written, as a comment, which the next reading leaves out.
                body = "".join(line for line in text.splitlines(True) if not line.startswith("#! "))
                text = f"#! {clean(error.text)}\n{body}"
                _replace(path, text)
            else:
                posix.unlink(path)
                return 0
        raise CliError("nothing was changed")
    except CliError as error:
        if text != original:
            raise CliError(error.message, f"what you wrote is in {path}", error.code) from None
        posix.unlink(path)
        raise


def _head(kind: Kind, reference: str) -> str:
    return (
        f"# {kind.name} {reference}. What you save is checked, and takes effect when the editor ends.\n"
        "# Keys and devices that you remove are unset. If you leave all as it is, nothing happens.\n"
    )


def _take(kind: Kind, reference: str, current: Values, text: str, source: str) -> None:
    """Check what was written and put it in force; a field that is not there stays as it is."""
    from sysd.cli.document import read
    from sysd.cli.plan import change

    node = read(text, source)
    if node is None:
        raise UsageError(f"{source}: there is nothing in it")
    step = change(kind, reference, current, kind.read_editable(node))
    for method, parameters in step.calls:
        client.call(method, parameters)
    out("".join(f"{row.line()}\n" for row in step.rows))


def _temporary(text: str, name: str) -> str:
    """Of the user's own: what is configured may be secret."""
    import tempfile

    fd, path = tempfile.mkstemp(".yaml", f"syscont-{name}-")
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _replace(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _edited(path: str) -> str:
    """Run the editor on a file and return what is in it then."""
    from sysd.cli.editor import run_editor

    run_editor(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
