# SPDX-License-Identifier: Apache-2.0
"""PCI functions of the host's: which of them devices mean, and what they are (ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sysd.model.devices.pci import address
from sysd.model.errors import FailedError, InvalidError
from sysd.runtime import sysfs
from sysd.runtime.sysfs import entries, matches, read

BRIDGES, DISPLAYS = "0x06", "0x03"
"""What the classes of functions begin with (PCI Code and ID Assignment Specification)."""


def folder(function: str) -> Path:
    return sysfs.SYS / "bus/pci/devices" / function


def is_bridge(function: str) -> bool:
    return read(folder(function) / "class").startswith(BRIDGES)


def driver(function: str) -> str:
    """Empty for one that has none."""
    try:
        return os.path.basename(os.readlink(folder(function) / "driver"))
    except OSError:
        return ""


def group(function: str) -> str:
    """Number of the IOMMU group that it is in, empty where no IOMMU is in use."""
    try:
        return os.path.basename(os.readlink(folder(function) / "iommu_group"))
    except OSError:
        return ""


def members(function: str) -> list[str]:
    """Functions that are in one IOMMU group, which reach each other past the IOMMU."""
    return [entry.name for entry in entries(folder(function) / "iommu_group/devices")]


def describe(function: str) -> str:
    """As messages name one that is not known by its device."""
    vendor, product = (read(folder(function) / word).removeprefix("0x") for word in ("vendor", "device"))
    return f"{function} ({vendor}:{product}, {driver(function) or 'without a driver'})"


def functions(
    devices: Mapping[str, Mapping[str, str]], links: Mapping[str, str], had: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """By the name that its part in a machine has, the address of each function that devices mean, and asked: the name
    on the host by which it was found, if that goes while the machine has it. links are those by device whose hardware
    is meant, had what this has given before. Raises FailedError for what is not there."""
    found: dict[str, dict[str, str]] = {}
    for name, options in devices.items():
        if options["type"] == "pci":
            found[name] = {"address": address(options["address"])}
        elif options["type"] == "gpu":
            found |= _card(name, options, had.get(name, {}))
        elif name in links:
            found[name] = _behind(name, links[name], had.get(name, {}))
    for name, one in found.items():
        _check(name, one["address"])
    return found


def _check(name: str, function: str) -> None:
    if not folder(function).exists():
        raise FailedError(f"device {name}: the host has no PCI function {function}", "lspci -D lists them")
    if not group(function):
        what = f"device {name}: PCI function {function} is behind no IOMMU that is in use"
        hint = "it is switched on in the firmware (VT-d, AMD-Vi), and by intel_iommu=on on the kernel's command line"
        raise FailedError(what, hint)


def _card(name: str, options: Mapping[str, str], had: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """A graphics card, and with it what else is in its slot and can't be apart from it, such as its sound."""
    if "id" in options:
        main = _named(name, f"class/drm/card{int(options['id'])}/device", "graphics card", had)
    else:
        main = {"address": _only(name, [one for one in _displays() if _means(options, one)])}
    slot, inseparable = main["address"].rpartition(".")[0], members(main["address"])
    others = [one for one in inseparable if one.startswith(f"{slot}.") and one != main["address"]]
    return {name: main} | {f"{name}:{one.rpartition('.')[2]}": {"address": one} for one in others}


def _displays() -> list[str]:
    found = entries(sysfs.SYS / "bus/pci/devices")
    return [entry.name for entry in found if read(entry / "class").startswith(DISPLAYS)]


def _means(options: Mapping[str, str], function: str) -> bool:
    if "pci" in options:
        return function == address(options["pci"])
    vendor, product = (read(folder(function) / word).removeprefix("0x") for word in ("vendor", "device"))
    return matches(options, vendor, product)


def _only(name: str, found: list[str]) -> str:
    if not found:
        raise FailedError(f"device {name}: no such graphics card is there")
    if len(found) > 1:
        what = f"device {name}: it may be any of {', '.join(found)}"
        raise FailedError(what, "a virtual machine is given one card: pci names it")
    return found[0]


def _behind(name: str, link: str, had: Mapping[str, str]) -> dict[str, str]:
    return _named(name, f"class/net/{link}/device", f"link {link}", had)


def _named(name: str, path: str, what: str, had: Mapping[str, str]) -> dict[str, str]:
    """While a machine has it, what was named so is what it was."""
    place = sysfs.SYS / path
    if place.exists():
        try:
            return {"address": address(place.resolve().name), "asked": path}
        except InvalidError:
            raise FailedError(f"device {name}: {what} is no PCI function, which a virtual machine needs") from None
    if had.get("asked") == path:
        return dict(had)
    raise FailedError(f"device {name}: the host has no {what}" + ("" if "link" in what else " of that number"))
