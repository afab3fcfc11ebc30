# SPDX-License-Identifier: Apache-2.0
"""The config verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import NOT_FOUND, CliError, UsageError
from sysd.cli.output import STDOUT, clean, document, out
from sysd.cli.system import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item
    from sysd.model.schema import Key

STDIN = 0
# More than any value may have, and little enough to read in one go.
MOST = 1 << 20


def _subject(parsed: Parsed) -> tuple[str, list[str]]:
    """The instance that the arguments begin with and the rest of them, or no name and all when they are about the host:
    its keys have dots, which no instance's name has."""
    first, *rest = parsed.args
    key = first.partition("=")[0]
    if "=" in first or ("." in key and ":" not in key):
        return "", parsed.args
    if not rest:
        raise UsageError(f"{parsed.verb.name}: too few arguments", f"usage: {parsed.verb.usage}")
    return parsed.qualified(first), rest


def _keys_of(name: str) -> str:
    """Where the schema is, as check_key() wants it."""
    return "config" if name else "server"


def get(parsed: Parsed) -> int:
    """``syscont config get``"""
    name, (key, *more) = _subject(parsed)
    if more:
        raise UsageError("config get: too many arguments", f"usage: {parsed.verb.usage}")
    return print_key(_config(name), key, _keys_of(name))


def print_value(value: str) -> None:
    out((clean(value, "\n\t") if posix.isatty(STDOUT) else value) + "\n")


def set_keys(parsed: Parsed) -> int:
    """``syscont config set``"""
    name, words = _subject(parsed)
    return _change(name, {"set": assignments(parsed, words, _keys_of(name))})


def _change(name: str, change: Parameters) -> int:
    if name:
        client.call("ChangeConfig", {"name": name, **change})
    else:
        client.call("ChangeServerConfig", change)
    return 0


def assignments(parsed: Parsed, words: list[str], of: str = "config") -> dict[str, str]:
    """What KEY=VALUE words say. lxc takes KEY VALUE too; hands that learned it go on working. A value of - is standard
    input, where of names the module of sysd.model that has the keys' schema."""
    if len(words) == 2 and "=" not in words[0]:
        words = ["=".join(words)]
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"not of the form KEY=VALUE: '{word}'", f"usage: {parsed.verb.usage}")
        values[key] = value
    from_stdin = [key for key, value in values.items() if of and value == "-"]
    if len(from_stdin) > 1:
        raise UsageError(f"{' and '.join(from_stdin)}: only one value can come from standard input")
    for key in from_stdin:
        values[key] = _read_value(key, of)
    return values


def _read_value(key: str, of: str) -> str:
    """All of standard input; a key of one line does not get the line break that editors and echo end with."""
    multiline = check_key(key, of).multiline
    data = b""
    while part := posix.read(STDIN, MOST):
        data += part
        if len(data) > MOST:
            raise UsageError(f"{key}: standard input is too long for a value")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{key}: standard input is not valid UTF-8") from None
    return text if multiline else text.removesuffix("\n")


def unset(parsed: Parsed) -> int:
    """``syscont config unset``"""
    name, keys = _subject(parsed)
    return _change(name, {"unset": keys})


def show(parsed: Parsed) -> int:
    """``syscont config show``"""
    if parsed.flag("all") or parsed.value("format") in ("table", "compact", "csv"):
        return _list_values(parsed)
    shown = _shown(parsed.args[0], parsed.flag("expanded")) if parsed.args else {"config": _config("")}
    return document(shown, parsed)


def _shown(name: str, expanded: bool) -> Parameters:
    instance, answer = _instance(name), _answer(name)
    fields = ("name", "project", "type", "image", "description", "ephemeral", "profiles")
    shown = {field: instance.get(field) for field in fields}
    shown["config"] = answer.get("expanded" if expanded else "config") or {}
    shown["devices"] = instance.get("expandedDevices" if expanded else "devices") or {}
    return shown


def _list_values(parsed: Parsed) -> int:
    from sysd.cli.output import show as show_list

    found = in_force(_answer(parsed.args[0])) if parsed.args else of_server(_config(""))
    if not parsed.flag("all"):
        found = [item for item in found if item["from"] != "default"]
    columns = (
        ("KEY", lambda item: str(item["key"])),
        ("VALUE", lambda item: str(item["value"])),
        ("FROM", lambda item: str(item["from"])),
    )
    show_list(found, columns, parsed, "key")
    return 0


def in_force(answer: Parameters) -> list[Item]:
    """Every key that has a value, with where that comes from; what GetConfig answered tells."""
    from sysd.model.config import KEYS

    own, expanded, origins = (answer.get(part) or {} for part in ("config", "expanded", "origins"))
    defaults = _defaults(KEYS)
    found: list[Item] = []
    for key in sorted({**defaults, **expanded, **own}):
        if key in own:
            source = "syscontd" if key.startswith("volatile.") else "instance"
        elif key in expanded:
            source = f"profile {origins[key]}" if key in origins else "server"
        else:
            source = "default"
        found.append({"key": key, "value": expanded.get(key, defaults.get(key, "")), "from": source})
    return found


def of_server(config: Parameters) -> list[Item]:
    """The same of the host."""
    from sysd.model.server import KEYS

    values = {**_defaults(KEYS), **config}
    return [
        {"key": key, "value": values[key], "from": "server" if key in config else "default"} for key in sorted(values)
    ]


def _defaults(keys: Iterable[Key]) -> dict[str, str]:
    return {key.name: key.default for key in keys if key.prefix is None and not key.refused}


def _instance(name: str) -> Parameters:
    instance = client.call("GetInstance", {"name": name}).get("instance")
    if not isinstance(instance, dict):
        raise CliError(f"syscontd sent no instance for {name}", code=NOT_FOUND)
    return instance


def _config(name: str) -> Parameters:
    """All of an instance's own, or of the host's."""
    config = _answer(name).get("config")
    return config if isinstance(config, dict) else {}


def _answer(name: str) -> Parameters:
    return client.call("GetConfig", {"name": name}) if name else client.call("GetServerConfig")


def print_key(config: Parameters, key: str, of: str = "config") -> int:
    """Print what a key is set to, nothing if it is not set; raises UsageError when there is no such key."""
    if key in config:
        print_value(str(config[key]))
    else:
        check_key(key, of)
    return 0


def check_key(key: str, of: str = "config") -> Key:
    """The entry of a key; raises UsageError when there is none."""
    from sysd.model.errors import SyscontError

    module = __import__(f"sysd.model.{of}", None, None, ("SCHEMA",))
    try:
        found: Key = module.SCHEMA.find(key)
    except SyscontError as error:
        raise UsageError(error.message, error.hint) from None
    return found
