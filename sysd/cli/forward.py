# SPDX-License-Identifier: Apache-2.0
"""The network forward verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError
from sysd.cli.listing import text
from sysd.cli.output import document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

TARGET = "target_address="
COLUMNS = (
    ("LISTEN ADDRESS", text("listenAddress")),
    ("DESCRIPTION", text("description")),
    ("TARGET ADDRESS", text("targetAddress")),
    ("PORTS", lambda item: " | ".join(_port(one) for one in item.get("ports") or ())),
)


def _port(port: Item) -> str:
    target = f"{port.get('targetAddress')} {port.get('targetPorts') or ''}".strip()
    return f"{port.get('protocol')} {port.get('listenPorts')} to {target}"


def list_all(parsed: Parsed) -> int:
    """``syscont network forward list``"""
    found: list[Item] = client.call("ListForwards", {"network": parsed.args[0]}).get("forwards") or []
    show(found, COLUMNS, parsed, "forward")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont network forward show``"""
    found: Item = client.call("GetForward", _named(parsed)).get("forward") or {}
    return document(found, parsed)


def create(parsed: Parsed) -> int:
    """``syscont network forward create``"""
    description = {"description": parsed.values.get("description")}
    client.call("CreateForward", {**_named(parsed), **_target(parsed), **description})
    return 0


def change(parsed: Parsed) -> int:
    """``syscont network forward set``"""
    client.call("ChangeForward", {**_named(parsed), **_target(parsed)})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont network forward delete``"""
    network, *addresses = parsed.args
    calls = [{"network": network, "listenAddress": address} for address in dict.fromkeys(addresses)]
    return client.call_each("DeleteForward", calls)


def port_add(parsed: Parsed) -> int:
    """``syscont network forward port add``"""
    _, _, protocol, ports, target, *others = parsed.args
    what = {"protocol": protocol, "listenPorts": ports, "targetAddress": target}
    more = {"targetPorts": others[0] if others else None, "description": parsed.values.get("description")}
    client.call("AddForwardPort", {**_named(parsed), **what, **more})
    return 0


def port_remove(parsed: Parsed) -> int:
    """``syscont network forward port remove``"""
    protocol, ports = parsed.args[2:]
    client.call("RemoveForwardPort", {**_named(parsed), "protocol": protocol, "listenPorts": ports})
    return 0


def _named(parsed: Parsed) -> Parameters:
    return {"network": parsed.args[0], "listenAddress": parsed.args[1]}


def _target(parsed: Parsed) -> Parameters:
    """What stands behind network and address, if anything."""
    found: Parameters = {}
    for word in parsed.args[2:]:
        if not word.startswith(TARGET):
            raise CliError(f"unknown forward key {word.partition('=')[0]!r}", f"{TARGET}ADDRESS is all that there is")
        found["targetAddress"] = word.removeprefix(TARGET)
    return found
