# SPDX-License-Identifier: Apache-2.0
"""What is done in another way for containers than for virtual machines."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sysd.model.instance import Instance
from sysd.units.systemd import Properties


class Runtime(Protocol):
    """Instances of one kind. The caller holds an instance's lock; those named expanded have what profiles give them."""

    async def begin(self, expanded: Instance, upper: Path) -> None:
        """Put into the folder of a new one what its first start finds there. Raises OSError or FailedError."""

    async def prepare(self, expanded: Instance) -> dict[str, Properties]:
        """Write what the launcher needs; properties of the unit, and of those that it pulls in. Nothing of it needs the
        daemon later."""

    def live_properties(self, expanded: Instance) -> Properties:
        """What its limits are as properties of its unit, running or not."""

    async def change_limits(self, expanded: Instance) -> None:
        """Put in force in a running one what is no property of its unit. Raises FailedError."""

    async def change_devices(self, instance: Instance) -> None:
        """Give a running one the devices of its changed configuration, or leave it as it was: FailedError."""

    async def change_stopped(self, expanded: Instance) -> None:
        """Let what a stopped one has on disk be what its changed configuration says. Raises FailedError or
        InvalidError."""

    async def freeze(self, instance: Instance) -> None:
        """Raises BusError or FailedError."""

    async def thaw(self, instance: Instance) -> None:
        """Raises BusError or FailedError."""

    async def why(self, instance: Instance) -> str:
        """More about a launch that has just failed; empty when there is nothing to add."""

    async def power_off(self, instance: Instance, timeout: float | None) -> None:
        """Before its unit is stopped: what systemd would not do by itself. Returns when the guest has gone, when it is
        systemd's turn, or after timeout seconds; None for as long as the configuration gives it."""

    async def forget(self, instance: Instance) -> None:
        """Remove what the last run of a stopped one left in /run."""
