# SPDX-License-Identifier: Apache-2.0
"""YAML that people write for apply and edit: read strictly, so that each mistake is told with its place.

Only YAML's own plain data is taken, and scalars as they are written: ``1.10`` stays that, ``yes`` too. What could mean
something else than it looks like is refused: doubled keys, tags, aliases, values that are missing.
"""

from __future__ import annotations

from sysd.cli.errors import UsageError
from sysd.cli.options import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

MOST = 16 << 20
DEEPEST = 16
_TAG = "tag:yaml.org,2002:"
# What scalars resolve to when they have no tag; all of them are taken as the text that they are.
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "timestamp")}


class Node:
    """A part of a document: what it holds, and where it stands."""

    __slots__ = ("_node", "_source", "path")

    def __init__(self, node: Any, source: str, path: str = "") -> None:
        self._node = node
        self._source = source
        self.path = path

    def error(self, message: str, hint: str = "") -> UsageError:
        """``FILE:LINE: PATH: MESSAGE``"""
        place = f"{self._source}:{self._node.start_mark.line + 1}"
        return UsageError(f"{place}: {self.path}: {message}" if self.path else f"{place}: {message}", hint)

    def text(self) -> str:
        if self._kind != "scalar":
            raise self.error("not a single value")
        if self._node.tag == _TAG + "null":
            raise self.error("has no value", 'write "" for an empty one')
        if self._node.tag not in _SCALARS:
            raise self.error(f"what {self._node.tag[:80]} means is not known here")
        text = self._node.value
        assert isinstance(text, str)
        return text

    def boolean(self) -> bool:
        text = self.text()
        if text not in ("true", "false"):
            raise self.error(f"not a boolean: '{text[:80]}'", "true or false")
        return text == "true"

    def choice(self, *choices: str) -> str:
        text = self.text()
        if text not in choices:
            raise self.error(f"not acceptable: '{text[:80]}'", f"one of {', '.join(choices)}")
        return text

    def items(self) -> list[Node]:
        """Members of a list, each with its place in it."""
        if self._kind != "sequence":
            raise self.error("not a list")
        self._check_tag("seq")
        return [Node(node, self._source, f"{self.path}[{at}]") for at, node in enumerate(self._node.value)]

    def members(self) -> dict[str, Node]:
        """Members of a map by their keys, whatever these are."""
        if self._kind != "mapping":
            raise self.error("not a map of keys to values")
        self._check_tag("map")
        found: dict[str, Node] = {}
        for key_node, node in self._node.value:
            key = Node(key_node, self._source, self.path).text()
            if key in found:
                raise Node(key_node, self._source, self._beneath(key)).error("is there twice")
            found[key] = Node(node, self._source, self._beneath(key))
        return found

    def fields(self, known: Collection[str], needed: Collection[str] = ()) -> dict[str, Node]:
        """Members of a map that has only known ones, and all those needed."""
        found = self.members()
        for name, node in found.items():
            if name not in known:
                hint = suggestion(name, known) or f"one of {', '.join(known)}"
                raise node.error("unknown field", hint)
        for name in needed:
            if name not in found:
                raise self.error(f"has no {name}")
        return found

    def named(self, name: str) -> Node:
        """The same part, known by its name instead of its place in a list."""
        return Node(self._node, self._source, f"{self.path.rpartition('[')[0]}[{name}]")

    @property
    def _kind(self) -> str:
        kind = self._node.id
        assert isinstance(kind, str)
        return kind

    def _check_tag(self, name: str) -> None:
        if self._node.tag != _TAG + name:
            raise self.error(f"what {self._node.tag[:80]} means is not known here")

    def _beneath(self, key: str) -> str:
        return f"{self.path}.{key[:80]}" if self.path else key[:80]


def read(text: str, source: str) -> Node | None:
    """The one document in text, None when there is nothing in it; source is how messages call where it came from."""
    import yaml

    try:
        _check_shape(text, source)
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{source}{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {str(error).splitlines()[0]}") from None
    if len(documents) > 1:
        raise Node(documents[1], source).error("a second document", "write all into one")
    return Node(documents[0], source) if documents else None


def _check_shape(text: str, source: str) -> None:
    """Refuse aliases, which would let a few lines stand for gigabytes (what things have in common is what profiles are
    for), and more levels than anything here has."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise Node(event, source).error("anchors and aliases are not taken", "put what is shared into a profile")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Node(event, source).error("nested too deeply")


def write(values: dict[str, Any]) -> str:
    """values as read() takes them again; texts of several lines as they are."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def represent_text(self, text: str) -> Any:
            return self.represent_scalar(_TAG + "str", text, style=_style(text))

        def ignore_aliases(self, data: object) -> bool:
            return True

    Dumper.add_representer(str, Dumper.represent_text)
    written = yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 16)
    assert isinstance(written, str)
    return written


def _style(text: str) -> str | None:
    if text.isprintable():
        return None
    lines = text.replace("\t", " ").split("\n")
    return "|" if all(map(str.isprintable, lines)) else '"'


def text_of(name: str) -> tuple[str, str]:
    """What stands in a file, or on standard input for ``-``, and how messages call it."""
    source = "standard input" if name == "-" else name
    data = b"".join(_chunks(name, source))
    try:
        return data.decode(), source
    except UnicodeDecodeError:
        raise UsageError(f"{source}: not valid UTF-8") from None


def _chunks(name: str, source: str) -> Iterator[bytes]:
    size = 0
    with open(0 if name == "-" else name, "rb", closefd=name != "-") as stream:
        while chunk := stream.read(1 << 16):
            size += len(chunk)
            if size > MOST:
                raise UsageError(f"{source}: too long", f"at most {MOST >> 20} MiB")
            yield chunk
