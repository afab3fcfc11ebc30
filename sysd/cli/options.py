# SPDX-License-Identifier: Apache-2.0
"""Command lines described as data, and the parser for them.

The same description gives help, shell completion and the man page.
"""

from __future__ import annotations

from sysd.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FLAG = "flag"
VALUE = "value"
NUMBER = "number"
LIST = "list"
PAIRS = "pairs"


class Option:
    """One option: ``kind`` is FLAG, VALUE, NUMBER (whole, not negative), LIST (repeatable) or PAIRS (KEY=VALUE).

    complete names what its value is, for shells, where choices do not say it.
    """

    __slots__ = ("choices", "complete", "help", "kind", "long", "metavar", "short")

    def __init__(
        self,
        long: str,
        help: str,
        short: str = "",
        kind: str = FLAG,
        metavar: str = "",
        choices: tuple[str, ...] = (),
        complete: str = "",
    ) -> None:
        self.long = long
        self.help = help
        self.short = short
        self.kind = kind
        self.metavar = metavar
        self.choices = choices
        self.complete = complete

    @property
    def forms(self) -> str:
        """``-c, --config KEY=VALUE``, as help shows it."""
        short = f"-{self.short}, " if self.short else "    "
        return f"{short}--{self.long}" + (f" {self.metavar}" if self.metavar else "")


class Verb:
    """One verb: where its function is, what it takes, and the words that explain it.

    least and most bound the number of arguments (most -1: any number). options_end is the number of arguments
    after which nothing is read as an option any more (-1: never), for verbs that carry another program's
    command line. complete names what each argument is, for shells. failure, when set, is the exit status of
    every failure of syscont's own.
    """

    __slots__ = (
        "arguments",
        "complete",
        "failure",
        "function",
        "least",
        "module",
        "most",
        "name",
        "options",
        "options_end",
        "summary",
    )

    def __init__(
        self,
        name: str,
        target: str,
        summary: str,
        arguments: str = "",
        least: int = 0,
        most: int = 0,
        options: tuple[Option, ...] = (),
        complete: tuple[str, ...] = (),
        options_end: int = -1,
        failure: int = 0,
    ) -> None:
        self.name = name
        self.module, _, self.function = target.partition(":")
        self.summary = summary
        self.arguments = arguments
        self.least = least
        self.most = most
        self.options = options
        self.complete = complete
        self.options_end = options_end
        self.failure = failure

    def kind(self, position: int, count: int) -> str:
        """What the argument at a position of so many names, for verbs that say so: see complete. What follows "..." is
        said of the last ones."""
        kinds = self.complete
        if "..." in kinds:
            dots = kinds.index("...")
            after = kinds[dots + 1 :]
            if position >= count - len(after):
                return after[position - count + len(after)]
            return kinds[min(position, dots - 1)]
        return kinds[position] if position < len(kinds) else ""

    @property
    def usage(self) -> str:
        parts = ["syscont", self.name, "[OPTION...]" if self.options else "", self.arguments]
        return " ".join(part for part in parts if part)


# Modules of verbs that are about this command and what it knows itself.
OF_NO_HOST = ("remote", "help", "completion", "keys")

# Verbs by which something goes from one host to another; their last argument says where to.
BETWEEN = ("copy", "move")

# What every verb takes, besides --help.
GLOBAL = (Option("project", "Act in this project.", "", VALUE, "PROJECT", complete="project"),)


class Parsed:
    """A command line as its verb's function gets it: ``args``, and the options by long name. project is the one to
    act in, by which names of instances and profiles are qualified. remote: the host that an argument REMOTE: named.
    target_host: the one that something goes to from another one; else empty."""

    __slots__ = ("args", "lists", "project", "remote", "target_host", "values", "verb")

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.args: list[str] = []
        self.project = "default"
        self.remote = ""
        self.target_host = ""
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}

    def flag(self, name: str) -> bool:
        return name in self.values

    def value(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)

    def number(self, name: str) -> int | None:
        return int(self.values[name]) if name in self.values else None

    def list(self, name: str) -> list[str]:
        return self.lists.get(name, [])

    def qualified(self, name: str) -> str:
        """A name as the daemon takes it: ``web1`` in the default project, ``lab:web1`` in project lab. One that says
        its project itself, as ``default:web1`` does, is taken at its word."""
        project, colon, plain = name.rpartition(":")
        project = project if colon else self.project
        return plain if project == "default" else f"{project}:{plain}"

    def pairs(self, name: str) -> dict[str, str]:
        return {key: value for key, _, value in (item.partition("=") for item in self.list(name))}


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 1)
    return f"did you mean '{close[0]}'?" if close else ""


