# SPDX-License-Identifier: Apache-2.0
"""Networks and ports for tests of OVN."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from sysd.model.forwards import Forward
from sysd.network.ovn.northbound import Northbound
from sysd.network.ovn.values import OvnNetwork, OvnPort, OvnUplink
from tests.ovn.servers import Server

T = TypeVar("T")
address, interface, subnet = ipaddress.ip_address, ipaddress.ip_interface, ipaddress.ip_network

CHASSIS = "chassis-1"
UPLINK = OvnUplink(
    "uplink1", (interface("192.0.2.10/24"), interface("2001:db8::10/64")),
    (address("192.0.2.1"), address("2001:db8::1")), ((CHASSIS, 10), ("chassis-2", 5)), vlan=7,
)  # fmt: skip
RED = OvnNetwork(
    "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "red", "02:73:63:00:00:01", 1442,
    (interface("10.1.0.1/24"), interface("fd01::1/64")),
    nat=(address("192.0.2.10"), address("2001:db8::10")), domain="red.example", search=("red.example", "example"),
    nameservers=(address("192.0.2.53"), address("192.0.2.54"), address("2001:db8::53")), uplink=UPLINK,
    reserved=((address("10.1.0.2"), address("10.1.0.9")),),
    forwards=(
        Forward("192.0.2.100", "10.1.0.21", ports=[
            {"protocol": "tcp", "listen": "80,8000-8001", "address": "10.1.0.20", "target": "8080"},
            {"protocol": "udp", "listen": "53", "address": "10.1.0.20"},
        ]),
        Forward("2001:db8::100", ports=[{"protocol": "tcp", "listen": "80", "address": "fd01::20"}]),
    ),
)  # fmt: skip
BLUE = OvnNetwork(
    "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", "blue", "02:73:63:00:00:02", 1442,
    (interface("10.2.0.1/24"), interface("fd02::1/64")), domain="blue.example", stateful6=True,
    uplink=replace(UPLINK, addresses=(interface("192.0.2.11/24"),), gateways=(address("192.0.2.1"),)),
)  # fmt: skip
WEB = OvnPort("i1-eth0", "02:73:63:00:01:01", (address("10.1.0.20"), address("fd01::20")), hostname="Web")
MAIL = OvnPort("i2-eth0", "02:73:63:00:01:02", (address("10.1.0.21"),), hostname="mail")
FAR = OvnPort("i3-eth0", "02:73:63:00:02:01", (address("10.2.0.20"), address("fd02::20")), hostname="far")


def use(server: Server, *steps: Callable[[Northbound], Coroutine[Any, Any, Any]]) -> list[Any]:
    """What each of them returns."""

    async def all_of_them() -> list[Any]:
        north = Northbound(server.remote)
        try:
            return [await step(north) for step in steps]
        finally:
            await north.close()

    return asyncio.run(all_of_them())
