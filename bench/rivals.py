# SPDX-License-Identifier: Apache-2.0
"""The same steps for syscont and for Incus: each rival's command lines."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod

from hosts import Host

# `systemctl is-system-running --wait` fails while the guest has no bus yet; Incus' user has to wait for that first.
BOOTED = "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.01; done; systemctl is-system-running --wait || :"


class Rival(ABC):
    name: str
    unit: str
    keeps_monitors = False
    """Whether each running instance has a process of the rival's own beside it."""

    @abstractmethod
    def launch(self, image: str, name: str, *, wait: bool = False) -> list[str]:
        """Make an instance and run it; wait: until its guest has booted."""

    @abstractmethod
    def create(self, image: str, name: str) -> list[str]: ...

    def start(self, name: str) -> list[str]:
        return [self.name, "start", name]

    def stop(self, name: str) -> list[str]:
        return [self.name, "stop", "--force", name]

    def delete(self, name: str) -> list[str]:
        return [self.name, "delete", "--force", name]

    def snapshot(self, name: str, snapshot: str) -> list[str]:
        return [self.name, "snapshot", "create", name, snapshot]

    def exec(self, name: str, *argv: str) -> list[str]:
        return [self.name, "exec", name, "--", *argv]

    def list(self) -> list[str]:
        return [self.name, "list"]

    def version(self, host: Host) -> str:
        return host.run(["dpkg-query", "-W", "-f", "${Version}", self.name]).stdout


class Syscont(Rival):
    name = "syscont"
    unit = "syscontd.service"

    def launch(self, image: str, name: str, *, wait: bool = False) -> list[str]:
        return ["syscont", "launch", *(["--wait"] if wait else []), image, name]

    def create(self, image: str, name: str) -> list[str]:
        return ["syscont", "create", image, name]


class Incus(Rival):
    name = "incus"
    unit = "incus.service"
    keeps_monitors = True

    def launch(self, image: str, name: str, *, wait: bool = False) -> list[str]:
        argv = ["incus", "launch", "--quiet", image, name]
        if not wait:
            return argv
        script = f'"$@" && exec incus exec "$0" -- sh -c {shlex.quote(BOOTED)}'
        return ["sh", "-c", script, name, *argv]

    def create(self, image: str, name: str) -> list[str]:
        return ["incus", "create", "--quiet", image, name]
