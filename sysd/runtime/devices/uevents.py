# SPDX-License-Identifier: Apache-2.0
"""Hardware as it comes and goes: the kernel's uevents (netlink(7), NETLINK_KOBJECT_UEVENT), no udev needed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_NETLINK_KOBJECT_UEVENT = 15
_FROM_KERNEL = 1
"""The multicast group of the kernel's own messages; those of the second one are udev's."""
_BUFFER = 1 << 20
_READS = 256


def concerns_devices(message: bytes) -> bool:
    """Whether a uevent tells of a device node that came or went."""
    head, *fields = message.split(b"\0")
    action = head.partition(b"@")[0]
    return action in (b"add", b"remove", b"bind", b"unbind", b"change") and any(
        field.startswith((b"DEVNAME=", b"PRODUCT=")) for field in fields
    )


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
        self._socket.bind((0, _FROM_KERNEL))
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
                data, (sender, _) = self._socket.recvfrom(1 << 14)
            except BlockingIOError:
                break
            except OSError:  # some were lost: whatever they told of is looked for
                concerned = True
                continue
            concerned |= sender == 0 and concerns_devices(data)
        if concerned:
            self._settle()

    def _settle(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.SETTLE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()
