# SPDX-License-Identifier: Apache-2.0
"""Devices of an instance's as parts of its machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.disk import is_root
from sysd.model.errors import FailedError, UnsupportedError
from sysd.runtime.vm.hardware import PORTS, Part

_SERIAL = 20
"""Bytes that a virtio disk's serial number may have (virtio 1.2, 5.2.6.1)."""
_NO_ROM = {"romfile": ""}


@dataclass(frozen=True, slots=True)
class Root:
    """The disk that the guest is on: image below, and what it has written."""

    image: str
    overlay: str


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: the host's end of it, a tap, and what the guest has of it."""

    tap: str
    mac: str
    mtu: int


def build(
    devices: Mapping[str, Mapping[str, str]], root: Root, links: Mapping[str, Link], had: Mapping[str, Part]
) -> dict[str, Part]:
    """By device. One of those that the machine had stays at its port. Raises FailedError for what is required and not
    there."""
    taken = {part.port for name, part in had.items() if name in devices}
    free = iter([number for number in range(PORTS) if number not in taken])
    order = _boot_order(devices)
    found: dict[str, Part] = {}
    for name in sorted(devices, key=lambda name: (not is_root(devices[name]), name)):
        options = devices[name]
        if options["type"] not in _MAKERS or (options["type"] == "disk" and _is_left_out(name, options)):
            continue
        port = had[name].port if name in had else next(free, None)
        if port is None:
            raise FailedError(f"device {name}: the machine has {PORTS} places for devices, and no more")
        made = _MAKERS[options["type"]](name, options, port, root, links)
        if name in order:
            made.device["bootindex"] = order[name]
        found[name] = made
    return found


def _boot_order(devices: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """boot.priority is highest first; the root disk comes before those that say nothing, which are not tried."""
    wanted = {name: int(o.get("boot.priority", "0")) for name, o in devices.items() if "boot.priority" in o}
    wanted |= {name: wanted.get(name, 1) for name, options in devices.items() if is_root(options)}
    ranked = sorted(wanted, key=lambda name: (-wanted[name], name))
    return {name: number for number, name in enumerate(ranked, 1)}


def _is_left_out(name: str, options: Mapping[str, str]) -> bool:
    """A source that is not there and need not be."""
    if is_root(options) or os.path.exists(options["source"]):
        return False
    schema = SCHEMAS["disk"]
    if schema.boolean(options, "required") and not schema.boolean(options, "optional"):
        raise FailedError(f"device {name}: the host has no {options['source']}", "required=false starts without it")
    return True


def _disk(name: str, options: Mapping[str, str], port: int, root: Root, links: Mapping[str, Link]) -> Part:
    if is_root(options):
        return _root(name, port, root)
    source, readonly = options["source"], SCHEMAS["disk"].boolean(options, "readonly")
    if not _is_disk(source):
        raise UnsupportedError(f"device {name}: {source} is neither a block device nor a file")
    node = f"disk{port}"
    nodes = [_file(f"{node}-file", readonly), {"driver": "raw", "node-name": node, "file": f"{node}-file",
                                              "read-only": readonly}]  # fmt: skip
    return Part(port, _drive(name, node), nodes, files={f"{node}-file": (source, not readonly)})


def _root(name: str, port: int, root: Root) -> Part:
    """The format of both is said, and what the overlay's header says of a file below it is not heeded."""
    nodes = [
        _file("base-file", True),
        {"driver": "raw", "node-name": "base", "file": "base-file", "read-only": True},
        _file("root-file", False),
        {"driver": "qcow2", "node-name": "root", "file": "root-file", "backing": "base", "discard": "unmap",
         "detect-zeroes": "unmap"},
    ]  # fmt: skip
    files = {"base-file": (root.image, False), "root-file": (root.overlay, True)}
    return Part(port, _drive(name, "root"), nodes, files=files)


def _file(node: str, readonly: bool) -> dict[str, Any]:
    return {"driver": "file", "node-name": node, "read-only": readonly, "discard": "unmap"}


def _drive(name: str, node: str) -> dict[str, Any]:
    return {"driver": "virtio-blk-pci", "id": f"dev-{name}", "drive": node, "serial": name[:_SERIAL]}


def _nic(name: str, options: Mapping[str, str], port: int, root: Root, links: Mapping[str, Link]) -> Part:
    link = links[name]
    netdev = {"type": "tap", "id": f"net{port}", "ifname": link.tap}
    device: dict[str, Any] = {"driver": "virtio-net-pci", "id": f"dev-{name}", "netdev": f"net{port}"}
    device["mac"] = link.mac
    if link.mtu:
        device["host_mtu"] = link.mtu
    rom = {} if "boot.priority" in options else _NO_ROM
    return Part(port, device | rom, netdev=netdev)


_MAKERS = {"disk": _disk, "nic": _nic}


def _is_disk(path: str) -> bool:
    mode = os.stat(path).st_mode
    return stat.S_ISBLK(mode) or stat.S_ISREG(mode)


def block_devices(parts: Iterable[Part]) -> Sequence[str]:
    """Of the host, that the launcher opens."""
    paths = [path for part in parts for path, _ in part.files.values()]
    return [path for path in paths if stat.S_ISBLK(os.stat(path).st_mode)]


def load(written: Mapping[str, Any]) -> dict[str, Part]:
    """From what was written of them."""
    return {
        name: Part(**{**each, "files": {node: (path, write) for node, (path, write) in each["files"].items()}})
        for name, each in written.items()
    }
