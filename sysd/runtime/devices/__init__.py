# SPDX-License-Identifier: Apache-2.0
"""What devices are made of on the host: a module for each type that shows something of the host's in a guest.

Interfaces are sysd.network.nics, proxies sysd.runtime.proxies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from sysd.model.devices.check import SCHEMAS
from sysd.model.errors import FailedError
from sysd.runtime.devices import disk, hardware, node
from sysd.runtime.devices.node import NODES
from sysd.runtime.spec import Share

_SHARES: dict[str, Callable[[str, Mapping[str, str]], list[Share]]] = {
    "disk": disk.shares,
    **dict.fromkeys(NODES, node.shares),
    "unix-hotplug": hardware.hotplug_shares,
    "usb": hardware.usb_shares,
    "gpu": hardware.gpu_shares,
}
_HARDWARE = frozenset({"unix-hotplug", "usb"})


def comes_and_goes(options: Mapping[str, str]) -> bool:
    """Whether what a device shows follows the hardware while an instance runs. As in LXD, a named node does so unless
    it is required."""
    kind = options["type"]
    return kind in _HARDWARE or (kind in NODES and not SCHEMAS[kind].boolean(options, "required"))


def shares(devices: Mapping[str, Mapping[str, str]]) -> list[Share]:
    """What the devices of an expanded instance show in it. Raises FailedError for hardware that is required and not
    there; files of the host are looked for by whoever mounts them."""
    found: list[Share] = []
    for name, options in devices.items():
        if make := _SHARES.get(options["type"]):
            found += make(name, options)
    return in_order(found)


def present(devices: Mapping[str, Mapping[str, str]]) -> list[Share]:
    """What is there now of those that come and go, required or not: that counts when an instance starts."""
    found: list[Share] = []
    for name, options in devices.items():
        with contextlib.suppress(FailedError):
            found += _SHARES[options["type"]](name, options) if comes_and_goes(options) else []
    return found


def in_order(found: Iterable[Share]) -> list[Share]:
    """A folder before what is mounted below it."""
    return sorted(found, key=lambda share: share.path.count("/"))
