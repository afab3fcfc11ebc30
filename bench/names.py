# SPDX-License-Identifier: Apache-2.0
"""How soon an instance's name is known at somebody's own DNS server: Knot, as a secondary of a zone.

There is no one to compare with: Incus 6.0 notifies nobody, so a secondary of its zones asks when its own time has come.
"""

from __future__ import annotations

import base64
import time
from pathlib import Path

from hosts import Host, HostError

ZONE, PRIMARY, SECONDARY = "bench.example", "127.0.0.11", "127.0.0.14"
GOAL = 0.150
"""Seconds."""
_SECRET = base64.b64encode(bytes(32)).decode()
_PAUSE = 2.5
"""Seconds. Knot asks for a zone once a second at most, whatever it is told in between."""
_KNOT = f"""
server:
    listen: {SECONDARY}@53
    rundir: /run/bench-knot
database:
    storage: /run/bench-knot
key:
  - id: {ZONE}_knot.
    algorithm: hmac-sha256
    secret: {_SECRET}
remote:
  - id: primary
    address: {PRIMARY}@53
    via: {SECONDARY}
    key: {ZONE}_knot.
acl:
  - id: told
    key: {ZONE}_knot.
    action: notify
zone:
  - domain: {ZONE}
    storage: /run/bench-knot
    master: primary
    acl: told
"""


def set_up(host: Host, network: str) -> None:
    """A zone of a network's, and who follows it."""
    host.push(Path(__file__).with_name("known.py"), "/run/known.py")
    host.write_text("/run/bench-knot.conf", _KNOT)
    host.sh("systemctl disable -q --now knot.service")  # Debian's own instance
    host.sh(f"mkdir -p /run/bench-knot; ip address add {SECONDARY}/32 dev lo")
    peer = f"peers.knot.address={SECONDARY} peers.knot.key={_SECRET}"
    host.sh(f"syscont network zone create {ZONE} {peer} dns.nameservers=ns1.example.com")
    host.sh(f"syscont config set core.dns_address={PRIMARY}; syscont network set {network} dns.zone.forward={ZONE}")
    host.sh("systemd-run -q --unit=bench-knot knotd -c /run/bench-knot.conf")
    time.sleep(_PAUSE)


def take_away(host: Host, network: str) -> None:
    host.sh(f"systemctl stop bench-knot; ip address del {SECONDARY}/32 dev lo; syscont config unset core.dns_address")
    host.sh(f"syscont network unset {network} dns.zone.forward; syscont network zone delete {ZONE}")


def seconds(host: Host, network: str, address: str) -> float:
    """From the launch of an instance with an address of its own until Knot knows its name."""
    nic = f"eth0,type=nic,network={network},ipv4.address={address}"
    launch = ["syscont", "launch", "busybox", "named", "-d", nic]
    done = host.run(["python3", "-IS", "/run/known.py", SECONDARY, f"named.{ZONE}", *launch], check=False)
    host.run(["syscont", "delete", "--force", "named"])
    time.sleep(_PAUSE)
    if done.returncode:
        raise HostError(done.stderr.strip())
    return float(done.stdout)
