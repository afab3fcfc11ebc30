# SPDX-License-Identifier: Apache-2.0
"""Finds the verb, imports the one module that it needs, and turns what happens into an exit status."""

from __future__ import annotations

import sys

from sysd.cli.errors import SIGNAL_BASE, CliError, UsageError
from sysd.cli.options import OF_NO_HOST, Parsed, Verb, parse, suggestion
from sysd.cli.system import posix
from sysd.cli.verbs import GROUPS, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SIGINT = 2
# Kinds of arguments that name something of a project.
QUALIFIED = ("instance", "new-instance", "profile", "new-profile")
SIGPIPE = 13
MOST_WORDS = 5
"""Of a verb's name."""


def main() -> NoReturn:
    """The command: never returns, and skips the interpreter's tear-down, which nothing here needs."""
    status = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or 1
    posix._exit(status)


def run(words: list[str]) -> int:
    """Carry out one command line and return its exit status."""
    failure = 0
    try:
        verb, rest = find_verb(words)
        failure = verb.failure
        return dispatch(parse(verb, rest))
    except CliError as error:
        if error.text:
            _say(error.text)
        return failure or error.code
    except KeyboardInterrupt:
        return SIGNAL_BASE + SIGINT
    except BrokenPipeError:
        return SIGNAL_BASE + SIGPIPE
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return failure or 1


def find_verb(words: list[str]) -> tuple[Verb, list[str]]:
    """The verb that words begin with (``image alias add`` is one), and what follows it."""
    if not words or words[0] in ("--help", "-h"):
        return VERBS["help"], []
    if words[0] in ("--version", "-V"):
        return VERBS["version"], ["--client"]
    before = _before_verb(words)
    words = words[len(before) :] or ["help"]
    name = words[0]
    used = 1
    while name in GROUPS:
        if used == len(words) or words[used].startswith("-"):
            return VERBS["help"], name.split()
        name = f"{name} {words[used]}"
        used += 1
    verb = VERBS.get(name)
    if verb is None:
        verb, used = _by_alias(words, name)
    return verb, [*before, *words[used:]]


def _by_alias(words: list[str], name: str) -> tuple[Verb, int]:
    """The verb that words begin with another name of, and how many words that is."""
    from sysd.cli.aliases import ALIASES

    for used in range(min(len(words), MOST_WORDS), 0, -1):
        if found := ALIASES.get(" ".join(words[:used])):
            return VERBS[found], used
    raise _unknown(name)


def _before_verb(words: list[str]) -> list[str]:
    """--project may stand before the verb too, as with lxc."""
    if words[0] == "--project" and len(words) > 1:
        return words[:2]
    return words[:1] if words[0].startswith("--project=") else []


def dispatch(parsed: Parsed) -> int:
    """Import the verb's module and call its function."""
    verb = parsed.verb
    if parsed.flag("help"):
        parsed = Parsed(VERBS["help"])
        parsed.args = verb.name.split()
        verb = parsed.verb
    if verb.module not in OF_NO_HOST:
        _set_host(parsed)
    _set_project(parsed)
    module = __import__("sysd.cli." + verb.module, None, None, (verb.function,))
    status = getattr(module, verb.function)(parsed)
    assert isinstance(status, int)
    return status


def _set_host(parsed: Parsed) -> None:
    """Find out which host this is about, and take its name off those of what is on it."""
    from sysd.cli import client

    default = client.default_host()
    if parsed.remote or default != client.LOCAL or ":" in "".join(parsed.args):
        from sysd.cli.remotes import resolve

        client.use(resolve(parsed, default))


def _set_project(parsed: Parsed) -> None:
    """Find out which project to act in, and let names of what is in projects say it."""
    from sysd.cli import client

    parsed.project = parsed.value("project") or client.current_project()
    if parsed.project != "default" or ":" in "".join(parsed.args):
        kind = parsed.verb.kind
        count = len(parsed.args)
        parsed.args = [
            parsed.qualified(arg) if kind(at, count) in QUALIFIED else arg for at, arg in enumerate(parsed.args)
        ]


def _unknown(name: str) -> UsageError:
    if name.startswith("-"):
        return UsageError(f"unknown option '{name}'", "options stand after the verb; see 'syscont help'")
    group = name.rpartition(" ")[0]
    known = [verb for verb in (*VERBS, *GROUPS) if verb.rpartition(" ")[0] == group]
    hint = suggestion(name, known)
    return UsageError(f"unknown verb '{name}'", hint or f"see 'syscont help{' ' + group if group else ''}'")


def _say(text: str) -> None:
    from sysd.cli.output import say

    try:
        say(text)
    except OSError:
        return
