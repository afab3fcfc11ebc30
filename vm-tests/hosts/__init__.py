# SPDX-License-Identifier: Apache-2.0
"""Real hosts to test on: machines of their own that run systemd as PID 1."""

from .command import CommandError, HostError
from .container import ContainerHost
from .host import Host
from .rootfs import Recipe
from .vm import VmHost

KINDS: dict[str, type[Host]] = {kind.kind: kind for kind in (ContainerHost, VmHost)}

__all__ = ["KINDS", "CommandError", "ContainerHost", "Host", "HostError", "Recipe", "VmHost"]
