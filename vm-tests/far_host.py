# SPDX-License-Identifier: Apache-2.0
"""Two hosts with a cable between them, of which near knows far; and what is asked of both."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guests import syscont
from hosts import Host, Recipe

FAR, NEAR = "198.19.0.1", "198.19.0.2"
PORT = 8443
BRIDGE = "lan"
# Its address is to stay when a guest comes to it.
_BRIDGED = f"""
ip link show {BRIDGE} >/dev/null 2>&1 || ip link add {BRIDGE} address {{hardware}} type bridge
ip link set {BRIDGE} up; ip link set lan0 master {BRIDGE}
ip addr flush dev lan0; ip addr replace {{address}}/24 dev {BRIDGE}
"""


@contextmanager
def installed(kind: type[Host], deb: Path, variant: str = "plain") -> Iterator[Host]:
    """What both start from, off."""
    with kind(recipe=Recipe(variant=variant)) as one:
        one.install_deb(deb)
        one.power_off()
        yield one


@contextmanager
def joined(base: Host, *, bridged: bool = False) -> Iterator[tuple[Host, Host]]:
    """near, and far, which listens. Bridged, the cable leads to a bridge at both ends, and near listens, too."""
    with type(base)(base=base) as far, type(base)(base=base) as near:
        far.join(near)
        if bridged:
            bridge(near, far)
            syscont(near, "config", "set", f"core.https_address={NEAR}:{PORT}")
        syscont(far, "config", "set", f"core.https_address={FAR}:{PORT}")
        syscont(near, "remote", "add", "far", token(far, "near"))
        yield near, far


def token(host: Host, *name: str) -> str:
    return syscont(host, "remote", "token", *name).stdout.strip()


def bridge(near: Host, far: Host) -> None:
    """Also once more, after one of them has lost its power."""
    for number, (host, address) in enumerate(((far, FAR), (near, NEAR)), 1):
        host.sh(_BRIDGED.format(address=address, hardware=f"02:00:00:00:00:0{number}"))


def names(host: Host) -> list[str]:
    return [str(one["name"]) for one in json.loads(syscont(host, "list", "--format", "json").stdout)]
