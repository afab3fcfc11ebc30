# SPDX-License-Identifier: Apache-2.0
"""Profiles: configuration and devices that instances have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sysd.model import names
from sysd.model.devices.nic import with_chosen
from sysd.model.instance import Instance
from sysd.model.network import DEFAULT_NETWORK

DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    project: str = names.DEFAULT_PROJECT
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """How doors name it: without the project in the default one."""
        return names.qualified(self.project, self.name)


def default_profile() -> Profile:
    """What new installations have: a root file system, and an interface in the default network."""
    devices = {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "network": DEFAULT_NETWORK, "name": "eth0"},
    }
    return Profile(DEFAULT_PROFILE, description="What instances have unless they say otherwise", devices=devices)


def expand(instance: Instance, profiles: Iterable[Profile], defaults: Mapping[str, str]) -> Instance:
    """The instance with all that its profiles, in order, give it: later ones win over earlier ones and over defaults,
    its own values over all; a device is taken as a whole, and one of type none hides those of its name."""
    config = dict(defaults)
    devices: dict[str, dict[str, str]] = {}
    for each in profiles:
        config |= each.config
        devices |= each.devices
    devices |= instance.devices
    shown = {
        name: with_chosen(name, options, instance.config) if options.get("type") == "nic" else dict(options)
        for name, options in devices.items()
        if options.get("type") != "none"
    }
    return replace(instance, config=config | instance.config, devices=shown)
