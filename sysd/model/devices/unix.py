# SPDX-License-Identifier: Apache-2.0
"""Device nodes: named ones (unix-char, unix-block), and those of hardware that is there (unix-hotplug, usb, gpu)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sysd.model.devices.disk import OWNED_BY_US, absolute_path, guest_path
from sysd.model.devices.pci import address
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.schema import Key
from sysd.model.values import anything, boolean, integer, one_of

DEFAULT_MODE = "0660"
MAX_ID = 65535

_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]{4}", re.ASCII)
_OTHER_CARDS = {
    "mdev": "mediated devices are of a driver of the card's maker, which would have to make them first",
    "mig": "it needs NVIDIA's own runtime",
    "sriov": "virtual functions are not managed yet; one that is there can be named by pci",
}


def mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise InvalidError(f"not a mode: {text!r}", "three octal digits, such as 0660")
    return int(text, 8)


def _hardware_id(text: str) -> str:
    if not _HEX.fullmatch(text):
        raise InvalidError(f"not an id: {text!r}", "four hexadecimal digits")
    return text.lower()


def device_path(text: str) -> str:
    """A device node of the host."""
    absolute_path(text)
    if not text.startswith("/dev/"):
        raise InvalidError(f"not a device node: {text!r}", "one below /dev")
    return text


def node_path(text: str) -> str:
    """Where in the guest a node may be: in /dev, or wherever a disk may be."""
    absolute_path(text)
    if text.startswith("/dev/") and not text.endswith("/"):
        return text
    if text.rstrip("/") in OWNED_BY_US or text.endswith("/"):
        raise InvalidError(f"no place for a device node: {text!r}")
    return guest_path(text)


_OWNER = (
    Key("uid", integer(0, MAX_ID), "0", "Owner in the guest."),
    Key("gid", integer(0, MAX_ID), "0", "Group in the guest."),
    Key("mode", mode, DEFAULT_MODE, "Mode in the guest."),
)
_HARDWARE = (
    Key("vendorid", _hardware_id, "", "Vendor, four hexadecimal digits."),
    Key("productid", _hardware_id, "", "Product, four hexadecimal digits."),
)
_NODE_REQUIRED = Key(
    "required", boolean, "true", "Refuse to start when the device is not there; when false, it comes and goes."
)
_REQUIRED = Key("required", boolean, "false", "Refuse to start when no such device is there; it comes and goes.")

NODE_OPTIONS = (
    Key("source", device_path, "", "Device node of the host."),
    Key("path", node_path, "", "Where it is in the guest; as on the host when not set."),
    Key("major", integer(0, (1 << 12) - 1), "", "Major number; of the source when not set."),
    Key("minor", integer(0, (1 << 20) - 1), "", "Minor number; of the source when not set."),
    *_OWNER,
    _NODE_REQUIRED,
)
USB_OPTIONS = (*_HARDWARE, *_OWNER, _REQUIRED)
HOTPLUG_OPTIONS = USB_OPTIONS
GPU_OPTIONS = (
    Key(
        "gputype",
        lambda text: _only_physical(text),
        "physical",
        "physical: containers get the card's nodes in /dev/dri, virtual machines the card itself.",
    ),
    *_HARDWARE,
    Key("id", integer(0, 1023), "", "Number of the card on the host, as in /dev/dri/cardN."),
    Key("pci", address, "", "PCI address of the card."),
    *_OWNER,
    Key("mdev", anything, "", "", refused=_OTHER_CARDS["mdev"]),
    Key("mig.ci", anything, "", "", refused=_OTHER_CARDS["mig"]),
    Key("mig.gi", anything, "", "", refused=_OTHER_CARDS["mig"]),
)


def _only_physical(text: str) -> str:
    if why := _OTHER_CARDS.get(text):
        raise UnsupportedError(f"{text} is not offered: {why}", "physical gives whole cards")
    return one_of("physical")(text)


def check_node(options: Mapping[str, str]) -> None:
    if not options.get("source") and not options.get("path"):
        raise InvalidError("source and path are missing", "name the device node")
    if ("major" in options) != ("minor" in options):
        raise InvalidError("major and minor belong together")
    if not options.get("source") and "major" not in options and not options["path"].startswith("/dev/"):
        raise InvalidError("source is missing", "path is no device node of the host")


def check_hotplug(options: Mapping[str, str]) -> None:
    if not options.get("vendorid") and not options.get("productid"):
        raise InvalidError("vendorid and productid are missing", "at least one of them")


def check_gpu(options: Mapping[str, str]) -> None:
    if "id" in options and ({"vendorid", "productid", "pci"} & set(options)):
        raise InvalidError("id names a card already", "unset vendorid, productid and pci")
    if "pci" in options and ({"vendorid", "productid"} & set(options)):
        raise InvalidError("pci names a card already", "unset vendorid and productid")
