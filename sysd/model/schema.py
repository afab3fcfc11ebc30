# SPDX-License-Identifier: Apache-2.0
"""Schemas of keys and their values: what instances, devices, profiles and projects are configured by."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Kind
from sysd.model.values import boolean

MAX_VALUE = 1 << 16
_KEY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or a family of keys when the name ends with ``.*``.

    check raises InvalidError for a bad value. member, for a family, is what the part in place of ``*`` must match;
    check_member, for one whose members differ, gets that part and the value. live: a change is in force at once in
    what runs. only: the kind of instances that have it, when others have not. internal: only the daemon sets it.
    refused: why the key can't be offered; it is known so that the answer can say so.
    """

    name: str
    check: Callable[[str], object]
    default: str
    help: str
    live: bool = False
    only: Kind | None = None
    multiline: bool = False
    internal: bool = False
    refused: str = ""
    member: str = ""
    check_member: Callable[[str, str], object] | None = None

    @property
    def prefix(self) -> str | None:
        return self.name[:-1] if self.name.endswith(".*") else None

    def matches(self, name: str) -> bool:
        prefix = self.prefix
        if prefix is None:
            return name == self.name
        if not name.startswith(prefix) or not _KEY_NAME.fullmatch(name):
            return False
        rest = name[len(prefix) :]
        return bool(re.fullmatch(self.member, rest, re.ASCII) if self.member else rest)


class Schema:
    """Keys of one kind of thing; what names that in messages, hint says how to learn the keys."""

    def __init__(self, keys: Iterable[Key], what: str = "configuration", hint: str = "") -> None:
        self.keys = tuple(keys)
        self._what = what
        self._hint = hint
        self._exact = {key.name: key for key in self.keys if key.prefix is None}
        self._families = tuple(key for key in self.keys if key.prefix is not None)

    def find(self, name: str) -> Key:
        """The entry for a key; raises InvalidError for one that does not exist."""
        if key := self._exact.get(name):
            return key
        for key in self._families:
            if key.matches(name):
                return key
        raise InvalidError(f"unknown {self._what} key {name[:80]!r}", self._hint)

    def check(self, values: Mapping[str, str], *, internal: bool = False) -> dict[str, str]:
        """A checked copy of values; raises InvalidError naming the first key that is wrong, UnsupportedError for one
        that can't be offered. internal: the values are the daemon's own."""
        for name, value in values.items():
            key = self.find(name)
            if key.refused:
                raise UnsupportedError(f"{name} can't be set: {key.refused}")
            if key.internal and not internal:
                raise InvalidError(f"{name} is kept by syscontd", "it can't be set")
            _check_text(key, name, value)
            try:
                key.check(value)
                if key.check_member:
                    key.check_member(name[len(key.name) - 1 :], value)
            except (InvalidError, UnsupportedError) as error:
                raise type(error)(f"{name}: {error.message}", error.hint) from None
        return dict(values)

    def changed(self, config: Mapping[str, str], values: Mapping[str, str], unset: Collection[str]) -> dict[str, str]:
        """config with values set and other keys unset, all of them checked; a key that is not set may be unset."""
        for key in unset:
            if self.find(key).internal:
                raise InvalidError(f"{key} is kept by syscontd", "it can't be unset")
            if key in values:
                raise InvalidError(f"{key} is both set and unset")
        return {key: value for key, value in config.items() if key not in unset} | self.check(values)

    def text(self, values: Mapping[str, str], name: str) -> str:
        """The value of a key, its default when it is not set."""
        return values.get(name, self._exact[name].default)

    def boolean(self, values: Mapping[str, str], name: str) -> bool:
        return boolean(self.text(values, name))

    def integer(self, values: Mapping[str, str], name: str) -> int:
        return int(self.text(values, name))


def _check_text(key: Key, name: str, value: str) -> None:
    if len(value) > MAX_VALUE:
        raise InvalidError(f"{name}: value is too long", f"at most {MAX_VALUE} characters")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidError(f"{name}: value is no text")
    if "\0" in value or (not key.multiline and any(c in value for c in "\n\r")):
        raise InvalidError(f"{name}: value has a line break or NUL")
