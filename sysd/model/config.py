# SPDX-License-Identifier: Apache-2.0
"""The one schema of configuration keys: type, default, help. Everything that knows keys is made from it.

Names and value grammar are LXD's (see its instance options reference), so that profiles carry over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sysd.model.errors import InvalidError
from sysd.model.sizes import parse_size

MAX_VALUE = 1 << 16


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or a family of keys when the name ends with ``.*``."""

    name: str
    check: Callable[[str], object]
    default: str
    help: str
    live: bool = False
    multiline: bool = False

    @property
    def prefix(self) -> str | None:
        return self.name[:-1] if self.name.endswith(".*") else None


def _bool(text: str) -> bool:
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise InvalidError(f"not a boolean: {text!r}", "true or false")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise InvalidError(f"out of range: {text!r}", f"a whole number from {low} to {high}")
        return int(text)

    return check


def _memory(text: str) -> int:
    value = parse_size(text)
    if value < 1 << 20:
        raise InvalidError(f"too small: {text!r}", "at least 1MiB")
    return value


def _any(text: str) -> str:
    return text


KEYS = (
    Key("boot.autostart", _bool, "false", "Start the instance when the host boots.", live=True),
    Key(
        "boot.autostart.delay",
        _integer(0, 3600),
        "0",
        "Seconds to wait after the instance was started before the next one is.",
        live=True,
    ),
    Key(
        "boot.autostart.priority",
        _integer(-(10**6), 10**6),
        "0",
        "Instances with a higher number are started first.",
        live=True,
    ),
    Key(
        "boot.host_shutdown_timeout",
        _integer(0, 86400),
        "30",
        "Seconds that the guest gets to stop before it is killed.",
    ),
    Key("environment.*", _any, "", "Environment of the guest's PID 1 and of executed commands.", live=True),
    Key("limits.memory", _memory, "", "Most memory the instance may use (MemoryMax= of its unit).", live=True),
    Key(
        "limits.processes",
        _integer(1, 4194304),
        "",
        "Most tasks the instance may have (TasksMax= of its unit).",
        live=True,
    ),
    Key("security.protection.delete", _bool, "false", "Refuse to delete the instance.", live=True),
    Key("user.*", _any, "", "Free for users; may span lines.", live=True, multiline=True),
)

_EXACT = {key.name: key for key in KEYS if key.prefix is None}
_FAMILIES = tuple(key for key in KEYS if key.prefix is not None)
_KEY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}", re.ASCII)
_ENVIRONMENT = re.compile(r"environment\.[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def find_key(name: str) -> Key:
    """The schema's entry for a key; raises InvalidError for one that does not exist."""
    if key := _EXACT.get(name):
        return key
    for key in _FAMILIES:
        if name.startswith(key.prefix or "") and len(name) > len(key.prefix or "") and _KEY_NAME.fullmatch(name):
            if key.name == "environment.*" and not _ENVIRONMENT.fullmatch(name):
                break
            return key
    raise InvalidError(f"unknown configuration key {name!r}", "see 'syscont config keys'")


def check_config(config: Mapping[str, str]) -> dict[str, str]:
    """A checked copy of config; raises InvalidError naming the first key that is wrong."""
    for name, value in config.items():
        key = find_key(name)
        if len(value) > MAX_VALUE:
            raise InvalidError(f"{name}: value is too long", f"at most {MAX_VALUE} characters")
        if any(c in value for c in ("\0", "\n", "\r")) and not (key.multiline and "\0" not in value):
            raise InvalidError(f"{name}: value has a line break or NUL")
        try:
            key.check(value)
        except InvalidError as error:
            raise InvalidError(f"{name}: {error.message}", error.hint) from None
    return dict(config)


def get_bool(config: Mapping[str, str], name: str) -> bool:
    return _bool(config.get(name, _EXACT[name].default))


def get_int(config: Mapping[str, str], name: str) -> int:
    return int(config.get(name, _EXACT[name].default))
