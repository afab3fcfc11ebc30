# SPDX-License-Identifier: Apache-2.0
"""Verbs that change what instances do, one or many at a time."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed

STOPPED = ("stopped", "failed")
RUNNING = ("running", "degraded")
ALIVE = ("starting", *RUNNING, "frozen", "unresponsive")
FROZEN = ("frozen",)


def start(parsed: Parsed) -> int:
    """``syscont start``"""
    return _each("StartInstance", _names(parsed, STOPPED), _starting(parsed))


def stop(parsed: Parsed) -> int:
    """``syscont stop``"""
    return _each("StopInstance", _names(parsed, ALIVE), {**_stopping(parsed), "stateful": _true(parsed, "stateful")})


def restart(parsed: Parsed) -> int:
    """``syscont restart``"""
    return _each("RestartInstance", _names(parsed, RUNNING), {**_stopping(parsed), **_starting(parsed)})


def pause(parsed: Parsed) -> int:
    """``syscont pause``"""
    return _each("PauseInstance", _names(parsed, RUNNING), {})


def resume(parsed: Parsed) -> int:
    """``syscont resume``"""
    return _each("ResumeInstance", _names(parsed, FROZEN), {})


def delete(parsed: Parsed) -> int:
    """``syscont delete``; NAME/SNAPSHOT is a snapshot, as in LXD"""
    snapshots = [name for name in parsed.args if "/" in name]
    errors = client.run_each("DeleteSnapshot", [_snapshot(name) for name in dict.fromkeys(snapshots)])
    names = [name for name in parsed.args if "/" not in name]
    return client.report(errors) or _each("DeleteInstance", names, {"force": _true(parsed, "force")})


def rename(parsed: Parsed) -> int:
    """``syscont rename``"""
    name, new_name = parsed.args
    if "/" in name:
        # As lxc has it: web1/snap0 web1/good.
        new_name = new_name.removeprefix(name.partition("/")[0] + "/")
        client.run_operation("RenameSnapshot", {**_snapshot(name), "newName": new_name})
        return 0
    client.run_operation("RenameInstance", {"name": name, "newName": new_name})
    return 0


def _snapshot(name: str) -> Parameters:
    instance, _, snapshot = name.partition("/")
    return {"name": instance, "snapshot": snapshot}


def _true(parsed: Parsed, name: str) -> bool | None:
    return True if parsed.flag(name) else None


def _starting(parsed: Parsed) -> Parameters:
    return {"wait": _true(parsed, "wait"), "stateless": _true(parsed, "stateless")}


def _stopping(parsed: Parsed) -> Parameters:
    return {"timeout": parsed.number("timeout"), "force": _true(parsed, "force")}


def _names(parsed: Parsed, states: Collection[str]) -> list[str]:
    """The instances that a verb is to act on; with --all, those in one of states."""
    verb = parsed.verb
    if not parsed.flag("all"):
        if not parsed.args:
            raise UsageError(f"{verb.name}: name the instances, or say --all", f"usage: {verb.usage}")
        return parsed.args
    if parsed.args:
        raise UsageError(f"{verb.name}: names and --all exclude each other", f"usage: {verb.usage}")
    return [
        parsed.qualified(str(item["name"]))
        for item in client.items("ListInstances", "instances")
        if item.get("state") in states and (item.get("project") or "default") == parsed.project
    ]


def _each(method: str, names: list[str], parameters: Parameters) -> int:
    unique = list(dict.fromkeys(names))
    return client.report(client.run_each(method, [{"name": name, **parameters} for name in unique]))
