# SPDX-License-Identifier: Apache-2.0
"""The profile verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_key
from sysd.cli.errors import UsageError
from sysd.cli.listing import text
from sysd.cli.output import document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed
    from sysd.cli.output import Column, Item

    Device = dict[str, str]

COLUMNS = (
    ("NAME", text("name")),
    ("DESCRIPTION", text("description")),
    ("USED BY", lambda item: str(len(item.get("usedBy") or ()))),
)


def list_all(parsed: Parsed) -> int:
    """``syscont profile list``"""
    found = client.items("ListProfiles", "profiles")
    columns: list[Column] = list(COLUMNS)
    if parsed.flag("all-projects"):
        columns.insert(0, ("PROJECT", text("project")))
    else:
        home = _home(parsed.project)
        found = [item for item in found if item.get("project") == home]
    show(found, columns, parsed, "profile")
    return 0


def _home(project: str) -> str:
    """The project whose profiles those of project are."""
    if project == "default":
        return project
    found = client.call("GetProject", {"name": project}).get("project") or {}
    return project if found.get("profiles") else "default"


def show_one(parsed: Parsed) -> int:
    """``syscont profile show``"""
    name = parsed.args[0]
    found = {**_profile(name), "config": _config(name)}
    return document(found, parsed)


def create(parsed: Parsed) -> int:
    """``syscont profile create``"""
    parameters = {"config": parsed.pairs("config") or None, "description": parsed.values.get("description")}
    client.call("CreateProfile", {"name": parsed.args[0], **parameters})
    return 0


def get(parsed: Parsed) -> int:
    """``syscont profile get``"""
    name, key = parsed.args
    return print_key(_config(name), key)


def set_keys(parsed: Parsed) -> int:
    """``syscont profile set``"""
    client.call("ChangeProfile", {"name": parsed.args[0], "set": assignments(parsed, parsed.args[1:])})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont profile unset``"""
    client.call("ChangeProfile", {"name": parsed.args[0], "unset": parsed.args[1:]})
    return 0


def copy(parsed: Parsed) -> int:
    """``syscont profile copy``"""
    name, new_name = parsed.args
    client.call("CopyProfile", {"name": name, "newName": new_name})
    return 0


def rename(parsed: Parsed) -> int:
    """``syscont profile rename``"""
    name, new_name = parsed.args
    client.call("RenameProfile", {"name": name, "newName": new_name})
    return 0


def delete(parsed: Parsed) -> int:
    """``syscont profile delete``"""
    return client.call_each("DeleteProfile", [{"name": name} for name in dict.fromkeys(parsed.args)])


# devices


def device_list(parsed: Parsed) -> int:
    """``syscont profile device list``"""
    devices = _devices(parsed.args[0])
    found: list[Item] = [{"name": name, **options} for name, options in sorted(devices.items())]
    columns = (("NAME", text("name")), ("TYPE", text("type")), ("OPTIONS", _options))
    show(found, columns, parsed, "device")
    return 0


def _options(item: Item) -> str:
    return "\n".join(f"{key}={value}" for key, value in sorted(item.items()) if key not in ("name", "type"))


def device_add(parsed: Parsed) -> int:
    """``syscont profile device add``"""
    name, device, kind, *words = parsed.args
    options = {"type": kind, **assignments(parsed, words, "")}
    client.call("AddProfileDevice", {"name": name, "device": device, "options": options})
    return 0


def device_set(parsed: Parsed) -> int:
    """``syscont profile device set``"""
    name, device, *words = parsed.args
    client.call("ChangeProfileDevice", {"name": name, "device": device, "set": assignments(parsed, words, "")})
    return 0


def device_unset(parsed: Parsed) -> int:
    """``syscont profile device unset``"""
    name, device, *keys = parsed.args
    client.call("ChangeProfileDevice", {"name": name, "device": device, "unset": keys})
    return 0


def device_remove(parsed: Parsed) -> int:
    """``syscont profile device remove``"""
    client.call("ChangeProfile", {"name": parsed.args[0], "removeDevices": parsed.args[1:]})
    return 0


# of instances


def assign(parsed: Parsed) -> int:
    """``syscont profile assign``"""
    name, *words = parsed.args
    profiles = [profile for word in words for profile in word.split(",") if profile]
    client.call("UpdateInstance", {"name": name, "profiles": _plain(profiles)})
    return 0


def add(parsed: Parsed) -> int:
    """``syscont profile add``"""
    name, *profiles = parsed.args
    client.call("ChangeProfiles", {"name": name, "add": _plain(profiles)})
    return 0


def remove(parsed: Parsed) -> int:
    """``syscont profile remove``"""
    name, *profiles = parsed.args
    client.call("ChangeProfiles", {"name": name, "remove": _plain(profiles)})
    return 0


def _plain(profiles: list[str]) -> list[str]:
    if qualified := next((profile for profile in profiles if ":" in profile), ""):
        raise UsageError(f"a profile is named without its project: {qualified!r}", "it is the instance's")
    return profiles


def _profile(name: str) -> Parameters:
    found = client.call("GetProfile", {"name": name}).get("profile")
    return found if isinstance(found, dict) else {}


def _config(name: str) -> Parameters:
    """All of it: that of a profile leaves out what is private."""
    return client.call("GetProfileConfig", {"name": name}).get("config") or {}


def _devices(name: str) -> dict[str, Device]:
    return _profile(name).get("devices") or {}
