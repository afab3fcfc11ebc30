# SPDX-License-Identifier: Apache-2.0
"""completion: what a shell needs to complete syscont's command lines, made from the table of verbs."""

from __future__ import annotations

from sysd.cli.errors import UsageError
from sysd.cli.options import FLAG, GLOBAL, suggestion
from sysd.cli.output import out
from sysd.cli.verbs import GROUPS, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysd.cli.options import Option, Parsed, Verb

HEAD = "SPDX-License-Identifier: Apache-2.0\n# Made by 'syscont completion {}'; do not edit.\n"

# What prints the candidates for an argument, one word each.
SOURCES = {
    "instance": "syscont list --format csv -c n 2>/dev/null",
    "filter": "syscont list --format csv -c n 2>/dev/null",
    "profile": "syscont profile list --format csv 2>/dev/null | cut -d, -f1",
    "plain-profile": "syscont profile list --format csv 2>/dev/null | cut -d, -f1",
    "project": "syscont project list --format csv 2>/dev/null | cut -d, -f1",
    "project-key": "syscont project keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'",
    "network": "syscont network list --format csv 2>/dev/null | cut -d, -f1",
    "network-key": "syscont network keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'",
    "acl": "syscont network acl list --format csv 2>/dev/null | cut -d, -f1",
    "direction": "echo ingress; echo egress",
    "zone": "syscont network zone list --format csv 2>/dev/null | cut -d, -f1",
    "zone-key": "syscont network zone keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'",
    "image": "syscont image list --format csv -c L 2>/dev/null | tr ' ' '\\n'",
    "remote": "syscont remote list --format csv 2>/dev/null | cut -d, -f1",
    "trusted": "syscont trust list --format csv 2>/dev/null | cut -d, -f1",
    "operation": "syscont operation list --format csv 2>/dev/null | cut -d, -f1",
    "instance-or-key": "syscont list --format csv -c n 2>/dev/null; "
    "syscont config keys --server --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'",
    "key": "syscont config keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'",
    "device-type": "syscont config keys --device all --format csv 2>/dev/null | cut -d, -f1 | sort -u",
    "device-option": "syscont config keys --device all --format csv 2>/dev/null | cut -d, -f2 | tr -d '*' | sort -u",
    "source": "echo busybox; echo debian/bookworm; echo debian/trixie; echo debian/sid",
    "shell": "echo bash; echo zsh; echo fish",
    "verb": "echo " + "; echo ".join(dict.fromkeys(name.split()[0] for name in VERBS)),
}


def run(parsed: Parsed) -> int:
    """``syscont completion``"""
    shell = parsed.args[0]
    if shell not in SHELLS:
        raise UsageError(f"no completion for '{shell}'", suggestion(shell, SHELLS) or f"one of {', '.join(SHELLS)}")
    out(SHELLS[shell]())
    return 0


def bash() -> str:
    """For bash-completion's completions/syscont."""
    verbs = [
        f"        '{verb.name}') options='{_options(verb)}' valued=' {_valued(verb)} ' kinds=({_kinds(verb)}) ;;\n"
        for verb in VERBS.values()
    ]
    choices = [
        f"        '{verb.name} --{option.long}') words='{' '.join(option.choices)}' ;;\n"
        for verb in VERBS.values()
        for option in verb.options
        if option.choices
    ] + [
        f"        '{verb.name} {form}') kind={option.complete} ;;\n"
        for verb in VERBS.values()
        for option in verb.options
        if option.complete
        for form in _forms(option)
    ]
    return _fill(
        _template("bash"),
        groups="".join(f"        '{group}') words='{' '.join(_words(group))}' ;;\n" for group in ("", *GROUPS)),
        verbs="".join(verbs),
        choices="".join(choices),
        sources=_sources("        "),
    )


def zsh() -> str:
    """For site-functions/_syscont."""
    groups = []
    for group in ("", *GROUPS):
        words = " ".join(_quote(f"{word}:{summary}") for word, summary in _described(group))
        groups.append(f"        '{group}') words_here=({words}) ;;\n")
    verbs = []
    for verb in VERBS.values():
        specs = [_zsh_option(option) for option in (*verb.options, *GLOBAL)]
        specs += ["'(-h --help)'{-h,--help}'[Print this.]'", *_zsh_arguments(verb)]
        verbs.append(f"        '{verb.name}') _arguments -s -S {' '.join(specs)} ;;\n")
    return _fill(_template("zsh"), groups="".join(groups), verbs="".join(verbs), sources=_sources("        "))


