# SPDX-License-Identifier: Apache-2.0
"""The network acl verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_key
from sysd.cli.listing import text
from sysd.cli.output import document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

COLUMNS = (
    ("NAME", text("name")),
    ("DESCRIPTION", text("description")),
    ("INGRESS", lambda item: str(len(item.get("ingress") or ()))),
    ("EGRESS", lambda item: str(len(item.get("egress") or ()))),
    ("USED BY", lambda item: str(len(item.get("usedBy") or ()))),
)


def list_all(parsed: Parsed) -> int:
    """``syscont network acl list``"""
    show(client.items("ListAcls", "acls"), COLUMNS, parsed, "ACL")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont network acl show``"""
    found = _acl(parsed.args[0])
    return document(found, parsed)


def create(parsed: Parsed) -> int:
    """``syscont network acl create``"""
    name, *words = parsed.args
    config = assignments(parsed, words, "acls") if words else None
    client.call("CreateAcl", {"name": name, "config": config, "description": parsed.values.get("description")})
    return 0


def get(parsed: Parsed) -> int:
    """``syscont network acl get``"""
    name, key = parsed.args
    return print_key(_acl(name).get("config") or {}, key, "acls")


def set_keys(parsed: Parsed) -> int:
    """``syscont network acl set``"""
    client.call("ChangeAcl", {"name": parsed.args[0], "set": assignments(parsed, parsed.args[1:], "acls")})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont network acl unset``"""
    client.call("ChangeAcl", {"name": parsed.args[0], "unset": parsed.args[1:]})
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont network acl rename``"""
    name, new_name = parsed.args
    client.call("RenameAcl", {"name": name, "newName": new_name})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont network acl delete``"""
    return client.call_each("DeleteAcl", [{"name": name} for name in dict.fromkeys(parsed.args)])


def rule_add(parsed: Parsed) -> int:
    """``syscont network acl rule add``"""
    client.call("AddAclRule", _rule(parsed))
    return 0


def rule_remove(parsed: Parsed) -> int:
    """``syscont network acl rule remove``"""
    client.call("RemoveAclRule", {**_rule(parsed), "force": parsed.flag("force") or None})
    return 0


def _rule(parsed: Parsed) -> Parameters:
    name, direction, *words = parsed.args
    return {"name": name, "direction": direction, "rule": assignments(parsed, words, "")}


def _acl(name: str) -> Item:
    found = client.call("GetAcl", {"name": name}).get("acl")
    return found if isinstance(found, dict) else {}
