# SPDX-License-Identifier: Apache-2.0
"""Devices of an instance's as parts of its machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sysd.model.devices.check import SCHEMAS
from sysd.model.devices.disk import SEED, is_root, is_seed
from sysd.model.errors import FailedError, InvalidError, UnsupportedError
from sysd.runtime.vm import helpers, pci, usb, virtual
from sysd.runtime.vm.hardware import PORTS, Part

SEED_NAME = ":cloud-init"
"""Of the part that no device stands for: none has such a name."""
_ROOT = "root"
"""The node of the disk that is the machine's own."""
MOST_OTHERS = 64
"""Parts that need no place."""
_TPM = "tpm0"
_TAG = 36
"""Bytes of a tag of virtiofs (virtio 1.2, 5.11.4)."""
_SERIAL = 20
"""Bytes that a virtio disk's serial number may have (virtio 1.2, 5.2.6.1)."""
_NO_ROM = {"romfile": ""}
"""UEFI has a driver of its own."""


@dataclass(frozen=True, slots=True)
class Root:
    """The disk that the guest is on: image below, and what it has written."""

    image: str
    overlay: str


@dataclass(frozen=True, slots=True)
class Given:
    """What an instance's devices are made of, beside what they say: links by device, seed for cloud-init, if any; lent
    are links of the host's, by device, whose hardware the machine is to have; virtual are devices that are functions
    of cards, and what tells these from others."""

    uuid: str
    root: Root
    links: Mapping[str, Link]
    seed: bytes = b""
    lent: Mapping[str, str] = field(default_factory=dict)
    virtual: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: the host's end of it, a tap or a macvtap that request makes, and what the guest has of it."""

    tap: str
    mac: str
    mtu: int
    request: str = ""


def build(devices: Mapping[str, Mapping[str, str]], given: Given, had: Mapping[str, Part]) -> dict[str, Part]:
    """By device; of USB as usb.nodes has them, of PCI as pci.functions. One of those that the machine had stays at its
    port. Raises FailedError for what is required and not there."""
    devices = _with_root(devices)
    wanted = _wanted(devices, given, had)
    taken = {part.port for name, part in had.items() if name in wanted}
    free = iter([number for number in range(PORTS) if number not in taken])
    no_place = iter([number for number in range(PORTS, PORTS + MOST_OTHERS) if number not in taken])
    order = _boot_order(devices)
    found: dict[str, Part] = {}
    for name in sorted(wanted, key=lambda name: (not is_root(wanted[name]), name)):
        options = wanted[name]
        port = had[name].port if name in had else next(no_place if options["type"] in _NO_PLACE else free, None)
        if port is None:
            raise FailedError(f"device {name}: the machine has {PORTS} places for devices, and no more")
        made = _MAKERS[options["type"]](name, options, port, given)
        if name in order:
            made.device["bootindex"] = order[name]
        found[name] = made
    return found


