# SPDX-License-Identifier: Apache-2.0
"""metadata.yaml of an image: what it says, checked field by field.

It is read as a tree of YAML nodes, never constructed: no tag in it can make anything but text, and a release of
``22.10`` stays as it was written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from sysd.images import nodes
from sysd.images.templates import Entry
from sysd.model.errors import InvalidError
from sysd.units.answers import printable

MAX_SIZE = 1 << 20
MAX_EVENTS = 20_000
MAX_PROPERTIES = 256
MAX_KEY = 255
MAX_VALUE = 8192
# As JSON. The worker's answer has all of them, on one line (see helper.MAX_LINE).
MAX_TOTAL = 32 << 10
MAX_DATE = 1 << 38

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)

_ALIASES = {
    "x86_64": ("amd64", "x86-64"),
    "i686": ("i386", "i486", "i586", "386", "x86"),
    "aarch64": ("arm64",),
    "armv7l": ("armv7", "armhf", "armhfp", "armv7a_hardfp", "armv8l"),
    "armv6l": ("armel", "arm", "armv6"),
    "ppc64le": ("ppc64el", "powerpc64le"),
    "ppc64": ("powerpc64",),
    "s390x": (),
    "riscv64": (),
    "loongarch64": ("loong64",),
    "mips64": ("mips64el", "mips64le"),
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}
_ALSO_RUNS = {"x86_64": ("i686",), "aarch64": ("armv7l", "armv6l"), "armv7l": ("armv6l",)}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an image says of itself; created is in microseconds since the epoch."""

    architecture: str
    created: int
    properties: dict[str, str] = field(default_factory=dict)
    templates: list[Entry] = field(default_factory=list)

    @property
    def description(self) -> str:
        return self.properties.get("description", "")


def architecture(name: str) -> str:
    """Linux's name for an architecture under any of its usual names; raises InvalidError for an unknown one."""
    found = _NAMES.get(name.lower())
    if found is None:
        raise InvalidError(f"unknown architecture {name[:40]!r}", f"known: {', '.join(sorted(_ALIASES))}")
    return found


def host_architecture() -> str:
    return architecture(os.uname().machine)


def runnable(name: str) -> str:
    """The architecture's name, if this host can run it."""
    found, host = architecture(name), host_architecture()
    if found != host and found not in _ALSO_RUNS.get(host, ()):
        raise InvalidError(f"the image is for {found}, and this host is {host}")
    return found


def parse(data: bytes) -> Metadata:
    """Read metadata.yaml; raises InvalidError that names the field which is missing or wrong."""
    fields = _fields(nodes.compose(data, "metadata.yaml", MAX_SIZE, MAX_EVENTS))
    return Metadata(
        architecture=_runnable(_scalar(_needed(fields, "architecture"), "architecture", ("str",))),
        created=_date(_scalar(_needed(fields, "creation_date"), "creation_date", ("int",))) * 1_000_000,
        properties=_properties(fields["properties"]) if "properties" in fields else {},
        templates=_templates(fields["templates"]) if "templates" in fields else [],
    )


def check_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Raise InvalidError if a property's key or value may not be stored or shown."""
    if len(properties) > MAX_PROPERTIES:
        raise _wrong("properties", f"has more than {MAX_PROPERTIES} entries")
    for key, value in properties.items():
        if not key or len(key) > MAX_KEY or not printable(key):
            raise _wrong("properties", f"has a bad key {key[:40]!r}")
        if len(value) > MAX_VALUE:
            raise _wrong(f"properties.{key}", f"is longer than {MAX_VALUE} characters")
        if not printable(value):
            raise _wrong(f"properties.{key}", "has control characters in it")
    if len(json.dumps(dict(properties), ensure_ascii=False).encode()) > MAX_TOTAL:
        raise _wrong("properties", f"has more than {MAX_TOTAL >> 10} KiB in all")
    return dict(properties)


def _wrong(name: str, why: str) -> InvalidError:
    return InvalidError(f"metadata.yaml: {name} {why}")


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise InvalidError("metadata.yaml is not a mapping of fields to values")
    return _mapping(node, "the file")


def _mapping(node: yaml.MappingNode, name: str) -> dict[str, yaml.Node]:
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in nodes.SCALARS:
            raise _wrong(name, "has a key that is not text")
        if key.value in found:
            raise _wrong(name, f"has {key.value[:40]!r} twice")
        found[key.value] = value
    return found


def _needed(fields: Mapping[str, yaml.Node], name: str) -> yaml.Node:
    if name not in fields:
        raise _wrong(name, "is missing")
    return fields[name]


def _scalar(node: yaml.Node, name: str, kinds: tuple[str, ...]) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in [_TAG + kind for kind in kinds]:
        raise _wrong(name, f"is not a {'number' if kinds == ('int',) else 'text'}")
    return str(node.value)


def _date(text: str) -> int:
    if not _WHOLE.fullmatch(text) or int(text) > MAX_DATE:
        raise _wrong("creation_date", "is not a time in whole seconds since 1970")
    return int(text)


def _runnable(name: str) -> str:
    try:
        return runnable(name)
    except InvalidError as error:
        raise InvalidError(f"metadata.yaml: architecture: {error.message}", error.hint) from error


def _properties(node: yaml.Node) -> dict[str, str]:
    return check_properties(_texts(node, "properties"))


def _texts(node: yaml.Node, name: str) -> dict[str, str]:
    kinds = tuple(tag.removeprefix(_TAG) for tag in nodes.SCALARS)
    found = _mapping(_as_mapping(node, name), name)
    return {key: _scalar(value, f"{name}.{key[:40]}", kinds) for key, value in found.items()}


def _as_mapping(node: yaml.Node, name: str) -> yaml.MappingNode:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(name, "is not a mapping of names to values")
    return node


def _templates(node: yaml.Node) -> list[Entry]:
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null":
        return []  # as image tools write it when there are none
    return [_template(path, each) for path, each in _mapping(_as_mapping(node, "templates"), "templates").items()]


def _template(path: str, node: yaml.Node) -> Entry:
    name = f"templates.{path[:40]}"
    fields = _mapping(_as_mapping(node, name), name)
    when = _needed(fields, "when")
    if not isinstance(when, yaml.SequenceNode):
        raise _wrong(f"{name}.when", "is not a list")
    return Entry(
        path=path,
        file=_scalar(_needed(fields, "template"), f"{name}.template", ("str",)),
        when=[_scalar(each, f"{name}.when", ("str",)) for each in when.value],
        properties=_texts(fields["properties"], f"{name}.properties") if "properties" in fields else {},
        create_only="create_only" in fields and _scalar(fields["create_only"], name, ("bool",)).lower() == "true",
    )
