# SPDX-License-Identifier: Apache-2.0
"""A guest on a network with ACLs, and who tries to reach whom."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from far import HERE, THERE, Far
from guests import Instance, program, python, syscont, unique, until
from hosts import Host

NETWORK, ACL = "acl0", "web"
GATEWAY, GATEWAY6 = "10.86.0.1", "fd86::1"
HOST_SPACE = "/proc/1/ns/net"
OPEN, REFUSED, SILENT = "open", "refused", "silent"


@dataclass(frozen=True)
class World:
    """The guest and the far machine listen to ports 80 and 81, the host to 8086."""

    host: Host
    far: Far
    guest: Instance
    neighbour: Instance
    address: str
    address6: str

    def tried(self) -> dict[str, str]:
        """What comes of each way to connect."""
        guest, neighbour = (f"/proc/{one.leader}/ns/net" for one in (self.guest, self.neighbour))
        far = f"/run/netns/{self.far.name}"
        ways = {
            "in 80": (far, self.address, "80"),
            "in 81": (far, self.address, "81"),
            "in6 80": (HOST_SPACE, self.address6, "80"),
            "out 80": (guest, THERE, "80"),
            "out 81": (guest, THERE, "81"),
            "from host": (HOST_SPACE, self.address, "80"),
            "to host": (guest, GATEWAY, "8086"),
            "dns": (guest, GATEWAY, "53"),
            "neighbour": (neighbour, self.address, "80"),
        }
        words = [word for way in ways.values() for word in way]
        return dict(zip(ways, python(self.host, "knock", *words).stdout.split(), strict=True))


@contextlib.contextmanager
def built(host: Host, busybox: str) -> Iterator[World]:
    far = Far(host)
    far.sh(f"ip route add 10.86.0.0/24 via {HERE}")
    config = [f"ipv4.address={GATEWAY}/24", f"ipv6.address={GATEWAY6}/64"]
    syscont(host, "network", "create", NETWORK, *config)
    guest, neighbour = Instance(host, unique()), Instance(host, unique())
    for one, end in ((guest, 5), (neighbour, 6)):
        nic = f"eth0,type=nic,network={NETWORK},ipv4.address=10.86.0.{end}"
        syscont(host, "launch", "-d", nic, busybox, one.name)
    spaces = [f"/proc/{guest.leader}/ns/net", f"/run/netns/{far.name}"]
    ears = [host.spawn([*program("listeners"), space, "80", "81"], stdin=subprocess.PIPE) for space in spaces]
    ears.append(host.spawn([*program("listeners"), HOST_SPACE, "8086"], stdin=subprocess.PIPE))
    for each in ears:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    made = World(host, far, guest, neighbour, guest.address(), guest.address(6))
    neighbour.address()
    # Addresses of IPv6 are there before anybody may use them (RFC 4862, 5.4).
    until(host, lambda: set(made.tried().values()) == {OPEN})
    yield made
    for each in ears:
        each.communicate()
    for one in (guest, neighbour):
        one.do("delete", "--force")
    syscont(host, "network", "delete", NETWORK)
    far.close()


def acls(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(syscont(host, "network", "acl", "list", "--format", "json").stdout)
    return found


def acl(host: Host, *words: str, check: bool = True) -> str:
    return syscont(host, "network", "acl", *words, check=check).stderr


def use(host: Host, *rules: str, name: str = ACL) -> None:
    acl(host, "create", name)
    for rule in rules:
        acl(host, "rule", "add", name, *rule.split())
    syscont(host, "network", "set", NETWORK, f"security.acls={name}")
