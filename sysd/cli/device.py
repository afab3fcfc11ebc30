# SPDX-License-Identifier: Apache-2.0
"""The device verbs."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.config import assignments, print_value
from sysd.cli.errors import NOT_FOUND, CliError
from sysd.cli.output import document
from sysd.cli.output import show as show_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysd.cli.options import Parsed
    from sysd.cli.output import Item

    Devices = dict[str, dict[str, str]]


def add(parsed: Parsed) -> int:
    """``syscont device add``"""
    name, device, kind, *words = parsed.args
    return _add(name, device, {"type": kind, **assignments(parsed, words, "")})


def override(parsed: Parsed) -> int:
    """``syscont device override``"""
    name, device, *words = parsed.args
    return _add(name, device, assignments(parsed, words, ""))


def set_options(parsed: Parsed) -> int:
    """``syscont device set``"""
    name, device, *words = parsed.args
    client.call("ChangeDevice", {"name": name, "device": device, "set": assignments(parsed, words, "")})
    return 0


def unset(parsed: Parsed) -> int:
    """``syscont device unset``"""
    name, device, *keys = parsed.args
    client.call("ChangeDevice", {"name": name, "device": device, "unset": keys})
    return 0


def get(parsed: Parsed) -> int:
    """``syscont device get``"""
    name, device, key = parsed.args
    devices = _devices(name, "expandedDevices")
    if device not in devices:
        raise CliError(f"{name} has no device '{device}'", f"syscont device list {name}", NOT_FOUND)
    if key in devices[device]:
        print_value(str(devices[device][key]))
    return 0


def remove(parsed: Parsed) -> int:
    """``syscont device remove``"""
    name, *devices = parsed.args
    client.call("ChangeDevices", {"name": name, "unset": devices})
    return 0


def list_devices(parsed: Parsed) -> int:
    """``syscont device list``"""
    name = parsed.args[0]
    own = _devices(name)
    found: list[Item] = [
        {"name": device, "type": options.get("type", ""), "own": device in own, "options": options}
        for device, options in sorted({**_devices(name, "expandedDevices"), **own}.items())
    ]
    columns = (
        ("NAME", lambda item: str(item["name"])),
        ("TYPE", lambda item: str(item["type"])),
        ("FROM", lambda item: "instance" if item["own"] else "profile"),
        ("OPTIONS", lambda item: "\n".join(_words(item["options"]))),
    )
    show_list(found, columns, parsed, "device")
    return 0


def show(parsed: Parsed) -> int:
    """``syscont device show``"""
    devices = _devices(parsed.args[0])
    return document(devices, parsed)


def _words(options: dict[str, str]) -> Iterable[str]:
    return (f"{key}={value}" for key, value in sorted(options.items()) if key != "type")


def _add(name: str, device: str, options: dict[str, str]) -> int:
    client.call("AddDevice", {"name": name, "device": device, "options": options})
    return 0


def _devices(name: str, field: str = "devices") -> Devices:
    instance = client.call("GetInstance", {"name": name}).get("instance")
    found = instance.get(field) if isinstance(instance, dict) else None
    return found if isinstance(found, dict) else {}

