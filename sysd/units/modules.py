# SPDX-License-Identifier: Apache-2.0
"""Modules of the host's kernel, which the daemon's own sandbox does not let it load: by a unit."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from sysd.model.errors import FailedError
from sysd.units import helper
from sysd.units.systemd import Systemd

UNIT = "syscont-modprobe@{}.service"
MODPROBE = "/sbin/modprobe"
LIMIT = 30.0
_DRIVERS = Path("/proc/devices")
_numbers = itertools.count(1)


def has_nodes(driver: str) -> bool:
    """Whether the kernel has device nodes of a driver's, as DeviceAllow= names them: char-DRIVER."""
    return driver in _DRIVERS.read_text().split()


async def ensure(systemd: Systemd, name: str, is_there: Callable[[], bool]) -> None:
    """What a module brings is there, built in or loaded. Raises FailedError."""
    if is_there():
        return
    unit = UNIT.format(f"{os.getpid()}-{next(_numbers)}")
    argv = [MODPROBE, "--use-blacklist", "--", name]
    try:
        await helper.run(systemd, helper.Helper(unit, f"Load {name}", argv, {}), LIMIT)
    except FailedError as error:
        raise FailedError(f"the host's kernel has no {name}: {error.message}") from None
    if not is_there():
        raise FailedError(f"the host's kernel has no {name}")
