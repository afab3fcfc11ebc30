# SPDX-License-Identifier: Apache-2.0
"""Network cards and their virtual functions: which are there, and what of the host's has them (PCI/pci-iov-howto of the
kernel's documentation, ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sysd.model.devices.pci import address
from sysd.model.errors import FailedError, InvalidError
from sysd.runtime import sysfs
from sysd.runtime.sriov import netlink, representors
from sysd.runtime.sysfs import entries, read
from sysd.runtime.vm import pci

UDEV = Path("/run/udev")
_UP = 1
_PATIENCE, _LOOK_AGAIN = 10.0, 0.01
"""Seconds that a driver, and udev, have for a new link."""
_OF_OTHERS = ("vfio-pci", "pci-stub", "uio_pci_generic", "igb_uio", "pciback")
"""Drivers by which somebody else has a function."""


@dataclass(frozen=True, slots=True)
class Card:
    """link: its name, function: its PCI address; functions: the addresses of those virtual ones that are switched on,
    by number, of total that could be."""

    link: str
    function: str
    total: int
    functions: dict[int, str]


def find(link: str) -> Card:
    """The card that a link of the host's is of. Raises FailedError, with what to do, for one that has no functions."""
    if not (sysfs.SYS / "class/net" / link).exists():
        raise FailedError(f"the host has no link {link}", "parent is that of a network card with SR-IOV")
    place = (sysfs.SYS / "class/net" / link / "device").resolve()
    if (above := place / "physfn").exists():
        raise FailedError(f"{link} is a virtual function itself", f"parent is its card: {_card_of(above)}")
    total = read(place / "sriov_totalvfs")
    if total in ("", "0"):
        hint = "'ls /sys/class/net/*/device/sriov_totalvfs' lists the cards that have; some need it in their firmware"
        raise FailedError(f"{link} has no virtual functions (SR-IOV)", hint)
    try:
        return Card(link, address(place.name), int(total), _functions(place))
    except InvalidError:
        raise FailedError(f"{link} is no PCI card, whose virtual functions could be lent") from None


def named() -> list[str]:
    """The links of all cards that have virtual functions, or could, simulated ones among them."""
    links = [entry.name for entry in entries(sysfs.SYS / "class/net") if (entry / "device/sriov_numvfs").exists()]
    return [link for link in links if not representors.is_one(link)]


def _card_of(function: Path) -> str:
    return ", ".join(entry.name for entry in entries(function / "net")) or function.resolve().name


def _functions(card: Path) -> dict[int, str]:
    found = {}
    for entry in card.glob("virtfn*"):
        number = entry.name.removeprefix("virtfn")
        if number.isdigit():
            found[int(number)] = address(entry.resolve().name)
    return dict(sorted(found.items()))


def link_of(function: str) -> str:
    """Name of the link that the host has of a function; empty when it has none. A card's own, not what leads to its
    virtual functions, which some drivers show there, too."""
    names = (entry.name for entry in entries(pci.folder(function) / "net"))
    return next((name for name in names if not representors.is_one(name)), "")


def index_of(link: str) -> int:
    return int(read(sysfs.SYS / "class/net" / link / "ifindex") or "0")


def why_not(function: str) -> str:
    """Why the host can't do without a function; empty when it can."""
    driver, link = pci.driver(function), link_of(function)
    if driver in _OF_OTHERS:
        return f"bound to {driver}"
    if not driver:
        return ""
    if not link:
        return "in another network namespace"
    place = sysfs.SYS / "class/net" / link
    if int(read(place / "flags") or "0", 16) & _UP:
        return f"{link}, which is up"
    if above := part_of(link):
        return f"{link}, which is part of {above}"
    if netlink.has_addresses(index_of(link)):
        return f"{link}, which has addresses"
    return ""


def part_of(link: str) -> str:
    """A bridge, bond or the like that has a link of the host's; empty when none has."""
    place = sysfs.SYS / "class/net" / link
    return min((entry.name.removeprefix("upper_") for entry in place.glob("upper_*")), default="")


def switch_on(card: Card) -> Card:
    """All virtual functions of a card that has none so far. Raises FailedError."""
    try:
        write(pci.folder(card.function) / "sriov_numvfs", str(card.total))
    except OSError as error:
        why = f"{card.link}: its {card.total} virtual functions can't be switched on: {error.strerror}"
        raise FailedError(why, "journalctl -k tells more") from None
    found = find(card.link)
    for function in found.functions.values():
        if pci.driver(function):
            wait_for_link(function)
    return found


def bind(function: str, driver: str) -> None:
    """Have a driver, or that which is the function's, drive it. Raises OSError."""
    place = sysfs.SYS / "bus/pci/drivers" / driver
    write(place / "bind" if driver and place.exists() else sysfs.SYS / "bus/pci/drivers_probe", function)


def unbind(function: str) -> None:
    if pci.driver(function):
        write(pci.folder(function) / "driver/unbind", function)


def wait_for_link(function: str) -> str:
    """Name of the link that a driver makes of a function, when udev is done with it: it may give it another. Empty when
    there is none."""
    _wait(lambda: bool(link_of(function)))
    if link_of(function) and (UDEV / "control").exists():
        _wait(lambda: (UDEV / f"data/n{index_of(link_of(function))}").exists())
    return link_of(function)


def _wait(there: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not there() and time.monotonic() < end:
        time.sleep(_LOOK_AGAIN)


def write(path: Path, text: str) -> None:
    with open(path, "wb", buffering=0) as stream:
        stream.write(f"{text}\n".encode())


def has_link(name: str) -> bool:
    return os.path.lexists(sysfs.SYS / "class/net" / name)
