# SPDX-License-Identifier: Apache-2.0
"""What is not for instances of each kind: keys and devices of the other one."""

from __future__ import annotations

from collections.abc import Mapping

from sysd.model.config import SCHEMA
from sysd.model.devices import nic, proxy
from sysd.model.devices.disk import is_root
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance, Kind

WORDS = {Kind.CONTAINER: "container", Kind.VM: "virtual machine"}
_NODES = "it shows a device node, and a virtual machine has a kernel and devices of its own"
_REFUSED = {
    "unix-char": _NODES,
    "unix-block": "a device of type disk with the node as source gives it a disk",
    "unix-hotplug": _NODES,
    "usb": "USB devices can't be given to virtual machines yet",
    "gpu": "graphics cards can't be given to virtual machines yet",
}
_NICTYPES = ("bridged", "p2p")
_DISK_ONLY_FOLDERS = ("recursive", "propagation", "shift", "raw.mount.options")


def check(instance: Instance, expanded: Instance) -> None:
    """Raise InvalidError or UnsupportedError when an instance has a key of its own, or any device, that is for another
    kind. Keys of profiles that are for others are no harm: profiles are for both."""
    for name in instance.config:
        only = SCHEMA.find(name).only
        if only and only is not expanded.kind:
            raise InvalidError(f"{name}: {instance.name} is no {WORDS[only]}", "profiles may have it, for others")
    for name, options in expanded.devices.items():
        if expanded.kind is Kind.VM:
            _check_device(name, options)
        elif "boot.priority" in options:
            raise UnsupportedError(f"device {name}: boot.priority is for virtual machines")


def _check_device(name: str, options: Mapping[str, str]) -> None:
    kind = options["type"]
    if why := _REFUSED.get(kind):
        raise UnsupportedError(f"device {name}: type {kind} is not for virtual machines", why)
    if kind == "proxy" and not proxy.translates(options):
        raise UnsupportedError(f"device {name}: only proxies with nat=true are for virtual machines")
    if kind == "nic":
        nictype = nic.nictype(options)
        if nictype not in _NICTYPES:
            why = f"one of {', '.join(_NICTYPES)}, or network"
            raise UnsupportedError(f"device {name}: nictype {nictype} is not for virtual machines", why)
    if kind == "disk" and not is_root(options):
        for key in _DISK_ONLY_FOLDERS:
            if key in options:
                raise UnsupportedError(f"device {name}: {key} is not for disks of virtual machines")
