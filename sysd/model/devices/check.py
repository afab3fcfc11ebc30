# SPDX-License-Identifier: Apache-2.0
"""The one validator of devices: of instances and of profiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sysd.model.devices import disk, nic, pci, proxy, tpm, unix
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.schema import Key, Schema
from sysd.model.values import anything, one_of

Devices = dict[str, dict[str, str]]


def _nothing(options: Mapping[str, str]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Type:
    """options, and what they must be together."""

    options: tuple[Key, ...] = ()
    check: Callable[[Mapping[str, str]], None] = _nothing


TYPES = {
    "none": Type(),
    "nic": Type(nic.OPTIONS, nic.check),
    "disk": Type(disk.OPTIONS, disk.check),
    "unix-char": Type(unix.NODE_OPTIONS, unix.check_node),
    "unix-block": Type(unix.NODE_OPTIONS, unix.check_node),
    "unix-hotplug": Type(unix.HOTPLUG_OPTIONS, unix.check_hotplug),
    "usb": Type(unix.USB_OPTIONS),
    "gpu": Type(unix.GPU_OPTIONS, unix.check_gpu),
    "pci": Type(pci.OPTIONS, pci.check),
    "proxy": Type(proxy.OPTIONS, proxy.check),
    "tpm": Type(tpm.OPTIONS),
}
REFUSED = {"infiniband": "InfiniBand interfaces can't be given to instances"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_TYPE = Key("type", one_of(*TYPES), "", "What kind of device it is.")
_USER = Key("user.*", anything, "", "Free for users; may span lines.", multiline=True)
SCHEMAS = {name: Schema((_TYPE, *kind.options, _USER), f"{name} device") for name, kind in TYPES.items()}


def check_device_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidError(f"invalid device name {name[:80]!r}", "1 to 64 letters, digits, '-', '_' and '.'")
    return name


def check_device(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """A checked copy of one device's options; raises InvalidError naming the device and the option."""
    check_device_name(name)
    kind = options.get("type", "")
    if reason := REFUSED.get(kind):
        raise UnsupportedError(f"device {name}: type {kind} is not offered: {reason}")
    if kind not in TYPES:
        raise InvalidError(f"device {name}: unknown type {kind[:80]!r}", f"one of {', '.join(TYPES)}")
    try:
        checked = SCHEMAS[kind].check(options)
        TYPES[kind].check(checked)
    except (InvalidError, UnsupportedError) as error:
        raise type(error)(f"device {name}: {error.message}", error.hint) from None
    return checked


def check_devices(devices: Mapping[str, Mapping[str, str]]) -> Devices:
    return {name: check_device(name, options) for name, options in devices.items()}


def check_together(devices: Mapping[str, Mapping[str, str]]) -> None:
    """What an instance's devices, with those of its profiles, must be among themselves. Raises InvalidError."""
    names: dict[str, str] = {}
    paths: dict[str, str] = {}
    tpms: dict[str, str] = {}
    functions: dict[str, str] = {}
    for name, each in devices.items():
        if each.get("type") == "nic" and "name" in each:
            _once(names, each["name"], name, "interface")
        if each.get("type") == "tpm":
            _once(tpms, "tpm", name, "type")
        if each.get("type") == "disk" and not disk.is_seed(each):
            _once(paths, "/" + each.get("path", "").strip("/"), name, "path")
        for address in pci.addresses(each):
            _once(functions, address, name, "PCI address")
        if each.get("type") == "proxy" and proxy.translates(each):
            _translated(name, each, devices)


def _translated(name: str, options: Mapping[str, str], devices: Mapping[str, Mapping[str, str]]) -> None:
    try:
        proxy.translation_target(options, devices)
    except InvalidError as error:
        raise InvalidError(f"device {name}: {error.message}", error.hint) from None


def _once(seen: dict[str, str], value: str, name: str, what: str) -> None:
    if value in seen:
        raise InvalidError(f"devices {seen[value]} and {name} have the same {what}, {value}")
    seen[value] = name
