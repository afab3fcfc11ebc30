# SPDX-License-Identifier: Apache-2.0
"""What an instance may know of itself. Nothing in it names things of the host or of other instances, but for what the
administrator wrote for the guest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sysd.model.instance import Instance, hardware_address

CONFIG = ("cloud-init.", "user.")
OPTIONS = frozenset(
    (
        *("type", "name", "hwaddr", "mtu", "ipv4.address", "ipv6.address"),
        *("path", "readonly", "mode", "uid", "gid", "major", "minor", "vendorid", "productid"),
    )
)
"""Of devices: what can be seen from inside anyhow. Sources, networks and addresses of the host stay out."""

Devices = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class View:
    config: dict[str, str]
    devices: Devices


@dataclass(frozen=True, slots=True)
class Change:
    """kind: config or device; action: added, changed or removed; values are texts of keys and options of devices."""

    kind: str
    action: str
    name: str
    before: Any = None
    after: Any = None


def view(instance: Instance) -> View:
    """Of an expanded instance."""
    config = {key: value for key, value in instance.config.items() if key.startswith(CONFIG)}
    devices = {name: _shown(options) for name, options in instance.devices.items()}
    for name, device in devices.items():
        if device["type"] == "nic" and (address := hardware_address(instance, name)):
            device["hwaddr"] = address
    return View(config, devices)


def _shown(options: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if key in OPTIONS or key.startswith("user.")}


def changes(before: View, after: View) -> list[Change]:
    config = _differences("config", before.config, after.config)
    return [*config, *_differences("device", before.devices, after.devices)]


def _differences(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Change(kind, "added" if old is None else "removed" if new is None else "changed", name, old, new)
