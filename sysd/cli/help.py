# SPDX-License-Identifier: Apache-2.0
"""help: made from the tables of verbs and words."""

from __future__ import annotations

from sysd.cli.aliases import ALIASES
from sysd.cli.errors import EXIT_STATUSES, UsageError
from sysd.cli.examples import EXAMPLES
from sysd.cli.options import GLOBAL, suggestion
from sysd.cli.output import out
from sysd.cli.verbs import GROUPS, SECTIONS, VERBS
from sysd.cli.words import DETAILS, FIRST_STEPS, INTRODUCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysd.cli.options import Option, Parsed, Verb

WIDTH = 88


def run(parsed: Parsed) -> int:
    """``syscont help``"""
    name = " ".join(parsed.args)
    name = ALIASES.get(name, name)
    if not name:
        out(overview())
    elif name in VERBS:
        out(verb_help(VERBS[name]))
    elif name in GROUPS:
        out(group_help(name))
    else:
        raise UsageError(f"unknown verb '{name}'", suggestion(name, (*VERBS, *GROUPS)) or "see 'syscont help'")
    return 0


def overview() -> str:
    """What ``syscont help`` prints."""
    parts = ["syscont VERB [OPTION...] [ARGUMENT...]\n", wrap(INTRODUCTION)]
    for section, names in SECTIONS:
        parts.append(f"{section}:\n" + columns((VERBS[name].name, VERBS[name].summary) for name in names))
    parts.append("First steps:\n" + _examples(FIRST_STEPS))
    parts.append("Exit status:\n" + columns(EXIT_STATUSES))
    parts.append("More: 'syscont help VERB', 'syscont VERB --help', syscont(1).\n")
    return "\n".join(parts)


def group_help(group: str) -> str:
    """What ``syscont help image`` prints."""
    names = [name for name in VERBS if name.startswith(group + " ")]
    rows = columns((f"{name} {VERBS[name].arguments}", VERBS[name].summary) for name in names)
    return f"syscont {group} VERB\n\n{GROUPS[group]}\n\nVerbs:\n{rows}"


def verb_help(verb: Verb) -> str:
    """What ``syscont VERB --help`` prints."""
    parts = [f"{verb.usage}\n", f"{verb.summary}.\n"]
    if verb.name in DETAILS:
        parts.append(wrap(DETAILS[verb.name]))
    rows = [(option.forms, option_text(option)) for option in (*verb.options, *GLOBAL)]
    parts.append("Options:\n" + columns([*rows, ("-h, --help", "Print this.")]))
    if verb.name in EXAMPLES:
        parts.append("Examples:\n" + _examples(EXAMPLES[verb.name]))
    also = [alias for alias, name in ALIASES.items() if name == verb.name]
    if also:
        parts.append(f"Also known as: {', '.join(also)}.\n")
    return "\n".join(parts)


def option_text(option: Option) -> str:
    return f"{option.help} One of {', '.join(option.choices)}." if option.choices else option.help


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, the right one wrapped."""
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    lines = []
    for left, right in rows:
        first, *more = fill(right, WIDTH - width - 4) or [""]
        lines.append(f"  {left:<{width}}  {first}".rstrip() + "\n")
        lines.extend(f"{'':{width + 4}}{line}\n" for line in more)
    return "".join(lines)


def wrap(text: str) -> str:
    return "".join(line + "\n" for line in fill(text, WIDTH))


def fill(text: str, width: int) -> list[str]:
    """text as lines of at most width characters, where its words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _examples(examples: Iterable[tuple[str, str]]) -> str:
    lines = []
    for command, meaning in examples:
        lines.append(f"  {command}\n")
        if meaning:
            lines.append(f"      {meaning}\n")
    return "".join(lines)