def _with_root(devices: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    """A machine has its own disk, also when no device says so, as a container has its own files."""
    if any(map(is_root, devices.values())):
        return devices
    name = next(name for name in ("root", *(f"root{number}" for number in range(len(devices)))) if name not in devices)
    return {**devices, name: {"type": "disk", "path": "/"}}


def is_own_disk(part: Part) -> bool:
    """Whether it is what the machine boots from."""
    return part.device.get("drive") == _ROOT


def _wanted(
    devices: Mapping[str, Mapping[str, str]], given: Given, had: Mapping[str, Part]
) -> dict[str, Mapping[str, str]]:
    """Options of what the machine is to have, by the names of its parts."""
    found = {
        name: options
        for name, options in devices.items()
        if options["type"] in _MAKERS and options["type"] != "usb" and not _is_left_out(name, options)
    }
    found |= {name: {"type": "usb", "source": node} for name, node in usb.nodes(devices).items()}
    passed = pci.functions(devices, given.lent, {name: part.passed for name, part in had.items()})
    found |= {name: {"type": "pci", **function} for name, function in passed.items()}
    found |= {name: virtual.options(name, wanted, had) for name, wanted in given.virtual.items()}
    if given.seed and not any(map(is_seed, found.values())):
        found[SEED_NAME] = {"type": "disk", "source": SEED}
    return found


def _boot_order(devices: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """boot.priority is highest first; the root disk comes before those that say nothing, which are not tried."""
    wanted = {name: int(o.get("boot.priority", "0")) for name, o in devices.items() if "boot.priority" in o}
    wanted |= {name: wanted.get(name, 1) for name, options in devices.items() if is_root(options)}
    ranked = sorted(wanted, key=lambda name: (-wanted[name], name))
    return {name: number for number, name in enumerate(ranked, 1)}


def _is_left_out(name: str, options: Mapping[str, str]) -> bool:
    """A source that is not there and need not be."""
    if options["type"] != "disk" or is_root(options) or is_seed(options) or os.path.exists(options["source"]):
        return False
    schema = SCHEMAS["disk"]
    if schema.boolean(options, "required") and not schema.boolean(options, "optional"):
        raise FailedError(f"device {name}: the host has no {options['source']}", "required=false starts without it")
    return True


def _disk(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    if is_root(options):
        return _root(name, port, given.root)
    if is_seed(options):
        return _seed(name, port, given.seed)
    source, readonly = options["source"], SCHEMAS["disk"].boolean(options, "readonly")
    if os.path.isdir(source):
        return _folder(name, options, port, given)
    if not _is_disk(source):
        raise UnsupportedError(f"device {name}: {source} is neither a block device, nor a file, nor a folder")
    for key in ("recursive", "io.bus"):
        if key in options:
            raise UnsupportedError(f"device {name}: {key} is for folders, and {source} is none")
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
    return Part(port, _drive(name, _ROOT), nodes, files=files)


def _seed(name: str, port: int, seed: bytes) -> Part:
    node = f"disk{port}"
    nodes = [_file(f"{node}-file", True), {"driver": "raw", "node-name": node, "file": f"{node}-file",
                                          "read-only": True}]  # fmt: skip
    drive = _drive("cloud-init" if name == SEED_NAME else name, node)
    return Part(port, drive, nodes, memory={f"{node}-file": seed.hex()})


def _folder(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    if len(name) > _TAG:
        raise InvalidError(f"device {name}: guests know folders by names of {_TAG} letters at most", "a shorter name")
    if not os.path.exists(helpers.VIRTIOFSD):
        raise FailedError(f"device {name}: the host has no virtiofsd, which serves folders", "apt install virtiofsd")
    schema, tag = SCHEMAS["disk"], f"fs{port}"
    served = {"source": options["source"], "path": options["path"]}
    served |= {key: "true" for key in ("readonly", "recursive") if schema.boolean(options, key)}
    device = {"driver": "vhost-user-fs-pci", "id": f"dev-{name}", "chardev": tag, "tag": name}
    return Part(port, device, sockets={tag: helpers.socket_of(given.uuid, name)}, served=served)


def _tpm(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    if not os.path.exists(helpers.SWTPM):
        raise FailedError(f"device {name}: the host has no swtpm, which makes TPMs", "apt install swtpm")
    device = {"driver": "tpm-crb", "id": f"dev-{name}", "tpmdev": _TPM}
    sockets = {_TPM: helpers.socket_of(given.uuid, helpers.TPM)}
    return Part(port, device, sockets=sockets, tpm=_TPM, served={"version": "2.0"})


def _usb(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    return usb.part(name, options["source"], port)


def _function(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    passed = {key: options[key] for key in ("address", "asked") if key in options}
    return Part(port, {"driver": "vfio-pci", "id": id_of(name)}, passed=passed)


def id_of(name: str) -> str:
    """QEMU's, of a part that is a function."""
    device, _, number = name.partition(":")
    return f"dev{number}-{device}"


def functions(parts: Mapping[str, Part]) -> dict[str, str]:
    """Addresses of those of the host's that a machine has, by part."""
    return {name: part.passed["address"] for name, part in parts.items() if part.passed}


def _file(node: str, readonly: bool) -> dict[str, Any]:
    return {"driver": "file", "node-name": node, "read-only": readonly, "discard": "unmap"}


def _drive(name: str, node: str) -> dict[str, Any]:
    return {"driver": "virtio-blk-pci", "id": f"dev-{name}", "drive": node, "serial": name[:_SERIAL]}


def _nic(name: str, options: Mapping[str, str], port: int, given: Given) -> Part:
    link = given.links[name]
    netdev = {"type": "tap", "id": f"net{port}", "ifname": link.tap}
    if link.request:
        netdev["request"] = link.request
    device: dict[str, Any] = {"driver": "virtio-net-pci", "id": f"dev-{name}", "netdev": f"net{port}"}
    device["mac"] = link.mac
    if link.mtu:
        device["host_mtu"] = link.mtu
    return Part(port, device | _NO_ROM, netdev=netdev)


_MAKERS = {"disk": _disk, "nic": _nic, "pci": _function, "tpm": _tpm, "usb": _usb}
_NO_PLACE = ("tpm", "usb")


def _is_disk(path: str) -> bool:
    mode = os.stat(path).st_mode
    return stat.S_ISBLK(mode) or stat.S_ISREG(mode)


def device_nodes(parts: Iterable[Part]) -> Sequence[str]:
    """Of the host, that the launcher opens."""
    paths = [path for part in parts for path, _ in part.files.values()]
    return [path for path in paths if _is_node(path)]


def _is_node(path: str) -> bool:
    """Hardware may go while it is looked at."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def store(found: Mapping[str, Part]) -> dict[str, dict[str, Any]]:
    """To be written."""
    return {name: asdict(part) for name, part in found.items()}


def load(written: Mapping[str, Any]) -> dict[str, Part]:
    """From what was written of them."""
    return {
        name: Part(**{**each, "files": {node: (path, write) for node, (path, write) in each["files"].items()}})
        for name, each in written.items()
    }
