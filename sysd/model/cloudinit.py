# SPDX-License-Identifier: Apache-2.0
"""What cloud-init in a guest is told, made from an expanded instance: files of its NoCloud data source, which are
those that the templates of LXD's own images make.

Sources: cloud-init's reference (NoCloud, LXD), LXD's documentation of cloud-init and its image templates.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from sysd.model.devices.disk import is_seed
from sysd.model.instance import Instance, Kind, hardware_address

SEED = "/var/lib/cloud/seed/nocloud-net/"
_TOLD = ("user.user-data", "user.vendor-data", "user.network-config", "user.meta-data", "user.network_mode")
EMPTY = "#cloud-config\n{}\n"


def data(config: Mapping[str, str], kind: str) -> str:
    """User-data, vendor-data or network-config: by the key of today, or by the one of old if that is not set."""
    return config.get(f"cloud-init.{kind}") or config.get(f"user.{kind}", "")


def instance_id(instance: Instance) -> str:
    """cloud-init sets a guest up once per id: another one for each instance, and when what it is told changes."""
    told = [data(instance.config, kind) for kind in ("user-data", "vendor-data", "network-config")]
    told.append(instance.config.get("user.meta-data", ""))
    return str(uuid.uuid5(uuid.UUID(instance.uuid), json.dumps(told)))


def meta_data(instance: Instance) -> str:
    # JSON strings are YAML's, and can't be taken for a number or a boolean.
    known = {"instance-id": instance_id(instance), "local-hostname": instance.name}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in known.items()]
    return "#cloud-config\n" + "".join(lines) + instance.config.get("user.meta-data", "")


def network_config(instance: Instance) -> str:
    """Interfaces of a virtual machine are found by their addresses, and given the names that they have here: how its
    kernel calls them is not known."""
    if given := data(instance.config, "network-config"):
        return given
    kind = "manual" if instance.config.get("user.network_mode") == "link-local" else "dhcp"
    interfaces = [
        {"type": "physical", "name": device.get("name", name), "subnets": [{"type": kind, "control": "auto"}]}
        | ({"mac_address": hardware_address(instance, name)} if instance.kind is Kind.VM else {})
        for name, device in instance.devices.items()
        if device["type"] == "nic"
    ]
    return json.dumps({"version": 1, "config": interfaces}) + "\n"


def wants_disk(instance: Instance) -> bool:
    """Whether a virtual machine is told anything, or is to have the disk on which it would be."""
    told = any(key.startswith("cloud-init.") or key in _TOLD for key in instance.config)
    return told or any(map(is_seed, instance.devices.values()))


def seed(instance: Instance) -> dict[str, str]:
    """The files of /var/lib/cloud/seed/nocloud-net."""
    return {
        "meta-data": meta_data(instance),
        "user-data": data(instance.config, "user-data") or EMPTY,
        "vendor-data": data(instance.config, "vendor-data") or EMPTY,
        "network-config": network_config(instance),
    }
