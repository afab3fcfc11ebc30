# SPDX-License-Identifier: Apache-2.0
"""config keys: what can be set on instances, their devices and the host, and what can't be and why."""

from __future__ import annotations

from sysd.cli.errors import UsageError
from sysd.cli.options import suggestion
from sysd.cli.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysd.cli.options import Parsed
    from sysd.cli.output import Column, Item
    from sysd.model.schema import Key

EVERY = "all"


def run(parsed: Parsed) -> int:
    """``syscont config keys``"""
    if parsed.flag("server"):
        from sysd.model.server import KEYS

        return _show(parsed, [_item(key) for key in KEYS])
    device = parsed.value("device")
    return _show(parsed, _options(device) if device else _keys(), device)


def of_projects(parsed: Parsed) -> int:
    """``syscont project keys``"""
    from sysd.model.project import KEYS

    return _show(parsed, [_item(key) for key in KEYS])


def of_networks(parsed: Parsed) -> int:
    """``syscont network keys``"""
    from sysd.model.network import BRIDGE, SCHEMAS

    kind = parsed.value("type", BRIDGE)
    return _show(parsed, [_item(key) for key in SCHEMAS[kind].keys])


def of_zones(parsed: Parsed) -> int:
    """``syscont network zone keys``"""
    from sysd.model.zones import KEYS

    return _show(parsed, [_item(key) for key in KEYS])


def _show(parsed: Parsed, found: list[Item], device: str = "") -> int:
    found = [item for item in found if bool(item["refused"]) == parsed.flag("refused")]
    noun = "option" if device else "key"
    columns: list[Column] = [
        (noun.upper(), lambda item: str(item["key"])),
        ("DEFAULT", lambda item: str(item["default"])),
        ("LIVE", lambda item: "yes" if item["live"] else "no"),
        ("MEANING", lambda item: str(item["help"])),
    ]
    if parsed.flag("refused"):
        columns[1:] = [("WHY IT CAN'T BE SET", lambda item: str(item["refused"]))]
    if device == EVERY:
        columns.insert(0, ("DEVICE", lambda item: str(item["device"])))
    show(found, columns, parsed, noun)
    return 0


def _keys() -> list[Item]:
    from sysd.model.config import KEYS

    return [_item(key) for key in KEYS]


def _options(device: str) -> list[Item]:
    """Options of one type of device, or of all of them."""
    from sysd.model.devices.check import SCHEMAS

    if device != EVERY and device not in SCHEMAS:
        known = (*SCHEMAS, EVERY)
        raise UsageError(f"no devices of type '{device}'", suggestion(device, known) or f"one of {', '.join(known)}")
    schemas = SCHEMAS if device == EVERY else {device: SCHEMAS[device]}
    return [{"device": kind} | _item(key) for kind, schema in schemas.items() for key in _sorted(schema.keys)]


def _sorted(keys: Iterable[Key]) -> list[Key]:
    """The type first, what users make up last; else as the schema has them."""
    return sorted(keys, key=lambda key: (key.name != "type", key.prefix is not None))


def _item(key: Key) -> Item:
    return {"key": key.name, "default": key.default, "live": key.live, "help": key.help, "refused": key.refused}