def fish() -> str:
    """For vendor_completions.d/syscont.fish."""
    lines = []
    for group in ("", *GROUPS):
        for word, summary in _described(group):
            lines.append(f"complete -c syscont -n \"__syscont_at '{group}'\" -a {word} -d {_quote(summary, fish=True)}")
    for verb in VERBS.values():
        at = f"complete -c syscont -n \"__syscont_at '{verb.name}'\""
        lines.extend(f"{at} {_fish_option(option)}" for option in (*verb.options, *GLOBAL))
        for kind in dict.fromkeys(_first_kinds(verb)):
            if kind in SOURCES:
                lines.append(f"{at} -a '(__syscont_candidates {kind})'")
            elif kind == "file":
                lines.append(f"{at} -F")
    return _fill(
        _template("fish"),
        groups=" ".join(f"'{group}'" for group in GROUPS),
        lines="\n".join(lines) + "\n",
        sources="".join(f"        case {kind}\n            {source}\n" for kind, source in SOURCES.items()),
    )


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def _template(shell: str) -> str:
    from sysd.cli import completion_templates

    head = "#compdef syscont\n# " if shell == "zsh" else "# "
    text = getattr(completion_templates, shell.upper())
    assert isinstance(text, str)
    return head + HEAD.format(shell) + text


def _fill(template: str, **parts: str) -> str:
    for name, part in parts.items():
        template = template.replace(f"@{name}@\n", part).replace(f"@{name}@", part)
    return template


def _words(group: str) -> Iterator[str]:
    return (word for word, _ in _described(group))


def _described(group: str) -> list[tuple[str, str]]:
    """The words that may follow a group (or "syscont" itself), each once, with its line of help."""
    names: Iterable[tuple[str, str]] = (*GROUPS.items(), *((name, verb.summary) for name, verb in VERBS.items()))
    return [(name.rpartition(" ")[2], text) for name, text in names if name.rpartition(" ")[0] == group]


def _forms(option: Option) -> list[str]:
    return [f"--{option.long}", *([f"-{option.short}"] if option.short else [])]


def _options(verb: Verb) -> str:
    return " ".join([*(f"--{option.long}" for option in (*verb.options, *GLOBAL)), "--help"])


def _valued(verb: Verb) -> str:
    return " ".join(form for option in (*verb.options, *GLOBAL) if option.kind != FLAG for form in _forms(option))


def _kinds(verb: Verb) -> str:
    return " ".join(kind or "none" for kind in _first_kinds(verb))


def _first_kinds(verb: Verb) -> tuple[str, ...]:
    """Without what is said of the last one of many: a shell can't know which that will be."""
    kinds = verb.complete
    return kinds[: kinds.index("...") + 1] if "..." in kinds else kinds


def _sources(indent: str) -> str:
    return "".join(f"{indent}{kind}) {source} ;;\n" for kind, source in SOURCES.items())


def _quote(text: str, fish: bool = False) -> str:
    return "'" + text.replace("'", "\\'" if fish else "'\\''") + "'"


def _zsh_option(option: Option) -> str:
    forms = _forms(option)
    repeated = option.kind in ("list", "pairs")
    head = "'*'" if repeated else f"'({' '.join(forms)})'"
    names = f"{{{','.join(forms)}}}" if len(forms) > 1 else forms[0]
    text = option.help.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    action = _zsh_action(option.complete) if option.complete else f"({' '.join(option.choices)})"
    value = f":{option.metavar}:{action}" if option.kind != FLAG else ""
    return f"{head}{names}{_quote(f'[{text}]{value}')}"


def _zsh_arguments(verb: Verb) -> Iterator[str]:
    kinds = _first_kinds(verb)
    for at, kind in enumerate(kinds, 1):
        if kind == "...":
            yield f"'*:{kinds[-2]}:{_zsh_action(kinds[-2])}'"
        else:
            yield f"'{at}:{kind or 'name'}:{_zsh_action(kind)}'"
    if verb.options_end >= 0:
        yield "'*:::command: '"


def _zsh_action(kind: str) -> str:
    return "_files" if kind == "file" else f"{{_syscont_candidates {kind}}}" if kind in SOURCES else " "


def _fish_option(option: Option) -> str:
    short = f"-s {option.short} " if option.short else ""
    words = f"(__syscont_candidates {option.complete})" if option.complete else " ".join(option.choices)
    value = "" if option.kind == FLAG else f"-x -a '{words}' " if words else "-x "
    return f"{short}-l {option.long} {value}-d {_quote(option.help, fish=True)}"
