# SPDX-License-Identifier: Apache-2.0
"""What devices are made of on the host: a module for each type that shows something of the host's in a guest.

Interfaces are sysd.network.nics, proxies sysd.runtime.proxies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sysd.runtime.devices import disk, hardware, node
from sysd.runtime.spec import Share

_SHARES: dict[str, Callable[[str, Mapping[str, str]], list[Share]]] = {
    "disk": disk.shares,
    "unix-char": node.shares,
    "unix-block": node.shares,
    "unix-hotplug": hardware.hotplug_shares,
    "usb": hardware.usb_shares,
    "gpu": hardware.gpu_shares,
}
COMES_AND_GOES = frozenset({"unix-hotplug", "usb"})
"""Types whose shares change while an instance runs."""


def shares(devices: Mapping[str, Mapping[str, str]]) -> list[Share]:
    """What the devices of an expanded instance show in it. Raises FailedError for hardware that is required and not
    there; files of the host are looked for by whoever mounts them."""
    found: list[Share] = []
    for name, options in devices.items():
        if make := _SHARES.get(options["type"]):
            found += make(name, options)
    # A folder before what is mounted below it.
    return sorted(found, key=lambda share: share.path.count("/"))
