# SPDX-License-Identifier: Apache-2.0
"""What is not for instances of each kind: keys and devices of the other one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sysd.model.config import SCHEMA, get_bool
from sysd.model.devices import nic, proxy
from sysd.model.devices.disk import SEED, is_root, is_seed
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import Instance, Kind

WORDS = {Kind.CONTAINER: "container", Kind.VM: "virtual machine"}
_NODES = "it shows a device node, and a virtual machine has a kernel and devices of its own"
_REFUSED = {
    "unix-char": _NODES,
    "unix-block": "a device of type disk with the node as source gives it a disk",
    "unix-hotplug": f"{_NODES}; a device of type usb gives it the USB device itself",
}
_OF_CONTAINERS = {
    "tpm": ("a TPM is for virtual machines", "containers have the host's kernel"),
    "pci": (
        "a PCI device is for virtual machines",
        "containers have the host's kernel: give them what its driver makes, an interface or a node",
    ),
}
_NICTYPES = ("bridged", "p2p", "macvlan", "physical", "sriov")
_NICTYPES_OF_CONTAINERS = "the host would have to set its addresses and routes inside, where another kernel is"
_OF_A_FUNCTION = ("hwaddr", "mtu")
_DISK_OF_CONTAINERS = ("propagation", "shift", "raw.mount.options")
_NODES_OWNER = ("uid", "gid", "mode")
_STATEFUL = "migration.stateful"


def check(instance: Instance, expanded: Instance) -> None:
    """Raise InvalidError or UnsupportedError when an instance has a key of its own, or any device, that is for another
    kind. Keys of profiles that are for others are no harm: profiles are for both."""
    for name in instance.config:
        check_key(expanded.kind, name, instance.name)
    for name, options in expanded.devices.items():
        check_device(expanded.kind, name, options)
    if expanded.kind is Kind.VM and get_bool(expanded.config, _STATEFUL):
        _check_stateful(expanded.devices)


def _check_stateful(devices: Mapping[str, Mapping[str, str]]) -> None:
    """Of hardware the host can't tell in what state it is."""
    for name, options in devices.items():
        if options["type"] in ("pci", "gpu") or (options["type"] == "nic" and nic.is_hardware(options)):
            raise _no_state(name)


def _no_state(device: str) -> InvalidError:
    why = f"device {device}: the state of hardware can't be kept with the machine's memory"
    return InvalidError(why, f"{_STATEFUL}=false")


def check_hardware(expanded: Instance, devices: Iterable[str]) -> None:
    """Raise InvalidError for devices of a machine that are hardware, as it turns out by the networks that they name, if
    its memory is to be kept."""
    for name in devices:
        if get_bool(expanded.config, _STATEFUL):
            raise _no_state(name)


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
    for key in ("boot.priority", "io.bus"):
        if key in options:
            raise UnsupportedError(f"device {name}: {key} is for virtual machines")
    if is_seed(options):
        raise UnsupportedError(f"device {name}: {SEED} is for virtual machines", "containers have their seed in place")
    if options["type"] in _OF_CONTAINERS:
        what, hint = _OF_CONTAINERS[options["type"]]
        raise UnsupportedError(f"device {name}: {what}", hint)


def _check_device(name: str, options: Mapping[str, str]) -> None:
    kind = options["type"]
    if why := _REFUSED.get(kind):
        raise UnsupportedError(f"device {name}: type {kind} is not for virtual machines", why)
    if kind == "proxy" and not proxy.translates(options):
        why = "the others have an end inside, where the host can't listen or connect"
        raise UnsupportedError(f"device {name}: only proxies with nat=true are for virtual machines", why)
    if kind == "nic":
        _check_nic(name, options)
    if kind == "disk" and not is_root(options):
        _refuse(name, options, _DISK_OF_CONTAINERS, "disks of virtual machines")
    if kind in ("usb", "gpu"):
        _refuse(name, options, _NODES_OWNER, "virtual machines, which have the device and no node of the host's")


def _check_nic(name: str, options: Mapping[str, str]) -> None:
    nictype = nic.nictype(options)
    if nictype not in _NICTYPES:
        why = f"{_NICTYPES_OF_CONTAINERS}; one of {', '.join(_NICTYPES)}, or network"
        raise UnsupportedError(f"device {name}: nictype {nictype} is not for virtual machines", why)
    if nic.is_hardware(options):
        # The card tells a virtual function its address.
        keys = _OF_A_FUNCTION if nictype == "physical" else ("mtu",)
        _refuse(name, options, keys, "the hardware itself, which the guest's own driver sets up")


def _refuse(name: str, options: Mapping[str, str], keys: Sequence[str], what: str) -> None:
    for key in keys:
        if key in options:
            raise UnsupportedError(f"device {name}: {key} is not for {what}")
