# SPDX-License-Identifier: Apache-2.0
"""The project verbs, and which project is the current one."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_key
from sysd.cli.errors import CliError, UsageError
from sysd.cli.listing import text
from sysd.cli.output import document, out, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

SIZES = ("limits.memory", "limits.disk")


def list_all(parsed: Parsed) -> int:
    """``syscont project list``"""

    def name(item: Item) -> str:
        return f"{item.get('name')} (current)" if item.get("name") == parsed.project else str(item.get("name"))

    columns = (
        ("NAME", name if parsed.value("format", "table") == "table" else text("name")),
        ("DESCRIPTION", text("description")),
        ("PROFILES", lambda item: str(len(item.get("profiles") or ())) if item.get("profiles") else "default's"),
        ("INSTANCES", lambda item: str(len(item.get("instances") or ()))),
    )
    show(client.items("ListProjects", "projects"), columns, parsed, "project")
    return 0


def show_one(parsed: Parsed) -> int:
    """``syscont project show``"""
    found = _answer(_named(parsed)).get("project")
    return document(found, parsed)


def info(parsed: Parsed) -> int:
    """``syscont project info``"""
    usage = _answer(_named(parsed)).get("usage") or {}
    found: list[Item] = [{"limit": limit, **numbers} for limit, numbers in sorted(usage.items())]
    columns = (
        ("LIMIT", text("limit")),
        ("MOST", lambda item: _amount(item, "most")),
        ("USED", lambda item: _amount(item, "used")),
    )
    show(found, columns, parsed, "limit")
    return 0


def _amount(item: Item, field: str) -> str:
    if item.get("limit") in SIZES:
        from sysd.model.sizes import format_size

        return format_size(int(item.get(field) or 0))
    return str(item.get(field))


def create(parsed: Parsed) -> int:
    """``syscont project create``"""
    from sysd.cli.remotes import exists

    if exists(parsed.args[0]):
        hint = f"{parsed.args[0]}:INSTANCE names what is on it; choose another name"
        raise UsageError(f"{parsed.args[0]} is a host that you know", hint)
    parameters = {"config": parsed.pairs("config") or None, "description": parsed.values.get("description")}
    client.call("CreateProject", {"name": parsed.args[0], **parameters})
    return 0


def get(parsed: Parsed) -> int:
    """``syscont project get``"""
    name, key = parsed.args
    return print_key((_answer(name).get("project") or {}).get("config") or {}, key, "project")


def set_keys(parsed: Parsed) -> int:
    """``syscont project set``"""
    client.call("ChangeProject", {"name": parsed.args[0], "set": assignments(parsed, parsed.args[1:], "project")})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont project unset``"""
    client.call("ChangeProject", {"name": parsed.args[0], "unset": parsed.args[1:]})
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont project rename``"""
    name, new_name = parsed.args
    client.call("RenameProject", {"name": name, "newName": new_name})
    if client.remembered_project() == name:
        _remember(new_name)
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont project delete``"""
    errors = []
    for name in dict.fromkeys(parsed.args):
        try:
            client.call("DeleteProject", {"name": name})
        except CliError as error:
            errors.append(error)
        else:
            if client.remembered_project() == name:
                _remember("default")
    return client.report(errors)


def switch(parsed: Parsed) -> int:
    """``syscont project switch``"""
    name = parsed.args[0]
    client.call("GetProject", {"name": name})
    _remember(name)
    return 0


def current(parsed: Parsed) -> int:
    """``syscont project current``"""
    out(parsed.project + "\n")
    return 0


def _named(parsed: Parsed) -> str:
    return parsed.args[0] if parsed.args else parsed.project


def _answer(name: str) -> Parameters:
    return client.call("GetProject", {"name": name})


def _remember(name: str) -> None:
    from sysd.cli.remotes import remember

    remember(client.project_file(), name)
