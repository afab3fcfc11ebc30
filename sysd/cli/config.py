# SPDX-License-Identifier: Apache-2.0
"""The config verbs."""

from __future__ import annotations

import posix

from sysd.cli import client
from sysd.cli.errors import NOT_FOUND, CliError, UsageError
from sysd.cli.output import STDOUT, clean, out, yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item


def get(parsed: Parsed) -> int:
    """``syscont config get``"""
    name, key = parsed.args
    config = _config(name)
    if key not in config:
        _check_key(key)
        return 0
    value = str(config[key])
    out((clean(value, "\n\t") if posix.isatty(STDOUT) else value) + "\n")
    return 0


def set_keys(parsed: Parsed) -> int:
    """``syscont config set``"""
    name, *words = parsed.args
    # lxc takes KEY VALUE too; hands that learned it go on working.
    if len(words) == 2 and "=" not in words[0]:
        words = ["=".join(words)]
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"not of the form KEY=VALUE: '{word}'", f"usage: {parsed.verb.usage}")
        values[key] = value
    client.call("ChangeConfig", {"name": name, "set": values})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont config unset``"""
    name, *keys = parsed.args
    client.call("ChangeConfig", {"name": name, "unset": keys})
    return 0


def show(parsed: Parsed) -> int:
    """``syscont config show``"""
    instance = _instance(parsed.args[0])
    fields = ("name", "project", "type", "image", "config", "devices")
    shown = {field: instance.get(field) for field in fields} | {"config": _config(parsed.args[0])}
    if parsed.value("format") == "json":
        from sysd.codec import pretty

        out(pretty(shown) + "\n")
    else:
        out(yaml(shown))
    return 0


def keys(parsed: Parsed) -> int:
    """``syscont config keys``"""
    from sysd.cli.output import show as show_list
    from sysd.model.config import KEYS

    found: list[Item] = [
        {"key": key.name, "default": key.default, "live": key.live, "help": key.help} for key in KEYS
    ]
    columns = (
        ("KEY", lambda item: str(item["key"])),
        ("DEFAULT", lambda item: str(item["default"])),
        ("LIVE", lambda item: "yes" if item["live"] else "no"),
        ("MEANING", lambda item: str(item["help"])),
    )
    show_list(found, columns, parsed, "key")
    return 0


def _instance(name: str) -> Parameters:
    instance = client.call("GetInstance", {"name": name}).get("instance")
    if not isinstance(instance, dict):
        raise CliError(f"syscontd sent no instance for {name}", code=NOT_FOUND)
    return instance


def _config(name: str) -> Parameters:
    """All of it: that of an instance leaves out what is private."""
    config = client.call("GetConfig", {"name": name}).get("config")
    return config if isinstance(config, dict) else {}


def _check_key(key: str) -> None:
    from sysd.model.config import find_key
    from sysd.model.errors import SyscontError

    try:
        find_key(key)
    except SyscontError as error:
        raise UsageError(error.message, error.hint) from None
