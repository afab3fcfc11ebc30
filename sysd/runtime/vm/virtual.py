# SPDX-License-Identifier: Apache-2.0
"""Parts of machines that are a virtual function of a card, chosen when the machine starts (sysd.runtime.sriov.lending).
Until then what the launcher is told has a word in the place of the address, and after that the one of the last run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sysd.runtime.spec import write_spec
from sysd.runtime.vm import spec, vfio
from sysd.runtime.vm.hardware import Part

_ASKED = "virtual function "
Values = dict[str, Any]


def options(name: str, wanted: str, had: Mapping[str, Part]) -> dict[str, str]:
    """Of the part that a device is, as sysd.runtime.vm.pci gives those of others. wanted tells it from another."""
    asked = _ASKED + wanted
    before = had[name].passed if name in had else {}
    address = before["address"] if before.get("asked") == asked else f"of:{name}"
    return {"type": "pci", "address": address, "asked": asked}


def is_virtual(part: Part) -> bool:
    return part.passed.get("asked", "").startswith(_ASKED)


def filled(values: Mapping[str, Any], found: Mapping[str, str]) -> Values:
    """What a machine is launched with (sysd.runtime.vm.spec.MachineSpec), with the addresses of functions by part."""
    parts = {name: part for name, part in values["parts"].items() if name in found and part["passed"]}
    moved = {part["passed"]["address"]: found[name] for name, part in parts.items()}
    changed = {name: {**part, "passed": {**part["passed"], "address": found[name]}} for name, part in parts.items()}
    return {
        **values,
        "parts": {**values["parts"], **changed},
        "descriptors": [_descriptor(each, moved) for each in values["descriptors"]],
        "functions": dict(_group(each, moved) for each in values["functions"].items()),
        "arguments": _arguments(values["arguments"], moved),
    }


def _descriptor(each: Values, moved: Mapping[str, str]) -> Values:
    return {**each, "name": moved.get(each["name"], each["name"])} if each["kind"] == "vfio" else each


def _group(each: tuple[str, str], moved: Mapping[str, str]) -> tuple[str, str]:
    to = moved.get(each[0], "")
    return (to, vfio.groups([to]).get(to, "")) if to else each


def _arguments(arguments: Sequence[str], moved: Mapping[str, str]) -> list[str]:
    """Where QEMU looks functions up by name it is told that of each once, in the option of its device."""
    names = {f'"{vfio.by_group(old)["sysfsdev"]}"': f'"{vfio.by_group(new)["sysfsdev"]}"' for old, new in moved.items()}
    return [next((each.replace(old, new) for old, new in names.items() if old in each), each) for each in arguments]


def fill(uuid: str, found: Mapping[str, str]) -> None:
    """The same, of what an instance is launched with next; containers have their function's link by name."""
    values = spec.read(uuid)
    if values:
        write_spec(uuid, filled(values, found))
