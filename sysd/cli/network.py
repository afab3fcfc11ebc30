# SPDX-License-Identifier: Apache-2.0
"""The network verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_key
from sysd.cli.errors import NOT_FOUND, CliError, UsageError
from sysd.cli.listing import text
from sysd.cli.output import document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

COLUMNS = (
    ("NAME", text("name")),
    ("TYPE", text("type")),
    ("IPV4", text("ipv4")),
    ("IPV6", text("ipv6")),
    ("DESCRIPTION", text("description")),
    ("USED BY", lambda item: str(len(item.get("usedBy") or ()) + len(item.get("profiles") or ()))),
)
LEASE_COLUMNS = (
    ("HOSTNAME", text("hostname")),
    ("MAC ADDRESS", text("hwaddr")),
    ("IP ADDRESS", text("address")),
    ("TYPE", text("type")),
)


def list_all(parsed: Parsed) -> int:
    """``syscont network list``"""
    show(client.items("ListNetworks", "networks"), COLUMNS, parsed, "network")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont network show``"""
    return document(_network(parsed.args[0]), parsed)


def info(parsed: Parsed) -> int:
    """``syscont network info``"""
    if parsed.flag("acceleration") == bool(parsed.args):
        raise UsageError("network info: it takes one of NETWORK and --acceleration", f"usage: {parsed.verb.usage}")
    if not parsed.args:
        return document(client.call("GetAcceleration", {}).get("acceleration") or {}, parsed)
    state = client.call("GetNetworkState", {"name": parsed.args[0]}).get("state") or {}
    return document({"name": parsed.args[0], **state}, parsed)


def list_leases(parsed: Parsed) -> int:
    """``syscont network list-leases``"""
    found: list[Item] = client.call("ListLeases", {"name": parsed.args[0]}).get("leases") or []
    show(found, LEASE_COLUMNS, parsed, "lease")
    return 0


def create(parsed: Parsed) -> int:
    """``syscont network create``"""
    name, *words = parsed.args
    config = parsed.pairs("config") | (assignments(parsed, words, "network") if words else {})
    parameters = {
        "type": parsed.values.get("type"),
        "config": config or None,
        "description": parsed.values.get("description"),
    }
    client.call("CreateNetwork", {"name": name, **parameters})
    return 0


def get(parsed: Parsed) -> int:
    """``syscont network get``"""
    name, key = parsed.args
    return print_key(_network(name).get("config") or {}, key, "network")


def set_keys(parsed: Parsed) -> int:
    """``syscont network set``"""
    client.call("ChangeNetwork", {"name": parsed.args[0], "set": assignments(parsed, parsed.args[1:], "network")})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont network unset``"""
    client.call("ChangeNetwork", {"name": parsed.args[0], "unset": parsed.args[1:]})
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont network rename``"""
    name, new_name = parsed.args
    client.call("RenameNetwork", {"name": name, "newName": new_name})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont network delete``"""
    return client.call_each("DeleteNetwork", [{"name": name} for name in dict.fromkeys(parsed.args)])


def attach(parsed: Parsed) -> int:
    """``syscont network attach``"""
    network, instance, *words = parsed.args
    _network(network)
    name = words[0] if words else network
    if name in _devices(instance):
        raise CliError(f"{instance} has a device '{name}' already", "name another: NETWORK INSTANCE DEVICE")
    options = {"type": "nic", "network": network}
    if len(words) > 1:
        options["name"] = words[1]
    client.call("ChangeDevices", {"name": instance, "set": {name: options}})
    return 0


def detach(parsed: Parsed) -> int:
    """``syscont network detach``"""
    network, instance, *words = parsed.args
    devices = _devices(instance)
    found = [name for name, options in devices.items() if options.get("network") == network]
    if words:
        found = [name for name in found if name == words[0]]
    if not found:
        raise CliError(f"{instance} has no such device of its own in network '{network}'",
                       f"see 'syscont device list {instance}'", NOT_FOUND)  # fmt: skip
    if len(found) > 1:
        raise CliError(f"{instance} has several devices in network '{network}'", f"name one of {', '.join(found)}")
    client.call("ChangeDevices", {"name": instance, "unset": found})
    return 0


def _devices(instance: str) -> dict[str, dict[str, str]]:
    return (client.call("GetInstance", {"name": instance}).get("instance") or {}).get("devices") or {}


def _network(name: str) -> Parameters:
    found = client.call("GetNetwork", {"name": name}).get("network")
    return found if isinstance(found, dict) else {}
