# SPDX-License-Identifier: Apache-2.0
"""The network zone verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_key
from sysd.cli.listing import text
from sysd.cli.output import document, say, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

COLUMNS = (
    ("NAME", text("name")),
    ("PROJECT", text("project")),
    ("DESCRIPTION", text("description")),
    ("SERIAL", text("serial")),
    ("USED BY", lambda item: str(len(item.get("usedBy") or ()))),
)
RECORD_COLUMNS = (
    ("NAME", text("name")),
    ("DESCRIPTION", text("description")),
    ("ENTRIES", lambda item: " | ".join(_entry(one) for one in item.get("entries") or ())),
)


def _entry(entry: Item) -> str:
    return f"{entry.get('type')} {entry.get('value')} {entry.get('ttl')}"


def list_all(parsed: Parsed) -> int:
    """``syscont network zone list``"""
    show(client.items("ListZones", "zones"), COLUMNS, parsed, "zone")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont network zone show``"""
    return document(_zone(parsed.args[0]), parsed)


def create(parsed: Parsed) -> int:
    """``syscont network zone create``"""
    name, *words = parsed.args
    config = parsed.pairs("config") | (assignments(parsed, words, "zones") if words else {})
    project = parsed.project if parsed.project != "default" else None
    parameters = {
        "project": project,
        "config": config or None,
        "description": parsed.values.get("description"),
    }
    client.call("CreateZone", {"name": name, **parameters})
    if not any(key.startswith("peers.") for key in config):
        say(f"{name} answers nobody before it has a peer: syscont network zone set {name} peers.NAME.address=ADDRESS")
    return 0


def get(parsed: Parsed) -> int:
    """``syscont network zone get``"""
    name, key = parsed.args
    return print_key(client.call("GetZoneConfig", {"name": name}).get("config") or {}, key, "zones")


def set_keys(parsed: Parsed) -> int:
    """``syscont network zone set``"""
    client.call("ChangeZone", {"name": parsed.args[0], "set": assignments(parsed, parsed.args[1:], "zones")})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont network zone unset``"""
    client.call("ChangeZone", {"name": parsed.args[0], "unset": parsed.args[1:]})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont network zone delete``"""
    return client.call_each("DeleteZone", [{"name": name} for name in dict.fromkeys(parsed.args)])


# records


def record_list(parsed: Parsed) -> int:
    """``syscont network zone record list``"""
    found: list[Item] = client.call("ListZoneRecords", {"zone": parsed.args[0]}).get("records") or []
    show(found, RECORD_COLUMNS, parsed, "record")
    return 0


def record_show(parsed: Parsed) -> int:
    """``syscont network zone record show``"""
    zone, name = parsed.args
    return document(client.call("GetZoneRecord", {"zone": zone, "name": name}).get("record") or {}, parsed)


def record_create(parsed: Parsed) -> int:
    """``syscont network zone record create``"""
    zone, name = parsed.args
    client.call("CreateZoneRecord", {"zone": zone, "name": name, "description": parsed.values.get("description")})
    return 0


def record_delete(parsed: Parsed) -> int:
    """``syscont network zone record delete``"""
    zone, *found = parsed.args
    return client.call_each("DeleteZoneRecord", [{"zone": zone, "name": name} for name in dict.fromkeys(found)])


def entry_add(parsed: Parsed) -> int:
    """``syscont network zone record entry add``"""
    zone, name, kind, value = parsed.args
    ttl = parsed.number("ttl")
    client.call("AddZoneEntry", {"zone": zone, "name": name, "type": kind, "value": value, "ttl": ttl})
    return 0


def entry_remove(parsed: Parsed) -> int:
    """``syscont network zone record entry remove``"""
    zone, name, kind, value = parsed.args
    client.call("RemoveZoneEntry", {"zone": zone, "name": name, "type": kind, "value": value})
    return 0


def _zone(name: str) -> Parameters:
    found = client.call("GetZone", {"name": name}).get("zone")
    return found if isinstance(found, dict) else {}
