# SPDX-License-Identifier: Apache-2.0
"""When instances start with the host, and how they stop with it."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.values import boolean, integer

KEYS = (
    Key("boot.autostart", boolean, "false", "Start the instance when the host boots.", live=True),
    Key(
        "boot.autostart.delay",
        integer(0, 3600),
        "0",
        "Seconds to wait after the instance was started before the next one is.",
        live=True,
    ),
    Key(
        "boot.autostart.priority",
        integer(-(10**6), 10**6),
        "0",
        "Instances with a higher number are started first.",
        live=True,
    ),
    Key(
        "boot.host_shutdown_timeout",
        integer(0, 86400),
        "30",
        "Seconds that the guest gets to stop before it is killed.",
    ),
)
