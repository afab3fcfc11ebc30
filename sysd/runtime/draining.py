# SPDX-License-Identifier: Apache-2.0
"""The unit that reads guests' consoles while the daemon is stopped (sysd.runtime.drain): how it begins and ends.

Without it a guest that writes more than fits into its terminal, its PID 1 perhaps, would wait until the daemon is back.
After a crash systemd starts the daemon again at once, and none is needed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from dbus_next import Variant

from sysd.runtime.drain import CONSOLES_EACH
from sysd.units import helper
from sysd.units.systemd import Properties, Systemd

UNIT = "syscont-drain.service"
COMMAND = ["/usr/bin/python3", "-I", "-m", "sysd.runtime.drain"]
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
"""To send lines to the journal by a buffer that takes many, and in the name of guests' processes (unix(7))."""


@dataclass(frozen=True, slots=True)
class Left:
    """A console to be read by another, in the name of a unit and its process; the descriptor stays the sender's."""

    unit: str
    name: str
    leader: int
    fd: int


async def begin(systemd: Systemd, consoles: Sequence[Left]) -> None:
    """Returns when it runs. Raises BusError, for one when the host goes down: guests go down before us then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        for first in range(0, len(consoles), CONSOLES_EACH):
            batch = consoles[first : first + CONSOLES_EACH]
            about = json.dumps([(one.unit, one.name, one.leader) for one in batch])
            socket.send_fds(ours, [about.encode()], [one.fd for one in batch])
        await systemd.wait_job(await systemd.start_transient(UNIT, _properties(), [theirs.fileno()]))


async def end(systemd: Systemd) -> None:
    await helper.stop_all(systemd, UNIT)


def _properties() -> Properties:
    return {
        **helper.hardened(),
        "Description": Variant("s", "Read the consoles of containers while syscontd is stopped"),
        "Slice": Variant("s", "syscont.slice"),
        "Type": Variant("s", "exec"),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "ExecStart": Variant("a(sasb)", [[COMMAND[0], COMMAND, False]]),
        "StandardInputFileDescriptor": Variant("h", 0),
        "CapabilityBoundingSet": Variant("t", 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN),
        "PrivateNetwork": Variant("b", True),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX"]]),
        "InaccessiblePaths": Variant("as", [*helper.SECRETS, "-/var/lib/syscont"]),
    }
