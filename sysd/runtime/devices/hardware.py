# SPDX-License-Identifier: Apache-2.0
"""Hardware that is named by what it is: USB devices, graphics cards, whatever udev knows. Found in sysfs(5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.pci import address
from sysd.model.devices.unix import node_path
from sysd.model.errors import FailedError, InvalidError
from sysd.runtime import sysfs
from sysd.runtime.devices.node import make
from sysd.runtime.spec import Share
from sysd.runtime.sysfs import entries, matches, read


def usb_shares(name: str, options: Mapping[str, str]) -> list[Share]:
    """The node of each USB device that matches, in /dev/bus/usb."""
    found: list[Share] = []
    for folder in entries(sysfs.SYS / "bus/usb/devices"):
        if matches(options, read(folder / "idVendor"), read(folder / "idProduct")):
            found += _node(name, folder, options)
    return _required(name, found, options)


def hotplug_shares(name: str, options: Mapping[str, str]) -> list[Share]:
    """The nodes of everything that hangs on a USB device that matches, but not the USB device's own."""
    found: list[Share] = []
    for kind in ("char", "block"):
        for entry in entries(sysfs.SYS / "dev" / kind):
            folder = entry.resolve()
            if (folder / "idVendor").exists():
                continue
            owner = _usb_parent(folder)
            if owner and matches(options, read(owner / "idVendor"), read(owner / "idProduct")):
                found += _node(name, folder, options, kind)
    return _required(name, found, options)


def gpu_shares(name: str, options: Mapping[str, str]) -> list[Share]:
    """The nodes of each card that matches, in /dev/dri."""
    found: list[Share] = []
    for entry in entries(sysfs.SYS / "class/drm"):
        device = (entry / "device").resolve()
        if _is_card(options, entry.name, device):
            found += _node(name, entry, options)
    if not found:
        raise FailedError(f"device {name}: no such graphics card is there")
    return found


def _is_card(options: Mapping[str, str], name: str, device: Path) -> bool:
    if not (device / "drm").is_dir():
        return False  # a connector
    if "id" in options:
        return (device / "drm" / f"card{int(options['id'])}").exists()
    if "pci" in options:
        return device.name == address(options["pci"])
    vendor, product = (read(device / word).removeprefix("0x") for word in ("vendor", "device"))
    return matches(options, vendor, product) if {"vendorid", "productid"} & set(options) else True


def _usb_parent(folder: Path) -> Path | None:
    for parent in folder.parents:
        if (parent / "idVendor").exists():
            return parent
        if parent == sysfs.SYS / "devices":
            return None
    return None


def _node(name: str, folder: Path, options: Mapping[str, str], kind: str = "char") -> Iterator[Share]:
    """As the kernel tells it in uevent; nothing for what has no node, or one that a guest can't have."""
    fields = dict(line.partition("=")[::2] for line in read(folder / "uevent").splitlines())
    try:
        path = node_path("/dev/" + fields["DEVNAME"])
        number = (int(fields["MAJOR"]), int(fields["MINOR"]))
    except (KeyError, ValueError, InvalidError):
        return
    yield make(name, path, kind, number, options)


def _required(name: str, found: list[Share], options: Mapping[str, str]) -> list[Share]:
    if not found and SCHEMAS[options["type"]].boolean(options, "required"):
        raise FailedError(f"device {name}: no such device is there")
    return found
