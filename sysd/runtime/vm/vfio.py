# SPDX-License-Identifier: Apache-2.0
"""How QEMU has PCI functions of the host's: a descriptor of each where the kernel has iommufd, else by the nodes of the
groups that the IOMMU tells apart (the kernel's driver-api/vfio.rst, userspace-api/iommufd.rst).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime import sysfs
from sysd.runtime.vm import pci
from sysd.units.modules import has_nodes

MODULE = "vfio-pci"
IOMMU = "/dev/iommu"
OBJECT = "iommufd0"
_OF_FUNCTIONS, _OF_GROUPS = "vfio-dev", "vfio"
"""Drivers of nodes, as the kernel calls them."""
_FOR_REGISTERS = 1 << 30
"""Bytes of a function's own that are mapped beside the machine's memory; as libvirt has it."""


def is_there() -> bool:
    """Whether the kernel's driver is."""
    return (sysfs.SYS / "bus/pci/drivers" / MODULE).exists()


def has_iommufd() -> bool:
    return has_nodes(_OF_FUNCTIONS) and os.path.exists(IOMMU)


def node(function: str) -> str:
    """That of a function which is bound. Raises FailedError."""
    for entry in sysfs.entries(pci.folder(function) / "vfio-dev"):
        return f"/dev/vfio/devices/{entry.name}"
    raise FailedError(f"PCI function {function} is not bound to {MODULE}")


def groups(found: Iterable[str]) -> dict[str, str]:
    """By function; what QEMU opens by name. Nothing where it gets descriptors."""
    return {} if has_iommufd() else {function: pci.group(function) for function in found}


def allowed() -> list[str]:
    """In DeviceAllow=."""
    return [IOMMU, f"char-{_OF_FUNCTIONS}"] if has_iommufd() else ["/dev/vfio/vfio", f"char-{_OF_GROUPS}"]


def locked_memory(most: int) -> int:
    """Bytes that have to stay where they are: all memory of a machine's, which functions read and write."""
    return most + _FOR_REGISTERS


def by_descriptors(fd: str) -> dict[str, Any]:
    """Properties of a device whose function QEMU has under a number or a name."""
    return {"iommufd": OBJECT, "fd": fd}


def by_group(function: str) -> dict[str, Any]:
    """Of one that it is to look up; see sysd/_cext/launch/functions.c."""
    return {"sysfsdev": f"/dev/vfio/{function}"}


def backend(fd: str) -> dict[str, Any]:
    """What all functions of a machine's share."""
    return {"qom-type": "iommufd", "id": OBJECT, "fd": fd}