def parse(verb: Verb, words: list[str]) -> Parsed:
    """Read the words after a verb's name; raises UsageError, with a hint, for what the verb does not take."""
    parsed = Parsed(verb)
    rest = iter(words)
    for word in rest:
        if word == "--":
            parsed.args.extend(rest)
        elif word.startswith("--"):
            _long(parsed, word, rest)
        elif word.startswith("-") and word != "-":
            _short(parsed, word, rest)
        else:
            parsed.args.append(word)
            if len(parsed.args) == verb.options_end:
                parsed.args.extend(rest)
    if not parsed.flag("help"):
        _take_host(parsed)
        _check_count(verb, len(parsed.args))
    return parsed


def _take_host(parsed: Parsed) -> None:
    """An argument REMOTE: is one of every verb that is about what a host has."""
    end = parsed.verb.options_end
    mine = parsed.args[: end - 1] if end > 0 else parsed.args
    if parsed.verb.module in OF_NO_HOST or not any(arg.endswith(":") for arg in mine):
        return
    if parsed.verb.name in BETWEEN and not mine[-1].endswith(":"):
        return
    from sysd.cli.remotes import take_bare

    parsed.remote, rest = take_bare(mine)
    parsed.args = rest + parsed.args[len(mine) :]


def _long(parsed: Parsed, word: str, rest: Iterable[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if name == "help":
        parsed.values["help"] = ""
        return
    for option in (*parsed.verb.options, *GLOBAL):
        if option.long == name:
            break
    else:
        hint = suggestion(f"--{name}", [f"--{option.long}" for option in (*parsed.verb.options, *GLOBAL)] + ["--help"])
        raise UsageError(f"{parsed.verb.name}: unknown option '--{name}'", hint or _see(parsed.verb))
    if option.kind == FLAG and equals:
        raise UsageError(f"option '--{name}' takes no value", _see(parsed.verb))
    if option.kind != FLAG and not equals:
        value = _next(option, f"--{name}", rest)
    _store(parsed, option, value)


def _short(parsed: Parsed, word: str, rest: Iterable[str]) -> None:
    position = 1
    while position < len(word):
        letter = word[position]
        position += 1
        if letter == "h":
            parsed.values["help"] = ""
            continue
        option = next((option for option in parsed.verb.options if option.short == letter), None)
        if option is None:
            raise UsageError(f"{parsed.verb.name}: unknown option '-{letter}'", _see(parsed.verb))
        if option.kind == FLAG:
            _store(parsed, option, "")
            continue
        _store(parsed, option, word[position:] or _next(option, f"-{letter}", rest))
        return


def _next(option: Option, form: str, rest: Iterable[str]) -> str:
    for value in rest:
        return value
    raise UsageError(f"option '{form}' needs a value", f"{form} {option.metavar}")


def _store(parsed: Parsed, option: Option, value: str) -> None:
    if option.choices and value not in option.choices:
        raise UsageError(f"--{option.long}: not acceptable: '{value}'", f"one of {', '.join(option.choices)}")
    if option.kind == NUMBER and not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise UsageError(f"--{option.long}: not a whole number: '{value}'", "seconds, lines: 0 or more")
    if option.kind == PAIRS and value.find("=") < 1:
        raise UsageError(f"--{option.long}: not of the form KEY=VALUE: '{value}'")
    if option.kind in (LIST, PAIRS):
        parsed.lists.setdefault(option.long, []).append(value)
    else:
        parsed.values[option.long] = value


def _check_count(verb: Verb, count: int) -> None:
    if count < verb.least:
        raise UsageError(f"{verb.name}: too few arguments", f"usage: {verb.usage}")
    if verb.most >= 0 and count > verb.most:
        raise UsageError(f"{verb.name}: too many arguments", f"usage: {verb.usage}")


def _see(verb: Verb) -> str:
    return f"see 'syscont {verb.name} --help'"
