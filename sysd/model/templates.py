# SPDX-License-Identifier: Apache-2.0
"""Files that images want made from facts of an instance, as LXD has them: their template language (pongo2) as far as
images use it. Texts of images are hostile: what is rendered is bounded, and reaches nothing but the facts.

    {{ instance.name }}   {{ config_get("user.meta-data", properties.default) }}   {# comment #}
    {% if config_get("user.x", "") == "" %} ... {% elif not trigger == "copy" %} ... {% else %} ... {% endif %}

Sources: LXD's image-handling.md (templates), pongo2's documentation, the templates of distrobuilder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sysd.model.errors import InvalidError
from sysd.model.idmap import is_privileged
from sysd.model.instance import Instance

TRIGGERS = ("create", "copy", "rename", "start")
MAX_OUTPUT = 1 << 18
MAX_TAGS = 1000

Facts = Mapping[str, Any]

_CLOSE = {"{{": "}}", "{%": "%}", "{#": "#}"}
_TOKEN = re.compile(r"""\s*("[^"\\]*"|'[^'\\]*'|[A-Za-z_][A-Za-z0-9_.]*|==|!=|[(),])""")


@dataclass(frozen=True, slots=True)
class Template:
    """path is the file's in the guest; when: which of TRIGGERS make it. create_only: not where there is one already."""

    path: str
    text: str
    when: list[str]
    properties: dict[str, str] = field(default_factory=dict)
    create_only: bool = False

    def render(self, instance: Instance, architecture: str, trigger: str) -> str:
        """The file's text for an expanded instance. Raises InvalidError for what is not understood."""
        about = {
            "name": instance.name,
            "architecture": architecture,
            "type": instance.kind,
            "privileged": str(is_privileged(instance.config)).lower(),
            "ephemeral": str(instance.ephemeral).lower(),
        }
        facts = {
            "trigger": trigger,
            "path": self.path,
            "container": about,
            "instance": about,
            "properties": self.properties,
            "config_get": lambda key, default: instance.config.get(key, default),
        }
        try:
            return render(self.text, facts)
        except RecursionError:
            raise InvalidError("a template is too deeply nested") from None


def render(text: str, facts: Facts) -> str:
    """Raises InvalidError for what is not understood."""
    output, size = [], 0
    # For each "if" around: whether what is around it counts, whether one of its branches did, whether this one does.
    around: list[tuple[bool, bool, bool]] = []
    for opening, part in _parts(text):
        shown = all(active for _, _, active in around)
        piece = ""
        if opening == "{%":
            _branch(part, facts, around, shown)
        elif shown and opening != "{#":
            piece = _value(part, facts) if opening else part
        size += len(piece)
        if size > MAX_OUTPUT:
            raise InvalidError(f"a template makes more than {MAX_OUTPUT >> 10} KiB")
        output.append(piece)
    if around:
        raise InvalidError("a template has an 'if' without its end")
    return "".join(output)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Plain text, with nothing before it, and the insides of tags with what opened them."""
    position = tags = 0
    trim = False
    while True:
        found = min((at for kind in _CLOSE if (at := text.find(kind, position)) >= 0), default=-1)
        plain = text[position:] if found < 0 else text[position:found]
        if trim:
            plain = plain.lstrip()
        if found < 0:
            yield "", plain
            return
        tags += 1
        opening = text[found : found + 2]
        end = text.find(_CLOSE[opening], found + 2)
        if end < 0 or tags > MAX_TAGS:
            raise InvalidError("a template has a tag without its end" if end < 0 else "a template has too many tags")
        inside = text[found + 2 : end]
        yield "", plain.rstrip() if inside.startswith("-") else plain
        trim = inside.endswith("-")
        yield opening, inside.removeprefix("-").removesuffix("-").strip()
        position = end + 2


def _branch(tag: str, facts: Facts, around: list[tuple[bool, bool, bool]], shown: bool) -> None:
    word, _, condition = tag.partition(" ")
    if word == "if":
        holds = shown and _holds(condition, facts)
        around.append((shown, holds, holds))
    elif word in ("elif", "else", "endif") and around:
        outer, taken, _ = around.pop()
        if word != "endif":
            holds = outer and not taken and (word == "else" or _holds(condition, facts))
            around.append((outer, taken or holds, holds))
    else:
        raise InvalidError(f"a template has an unknown tag: {tag[:80]!r}")


def _holds(condition: str, facts: Facts) -> bool:
    negated = condition.startswith("not ")
    tokens = _tokens(condition.removeprefix("not "))
    left = _operand(tokens, facts)
    result = bool(left)
    if tokens and tokens[0] in ("==", "!="):
        equal = tokens.pop(0) == "=="
        result = (left == _operand(tokens, facts)) is equal
    if tokens:
        raise InvalidError(f"a template has an unknown condition: {condition[:80]!r}")
    return result is not negated


def _value(expression: str, facts: Facts) -> str:
    tokens = _tokens(expression)
    value = _operand(tokens, facts)
    if tokens:
        raise InvalidError(f"a template has an unknown expression: {expression[:80]!r}")
    return value


def _tokens(expression: str) -> list[str]:
    found, position = [], 0
    expression = expression.rstrip()
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise InvalidError(f"a template has an unknown expression: {expression[:80]!r}")
        found.append(match[1])
        position = match.end()
    return found


def _operand(tokens: list[str], facts: Facts) -> str:
    """Take one value off the tokens; what there is no fact of is empty, as in LXD."""
    first = tokens.pop(0) if tokens else ""
    if first[:1] in ("'", '"'):
        return first[1:-1]
    if tokens[:1] == ["("]:
        return _call(facts.get(first), first, tokens, facts)
    if not first or not (first[0].isalpha() or first[0] == "_"):
        raise InvalidError(f"a template lacks a value at {first[:80]!r}")
    value: Any = facts
    for part in first.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value if isinstance(value, str) else ""


def _call(function: Any, name: str, tokens: list[str], facts: Facts) -> str:
    if not callable(function):
        raise InvalidError(f"a template calls {name[:80]!r}, which is no function")
    known: Callable[[str, str], str] = function
    del tokens[0]
    key = _operand(tokens, facts)
    default = ""
    if tokens[:1] == [","]:
        del tokens[0]
        default = _operand(tokens, facts)
    if tokens[:1] != [")"]:
        raise InvalidError(f"a template calls {name[:80]!r} in a way that is not known")
    del tokens[0]
    return known(key, default)
