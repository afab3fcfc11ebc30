# SPDX-License-Identifier: Apache-2.0
"""USB devices of the host's that guests have, found in sysfs(5) by vendor and product."""

from __future__ import annotations

from collections.abc import Mapping

from sysd.runtime.devices.hardware import usb_shares
from sysd.runtime.vm.hardware import USB, Part


def nodes(devices: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The node of each that is there now, by the name of its part: a device may be several of them. Raises FailedError
    for one that is required and not there."""
    return {
        f"{name}:{share.path.removeprefix('/dev/bus/usb/').replace('/', '.')}": share.path
        for name, options in devices.items()
        if options["type"] == "usb"
        for share in usb_shares(name, options)
    }


def present(devices: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The same, required or not: that counts when a machine starts."""
    return nodes({name: {**options, "required": "false"} for name, options in devices.items()})


def part(name: str, node: str, port: int) -> Part:
    device = {"driver": "usb-host", "id": f"dev-{name.replace(':', '-')}", "bus": f"{USB}.0"}
    return Part(port, device, files={"hostdevice": (node, True)})


def held(parts: Mapping[str, Part]) -> dict[str, str]:
    """What nodes gave when a machine got its parts."""
    return {name: each.files["hostdevice"][0] for name, each in parts.items() if "hostdevice" in each.files}
