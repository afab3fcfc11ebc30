# SPDX-License-Identifier: Apache-2.0
"""Whom a port of a bridge reaches: others that are not isolated, and which VLANs, as rtnetlink requests.

Each is one of its own: the kernel takes what is said of a port only once it is one. Sources: bridge(8),
linux/if_bridge.h.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sysd.model.devices.nic import Vlans
from sysd.network import netlink
from sysd.network.links import NLM_REQUEST_ACK
from sysd.network.netlink import attribute, message, nested

_ROUTE = 0
_RTM_NEWLINK, _RTM_SETLINK, _RTM_DELLINK = 16, 19, 17
_AF_BRIDGE = 7
_LINKINFO, _SLAVE_KIND, _SLAVE_DATA, _ISOLATED = 18, 4, 5, 33
_AF_SPEC, _VLAN_INFO = 26, 2
_PVID, _UNTAGGED, _BEGIN, _END = 2, 4, 8, 16
_ALL = (1, 4094)


def requests(index: int, vlans: Vlans, *, isolated: bool) -> list[bytes]:
    """For a port that has just become one; index: the link's, or what stands for it."""
    found = []
    if isolated:
        data = nested(_SLAVE_DATA, attribute(_ISOLATED, b"\1"))
        info = nested(_LINKINFO, attribute(_SLAVE_KIND, b"bridge\0"), data)
        found.append(_request(_RTM_NEWLINK, 0, index, info))
    if vlans.untagged is not None:
        # Whichever the bridge has put it in.
        found.append(_vlans(_RTM_DELLINK, index, _ALL))
    if vlans.untagged:
        found.append(_vlans(_RTM_SETLINK, index, (vlans.untagged, vlans.untagged), _PVID | _UNTAGGED))
    found += [_vlans(_RTM_SETLINK, index, each) for each in vlans.tagged]
    return found


def put(index: int, bridge: int, vlans: Vlans, *, isolated: bool) -> None:
    """Into a bridge, down until it is what is said; raises OSError or NetlinkError, and then it is in none."""
    with IPRoute() as route:
        try:
            route.link("set", index=index, state="down")
            route.link("set", index=index, master=bridge)
            for each in requests(index, vlans, isolated=isolated):
                netlink.ask(_ROUTE, each)
            route.link("set", index=index, state="up")
        except BaseException:
            with contextlib.suppress(NetlinkError):
                route.link("set", index=index, master=0)
            raise


def _vlans(kind: int, index: int, numbers: tuple[int, int], flags: int = 0) -> bytes:
    return _request(kind, _AF_BRIDGE, index, nested(_AF_SPEC, *_numbers(numbers, flags)))


def _numbers(numbers: tuple[int, int], flags: int) -> Iterator[bytes]:
    first, last = numbers
    ends = ((_BEGIN, first), (_END, last)) if first < last else ((0, first),)
    for end, number in ends:
        yield attribute(_VLAN_INFO, struct.pack("=HH", flags | end, number))


def _request(kind: int, family: int, index: int, attributes: bytes) -> bytes:
    return message(kind, NLM_REQUEST_ACK, struct.pack("=BxHiII", family, 0, index, 0, 0) + attributes)
