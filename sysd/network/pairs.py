# SPDX-License-Identifier: Apache-2.0
"""A cable between a bridge of the kernel's and a switch of Open vSwitch's: a pair of links, one at each end."""

from __future__ import annotations

from pyroute2 import IPRoute

from sysd.model.errors import FailedError
from sysd.network import links


def ensure(plug: str, bridge: int, other: str, mtu: int) -> None:
    """Let a link be in the bridge of that index, and its other end be there; both up. Blocks for milliseconds.

    Raises FailedError when the host has links of these names that are no such pair."""
    with IPRoute() as route:
        if not links.interface_index(plug) and not links.interface_index(other):
            route.link("add", ifname=plug, kind="veth", peer={"ifname": other})
        for name in (plug, other):
            if links.kind_of(name) != "veth":
                raise FailedError(f"the host has a link {name} that is another's", f"'ip link delete {name}' first")
            # Neither is to have an address: what goes through it is not for the host.
            links.make_no_address(name)
        route.link("set", index=links.interface_index(plug), mtu=mtu, master=bridge, state="up")
        route.link("set", index=links.interface_index(other), mtu=mtu, state="up")
