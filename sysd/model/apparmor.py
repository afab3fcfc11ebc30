# SPDX-License-Identifier: Apache-2.0
"""raw.apparmor: rules that are added to an instance's AppArmor profile, as apparmor.d(5) has them.

They become part of a text that apparmor_parser reads, so they may be rules and nothing else: what would close the
profile, open another, or read a file is refused here. Whether they mean anything is for apparmor_parser to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sysd.model.errors import InvalidError

_QUALIFIERS = frozenset({"allow", "audit", "deny", "owner", "quiet"})
_KINDS = frozenset(
    {"capability", "change_profile", "dbus", "file", "io_uring", "link", "mount", "mqueue", "network", "pivot_root"}
    | {"ptrace", "remount", "rlimit", "set", "signal", "umount", "unix", "unmount", "userns"}
)
_PATHS = ("/", "@{", '"/', '"@{')
_INCLUDE = re.compile(r"#\s*include", re.ASCII)
_COMMENT = re.compile(r"(?<![^\s,])#[^\n]*")
_HINT = "rules of apparmor.d(5), each with a comma at its end: 'mount fstype=nfs,'"


def check_rules(text: str) -> None:
    """Raise InvalidError for what is not a list of rules."""
    if any(not c.isprintable() and c not in "\n\t" for c in text):
        raise InvalidError("it has a character that can't be printed")
    if _INCLUDE.search(text):
        raise InvalidError("files can't be included", _HINT)
    _check_braces(text)
    for rule in _rules(_COMMENT.sub("", text)):
        _check_rule(rule)


def _check_braces(text: str) -> None:
    """Braces may be those of path patterns only, {a,b}: a block has white space before or in it. In comments and quotes
    too, so that nothing hangs on how those are read."""
    depth = 0
    for place, c in enumerate(text):
        before = text[place - 1] if place else "\n"
        opens_block = c == "{" and (before.isspace() or (before == "," and not depth))
        depth += (c == "{") - (c == "}")
        if depth < 0 or opens_block or (depth and c.isspace()):
            raise InvalidError(f"no rule: {_line_at(text, place)!r}", "braces are for paths: /srv/{a,b}/**")
    if depth:
        raise InvalidError("a brace is not closed")


def _line_at(text: str, place: int) -> str:
    return text[text.rfind("\n", 0, place) + 1 :].partition("\n")[0].strip()[:80]


def _rules(text: str) -> Iterator[str]:
    """The texts before the commas that end a rule, which are those outside of quotes, braces and parentheses."""
    start, quoted, depth = 0, False, 0
    for place, c in enumerate(text):
        if c == '"':
            quoted = not quoted
        elif c == "\n" and quoted:
            raise InvalidError("a quoted path does not end in its line")
        elif c in "{(" and not quoted:
            depth += 1
        elif c in "})" and not quoted:
            depth -= 1
        elif c == "," and not quoted and not depth:
            yield text[start:place].strip()
            start = place + 1
    if rest := text[start:].strip():
        raise InvalidError(f"a rule does not end with a comma: {rest[:80]!r}", _HINT)


def _check_rule(rule: str) -> None:
    words = rule.split()
    while words and words[0] in _QUALIFIERS:
        del words[0]
    # A class of rules may be all there is: 'deny' alone is none.
    if not words or not (words[0].startswith(_PATHS) or re.split(r"[=(<-]", words[0])[0] in _KINDS):
        raise InvalidError(f"no rule: {rule[:80]!r}", _HINT)
