# SPDX-License-Identifier: Apache-2.0
"""Disks: folders and files of the host, and limits on what is read from and written to them."""

from __future__ import annotations

from collections.abc import Mapping

from dbus_next import Variant

from sysd import _cext as c
from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.disk import io_limit, is_root, is_seed, mount_options
from sysd.runtime.spec import Share
from sysd.units.systemd import Properties

ROOT_SOURCE = "/var/lib/syscont"
_ATTRIBUTES = {
    "ro": c.ATTR_RDONLY,
    "nosuid": c.ATTR_NOSUID,
    "nodev": c.ATTR_NODEV,
    "noexec": c.ATTR_NOEXEC,
    "noatime": c.ATTR_NOATIME,
    "strictatime": c.ATTR_STRICTATIME,
    "nodiratime": c.ATTR_NODIRATIME,
    "nosymfollow": c.ATTR_NOSYMFOLLOW,
}
_LIMITS = {
    ("limits.read", False): "IOReadBandwidthMax",
    ("limits.read", True): "IOReadIOPSMax",
    ("limits.write", False): "IOWriteBandwidthMax",
    ("limits.write", True): "IOWriteIOPSMax",
}


def shares(name: str, options: Mapping[str, str]) -> list[Share]:
    """None for the root file system, which the launcher makes."""
    if is_root(options):
        return []
    schema = SCHEMAS["disk"]
    # Nodes on the host's file systems are not what a disk is for; the device types are.
    attributes = c.ATTR_NODEV
    for word in mount_options(schema.text(options, "raw.mount.options")):
        attributes |= _ATTRIBUTES.get(word, 0)
    if schema.boolean(options, "readonly"):
        attributes |= c.ATTR_RDONLY
    return [
        Share(
            device=name,
            path=options["path"],
            source=options["source"],
            required=schema.boolean(options, "required") and not schema.boolean(options, "optional"),
            recursive=schema.boolean(options, "recursive"),
            shift=schema.boolean(options, "shift"),
            slave=schema.text(options, "propagation") in ("slave", "rslave"),
            attributes=attributes,
        )
    ]


def io_properties(devices: Mapping[str, Mapping[str, str]]) -> Properties:
    """Limits of disks as unit properties. systemd finds the block device below each path by itself."""
    rows: dict[str, list[list[object]]] = {name: [] for name in _LIMITS.values()}
    for options in devices.values():
        if options["type"] != "disk" or is_seed(options):
            continue
        source = ROOT_SOURCE if is_root(options) else options["source"]
        for key in ("limits.read", "limits.write"):
            if text := options.get(key) or options.get("limits.max"):
                number, operations = io_limit(text)
                rows[_LIMITS[key, operations]].append([source, number])
    return {name: Variant("a(st)", found) for name, found in rows.items()}
