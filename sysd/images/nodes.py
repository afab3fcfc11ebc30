# SPDX-License-Identifier: Apache-2.0
"""YAML of strangers, read as a tree of nodes and never constructed: no tag in it can make anything but text."""

from __future__ import annotations

from typing import Any

import yaml

from sysd.model.errors import InvalidError

MAX_DEPTH = 32

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
SCALARS = tuple(_TAG + kind for kind in ("str", "int", "float", "bool", "timestamp"))
_NULL = _TAG + "null"


def compose(data: bytes, name: str, max_size: int, max_events: int) -> yaml.Node | None:
    """The document in data; raises InvalidError for what is none, or would grow when it is composed."""
    if len(data) > max_size:
        raise InvalidError(f"{name} has more than {max_size} bytes")
    try:
        text = data.decode("utf-8")
        _scan(text, name, max_events)
        node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError as error:
        raise InvalidError(f"{name} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise InvalidError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from error
    return node


def _scan(text: str, name: str, max_events: int) -> None:
    """Refuse aliases, depth, sheer number."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise InvalidError(f"{name} uses aliases", "write the values out")
        if count > max_events or depth > MAX_DEPTH:
            raise InvalidError(f"{name} is too large or too deeply nested")


def plain(node: yaml.Node | None, name: str) -> Any:
    """Maps, lists and texts; nothing, and what is written null, is None."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
        return None
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            text = plain(key, name)
            if not isinstance(text, str) or text in found:
                raise InvalidError(f"{name} has a key that is not text, or comes twice")
            found[text] = plain(value, name)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [plain(each, name) for each in node.value]
    if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
        return str(node.value)
    raise InvalidError(f"{name} has a value of an unknown kind ({str(node.tag)[:40]})")
