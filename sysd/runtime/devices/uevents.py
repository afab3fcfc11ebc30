# SPDX-License-Identifier: Apache-2.0
"""Hardware as it comes and goes: the kernel's uevents (netlink(7), NETLINK_KOBJECT_UEVENT).

No udev is needed, but where it runs its own messages are heard too: they come when its links are in place.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_NETLINK_KOBJECT_UEVENT = 15
_GROUPS = 1 | 2
"""The kernel's own messages, and udev's. Neither is believed in more than that there is something to look for."""
_UDEV, _UDEV_HEADER = b"libudev\0", 40
"""What a message of udev's begins with, and the length of what precedes its fields (libsystemd, device-monitor.c)."""
_BUFFER = 1 << 20
_READS = 256


def concerns_devices(message: bytes) -> bool:
    """Whether a uevent tells of a device node that came or went."""
    fields = (message[_UDEV_HEADER:] if message.startswith(_UDEV) else message).split(b"\0")
    return any(field.startswith((b"DEVNAME=", b"PRODUCT=")) for field in fields)


class UeventWatch:
    """Calls changed, a moment after the last of a burst of events, when hardware came or went."""

    SETTLE = 0.3
    """Seconds; one USB device is a dozen events."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, _GROUPS))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if self._timer:
            self._timer.cancel()

    def _read(self) -> None:
        concerned = False
        for _ in range(_READS):
            try:
                data = self._socket.recv(1 << 14)
            except BlockingIOError:
                break
            except OSError:  # some were lost: whatever they told of is looked for
                concerned = True
                continue
            concerned |= concerns_devices(data)
        if concerned:
            self._settle()

    def _settle(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.SETTLE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()
