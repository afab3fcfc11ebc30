# SPDX-License-Identifier: Apache-2.0
"""The snapshot verbs, and copy and move."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import UsageError
from sysd.cli.output import document, out, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Item


def create(parsed: Parsed) -> int:
    """``syscont snapshot create``"""
    name, *snapshot = parsed.args
    operation = client.run_operation(
        "CreateSnapshot",
        {
            "name": name,
            "snapshot": snapshot[0] if snapshot else None,
            "reuse": True if parsed.flag("reuse") else None,
            "expires": 0 if parsed.flag("no-expiry") else None,
            "scheduled": True if parsed.flag("scheduled") else None,
            "stateful": True if parsed.flag("stateful") else None,
        },
    )
    made = (operation.get("result") or {}).get("snapshot")
    if not snapshot and isinstance(made, str):
        out(made + "\n")
    return 0


def restore(parsed: Parsed) -> int:
    """``syscont snapshot restore``"""
    name, snapshot = parsed.args
    stateful = True if parsed.flag("stateful") else None
    client.run_operation("RestoreSnapshot", {"name": name, "snapshot": snapshot, "stateful": stateful})
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont snapshot rename``"""
    name, snapshot, new_name = parsed.args
    client.run_operation("RenameSnapshot", {"name": name, "snapshot": snapshot, "newName": new_name})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont snapshot delete``"""
    name, *snapshots = parsed.args
    calls: list[Parameters] = [{"name": name, "snapshot": each} for each in dict.fromkeys(snapshots)]
    return client.report(client.run_each("DeleteSnapshot", calls))


def list_all(parsed: Parsed) -> int:
    """``syscont snapshot list``"""
    from sysd.cli.listing import text, time

    found = client.call("ListSnapshots", {"name": parsed.args[0]}).get("snapshots")
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    columns = (("NAME", text("name")), ("CREATED", time("created")), ("EXPIRES", time("expires")),
               ("STATEFUL", _stateful))  # fmt: skip
    show(items, columns, parsed, "snapshot")
    return 0


def _stateful(item: Item) -> str:
    return "yes" if item.get("stateful") else "no"


def show_one(parsed: Parsed) -> int:
    """``syscont snapshot show``"""
    name, snapshot = parsed.args
    found = client.call("GetSnapshot", {"name": name, "snapshot": snapshot}).get("snapshot")
    return document(found, parsed)


def copy(parsed: Parsed) -> int:
    """``syscont copy``"""
    source, *name = parsed.args
    if parsed.list("profile") and parsed.flag("no-profiles"):
        raise UsageError("copy: --profile and --no-profiles exclude each other", f"usage: {parsed.verb.usage}")
    if parsed.target_host:
        from sysd.cli.between import copy_between

        return copy_between(parsed, changes(parsed))
    if parsed.flag("refresh"):
        raise UsageError("copy: --refresh is for copies to another host", f"usage: {parsed.verb.usage}")
    if not name:
        raise UsageError("copy: say what the copy is to be called, or the host that it goes to", parsed.verb.usage)
    client.run_operation(
        "CopyInstance",
        {
            "source": source,
            "name": in_project(name[0], parsed.value("target-project") or parsed.project),
            **changes(parsed),
            "instanceOnly": True if parsed.flag("instance-only") else None,
        },
    )
    return 0


def changes(parsed: Parsed) -> Parameters:
    """In what the copy is another than the source."""
    return {
        "config": parsed.pairs("config") or None,
        "devices": _devices(parsed) or None,
        "profiles": [] if parsed.flag("no-profiles") else parsed.list("profile") or None,
        "ephemeral": True if parsed.flag("ephemeral") else None,
        "pool": parsed.value("storage") or None,
    }


def move(parsed: Parsed) -> int:
    """``syscont move``"""
    source, *new_name = parsed.args
    project = parsed.value("target-project")
    if parsed.list("profile") and parsed.flag("no-profiles"):
        raise UsageError("move: --profile and --no-profiles exclude each other", f"usage: {parsed.verb.usage}")
    if parsed.flag("take"):
        if new_name or parsed.target_host or set(parsed.values) - {"take", "project"} or parsed.lists:
            raise UsageError("move: --take is for the name of what has come and nothing else", parsed.verb.usage)
        client.call("TakeInstance", {"name": source})
        return 0
    if parsed.target_host:
        from sysd.cli.between import move_between

        return move_between(parsed, changes(parsed))
    given = {*parsed.values, *parsed.lists} - {"target-project", "project"}
    if given:
        raise UsageError(f"move: --{min(given)} is for moves to another host", f"usage: {parsed.verb.usage}")
    if not new_name and not project:
        raise UsageError("move: say where to: a new name, or --target-project", f"usage: {parsed.verb.usage}")
    target = in_project(new_name[0] if new_name else source.rpartition(":")[2], project)
    client.run_operation("RenameInstance", {"name": source, "newName": target})
    return 0


def in_project(name: str, project: str) -> str:
    """The name, if it does not say its project itself."""
    return f"{project}:{name}" if project and ":" not in name else name


def _devices(parsed: Parsed) -> dict[str, dict[str, str]]:
    """--device NAME,KEY=VALUE,... as LXD has it."""
    devices: dict[str, dict[str, str]] = {}
    for word in parsed.list("device"):
        name, *options = word.split(",")
        for option in options:
            key, equals, value = option.partition("=")
            if not equals or not key:
                raise UsageError(f"--device: not of the form NAME,KEY=VALUE,...: '{word}'")
            devices.setdefault(name, {})[key] = value
        if not options:
            raise UsageError(f"--device: not of the form NAME,KEY=VALUE,...: '{word}'")
    return devices

