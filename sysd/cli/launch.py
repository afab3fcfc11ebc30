# SPDX-License-Identifier: Apache-2.0
"""launch and create: a new instance from an image."""

from __future__ import annotations

from sysd.cli import client
from sysd.cli.errors import CliError, UsageError
from sysd.cli.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysd.cli.client import Parameters
    from sysd.cli.options import Parsed

ATTEMPTS = 8


def launch(parsed: Parsed) -> int:
    """``syscont launch``"""
    return _make(parsed, {"start": True, "wait": True if parsed.flag("wait") else None})


def create(parsed: Parsed) -> int:
    """``syscont create``"""
    return _make(parsed, {})


def _make(parsed: Parsed, parameters: Parameters) -> int:
    parameters = {
        "image": parsed.args[0],
        "config": parsed.pairs("config") or None,
        "ephemeral": True if parsed.flag("ephemeral") else None,
        "vm": True if parsed.flag("vm") else None,
        "profiles": _profiles(parsed),
        "devices": _devices(parsed) or None,
        **parameters,
    }
    if len(parsed.args) > 1:
        name = parsed.args[1]
        client.run_operation("CreateInstance", {"name": parsed.qualified(name), **parameters})
    else:
        name = _make_named_by_us(parsed, parameters)
    out(name + "\n")
    return 0


def _profiles(parsed: Parsed) -> list[str] | None:
    """In order; None leaves it to the daemon, which gives the default one."""
    named = parsed.list("profile")
    if parsed.flag("no-profiles"):
        if named:
            raise UsageError("--profile and --no-profiles exclude each other")
        return []
    return named or None


def _devices(parsed: Parsed) -> dict[str, dict[str, str]]:
    """Those of --network and --device; syscontd adds what profiles say to what has no type."""
    devices: dict[str, dict[str, str]] = {}
    if network := parsed.value("network"):
        devices["eth0"] = {"type": "nic", "network": network, "name": "eth0"}
    for word in parsed.list("device"):
        name, *options = _split(word)
        if not options:
            raise UsageError(f"--device: no KEY=VALUE after a name: '{name}'", "--device DEVICE,KEY=VALUE...")
        for option in options:
            key, _, value = option.partition("=")
            devices.setdefault(name, {})[key] = value
    return devices


def _split(device: str) -> list[str]:
    """At commas that a key comes after: values may have commas in them, too."""
    import re

    return re.split(",(?=[^,=]+=)", device)


def _make_named_by_us(parsed: Parsed, parameters: Parameters) -> str:
    from sysd.cli.petnames import random_name

    for _ in range(ATTEMPTS):
        name = random_name()
        try:
            client.run_operation("CreateInstance", {"name": parsed.qualified(name), **parameters})
        except CliError as error:
            if error.name != "AlreadyExists":
                raise
        else:
            return name
    raise CliError("found no name that is free", "give one: syscont launch IMAGE NAME")
