# SPDX-License-Identifier: Apache-2.0
"""Another machine on the network of a test's host: a network namespace behind a link of its own."""

import shlex

from guests import unique
from hosts import Host

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""The host's address on that link, and the other's."""


class Far:
    """Its links, and the one that leads to it, go with it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = unique("far")
        host.sh(f"ip netns add {self.name}; ip link add wan0 type veth peer name wan1 netns {self.name}")
        host.sh(f"ip addr add {HERE}/24 dev wan0; ip link set wan0 up")
        self.sh(f"ip addr add {THERE}/24 dev wan1; ip link set wan1 up; ip link set lo up")

    def sh(self, script: str) -> str:
        return self.host.sh(f"ip netns exec {self.name} sh -ec {shlex.quote(script)}")

    def close(self) -> None:
        self.host.sh(f"ip netns del {self.name}; ip link del wan0 2>/dev/null || true")
