# SPDX-License-Identifier: Apache-2.0
"""The network peer verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.listing import text
from sysd.cli.output import document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

COLUMNS = (
    ("NAME", text("name")),
    ("DESCRIPTION", text("description")),
    ("PEER", text("targetNetwork")),
    ("STATE", text("status")),
)


def list_all(parsed: Parsed) -> int:
    """``syscont network peer list``"""
    found: list[Item] = client.call("ListPeers", {"network": parsed.args[0]}).get("peers") or []
    show(found, COLUMNS, parsed, "peer")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont network peer show``"""
    network, name = parsed.args
    found: Item = client.call("GetPeer", {"network": network, "name": name}).get("peer") or {}
    return document(found, parsed)


def create(parsed: Parsed) -> int:
    """``syscont network peer create``"""
    network, name, target = parsed.args
    description = {"description": parsed.values.get("description")}
    client.call("CreatePeer", {"network": network, "name": name, "targetNetwork": target, **description})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont network peer delete``"""
    network, *names = parsed.args
    return client.call_each("DeletePeer", [{"network": network, "name": name} for name in dict.fromkeys(names)])
