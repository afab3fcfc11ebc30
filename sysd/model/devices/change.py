# SPDX-License-Identifier: Apache-2.0
"""Changes of the devices that an instance or a profile has of its own; owner is how messages call that."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sysd.model.devices.check import Devices, check_device
from sysd.model.errors import ExistsError, InvalidError, NotFoundError


def with_device(devices: Devices, owner: str, name: str, options: Mapping[str, str]) -> Devices:
    """devices and one more, of a name that none of them has."""
    if name in devices:
        raise ExistsError(f"{owner} has a device {name!r} already", "its options can be set")
    return devices | {name: check_device(name, options)}


def with_options(
    devices: Devices, owner: str, name: str, values: Mapping[str, str], unset: Collection[str]
) -> Devices:
    """devices, with options of one of them set and others removed; one that is not set may be removed."""
    if name not in devices:
        raise NotFoundError(f"{owner} has no device {name[:80]!r}")
    if both := next((option for option in unset if option in values), ""):
        raise InvalidError(f"device {name}: {both} is both set and unset")
    left = {option: value for option, value in devices[name].items() if option not in unset}
    return devices | {name: check_device(name, {**left, **values})}


def replaced(devices: Devices, owner: str, put: Devices, removed: Collection[str]) -> Devices:
    """devices, with some put, each as a whole, and others removed."""
    for name in sorted(removed):
        if name in put:
            raise InvalidError(f"device {name} is both set and removed")
        if name not in devices:
            raise NotFoundError(f"{owner} has no device {name[:80]!r}")
    return {name: options for name, options in devices.items() if name not in removed} | put
