# SPDX-License-Identifier: Apache-2.0
"""syscont(1), made from the tables of verbs and words: ``python3 -m sysd.cli.manpage >docs/man/syscont.1``."""

from __future__ import annotations

from sysd.cli.aliases import ALIASES
from sysd.cli.client import SOCKET
from sysd.cli.errors import EXIT_STATUSES
from sysd.cli.examples import EXAMPLES
from sysd.cli.help import option_text
from sysd.cli.output import out
from sysd.cli.verbs import SECTIONS, VERBS
from sysd.cli.words import DETAILS, FIRST_STEPS, INTRODUCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysd.cli.options import Option, Verb

HEAD = """.\\" SPDX-License-Identifier: Apache-2.0
.\\" Made by sysd/cli/manpage.py; do not edit.
.TH SYSCONT 1 "" "syscont" "User Commands"
.SH NAME
syscont \\- system containers as systemd units
.SH SYNOPSIS
.B syscont
.I VERB
[OPTION...] [ARGUMENT...]
.SH DESCRIPTION
"""

ENVIRONMENT = (
    ("SYSCONT_SOCKET", f"The socket of syscontd to speak to, instead of {SOCKET}."),
    ("SYSCONT_PROJECT", "The project to act in, instead of that of 'project switch'."),
    ("SYSCONT_REMOTE", "The host to act on, instead of that of 'remote switch'."),
    ("TERM", "exec and shell: handed to the command when it gets a terminal."),
)
FILES = (
    (SOCKET, "Where syscontd listens; open to root and to members of the group syscont."),
    ("/usr/share/syscont/org.syscont.Manager.varlink", "The interface that is spoken there."),
    ("~/.config/syscont", "Other hosts that you know, your own key (client.pem), and what you have switched to."),
    ("/var/lib/syscont", "Instances, images and all else that is remembered."),
    ("syscont@NAME.service", "An instance; in another project syscont@PROJECT:NAME.service."),
    ("syscont.target", "Stops all instances when it is stopped, as it is when the host goes down."),
    ("syscont-net@NETWORK.service", "DHCP and DNS of a network."),
    ("syscont-ssh@.service", "One ssh to a virtual machine, for a command or a file, in a sandbox."),
    ("syscont-exec.service", "Starts and watches the commands of exec and shell. A restart ends none of them."),
    ("syscont-drain.service", "Reads consoles into the journal while syscontd is stopped."),
)
SEE_ALSO = ("systemctl(1)", "journalctl(1)", "machinectl(1)", "systemd.resource-control(5)")


def page() -> str:
    """The whole page, as roff."""
    parts = [HEAD, _text(INTRODUCTION), ".SS First steps\n", _examples(FIRST_STEPS), ".SH VERBS\n"]
    for section, names in SECTIONS:
        parts.append(f".SS {_escape(section)}\n")
        parts.extend(_verb(VERBS[name]) for name in names)
    parts += [".SH EXIT STATUS\n", _terms(EXIT_STATUSES)]
    parts += [".SH ENVIRONMENT\n", _terms(ENVIRONMENT), ".SH FILES\n", _terms(FILES)]
    parts += [".SH SEE ALSO\n", _text(", ".join(SEE_ALSO))]
    return "".join(parts)


def _verb(verb: Verb) -> str:
    parts = [f".TP\n.B {_escape(verb.name)}\n" if not verb.arguments else _usage(verb)]
    parts.append(_text(f"{verb.summary}. {DETAILS.get(verb.name, '')}".strip()))
    also = [alias for alias, name in ALIASES.items() if name == verb.name]
    if also:
        parts.append(_text(f"Also known as: {', '.join(also)}."))
    body = "".join(_option(option) for option in verb.options)
    examples = _examples(EXAMPLES.get(verb.name, ()))
    return "".join(parts) + f".RS\n{body}{examples}.RE\n"


def _usage(verb: Verb) -> str:
    return f".TP\n.BI {_word(verb.name)} {_word(' ' + verb.arguments)}\n"


def _option(option: Option) -> str:
    return f".TP\n.B {_escape(option.forms.strip())}\n{_text(option_text(option))}"


def _terms(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n.B {_escape(term)}\n{_text(meaning)}" for term, meaning in rows)


def _examples(examples: Iterable[tuple[str, str]]) -> str:
    lines = []
    for command, meaning in examples:
        comment = f"    # {meaning}" if meaning else ""
        lines.append(_line(command + comment))
    return ".PP\n.nf\n.RS 4\n" + "".join(lines) + ".RE\n.fi\n" if lines else ""


def _text(text: str) -> str:
    return _line(text) if text else ""


def _line(text: str) -> str:
    escaped = _escape(text)
    # A dot or an apostrophe at the beginning of a line would be a request.
    return ("\\&" if escaped.startswith((".", "'")) else "") + escaped + "\n"


def _word(text: str) -> str:
    return '"' + _escape(text).replace('"', "\\(dq") + '"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("~", "\\(ti")


if __name__ == "__main__":
    out(page())
