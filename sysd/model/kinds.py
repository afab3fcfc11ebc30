# SPDX-License-Identifier: Apache-2.0
"""What is not for instances of each kind: keys and devices of the other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sysd.model.config import SCHEMA
from sysd.model.devices import nic, proxy
from sysd.model.devices.disk import SEED, is_root, is_seed
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance, Kind

WORDS = {Kind.CONTAINER: "container", Kind.VM: "virtual machine"}
_NODES = "it shows a device node, and a virtual machine has a kernel and devices of its own"
_REFUSED = {
    "unix-char": _NODES,
    "unix-block": "a device of type disk with the node as source gives it a disk",
    "unix-hotplug": _NODES,
    "gpu": "graphics cards can't be given to virtual machines yet",
}
_NICTYPES = ("bridged", "p2p")
_DISK_OF_CONTAINERS = ("propagation", "shift", "raw.mount.options")
_NODES_OWNER = ("uid", "gid", "mode")


def check(instance: Instance, expanded: Instance) -> None:
    """Raise InvalidError or UnsupportedError when an instance has a key of its own, or any device, that is for another
    kind. Keys of profiles that are for others are no harm: profiles are for both."""
    for name in instance.config:
        check_key(expanded.kind, name, instance.name)
    for name, options in expanded.devices.items():
        check_device(expanded.kind, name, options)


def check_key(kind: Kind, name: str, whose: str) -> None:
    only = SCHEMA.find(name).only
    if only and only is not kind:
        raise InvalidError(f"{name}: {whose} is no {WORDS[only]}", "profiles may have it, for others")


def check_device(kind: Kind, name: str, options: Mapping[str, str]) -> None:
    if kind is Kind.VM:
        _check_device(name, options)
    else:
        _check_device_of_container(name, options)


def _check_device_of_container(name: str, options: Mapping[str, str]) -> None:
    if "boot.priority" in options:
        raise UnsupportedError(f"device {name}: boot.priority is for virtual machines")
    if is_seed(options):
        raise UnsupportedError(f"device {name}: {SEED} is for virtual machines", "containers have their seed in place")
    if options["type"] == "tpm":
        raise UnsupportedError(f"device {name}: a TPM is for virtual machines", "containers have the host's kernel")


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
        _refuse(name, options, _DISK_OF_CONTAINERS, "disks of virtual machines")
    if kind == "usb":
        _refuse(name, options, _NODES_OWNER, "virtual machines, which have the device and no node of the host's")


def _refuse(name: str, options: Mapping[str, str], keys: Sequence[str], what: str) -> None:
    for key in keys:
        if key in options:
            raise UnsupportedError(f"device {name}: {key} is not for {what}")
