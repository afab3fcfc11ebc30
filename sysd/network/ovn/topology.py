# SPDX-License-Identifier: Apache-2.0
"""A network in OVN: guests' switch, router, and the switch that leads to the uplink; what the router does for guests.

Its rows are made of what is said alone, and never of what is there, so that what someone took away comes back, and a
second ensure() changes nothing. The names are told by `northbound`. Sources: ovn-nb(5), ovn-architecture(7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sysd.model.addresses import SLAAC_LENGTH, Address, Interface
from sysd.model.errors import InvalidError
from sysd.model.forwards import PROTOCOLS, Forward
from sysd.network.ovn import rows
from sysd.network.ovn.northbound import Northbound, name, word
from sysd.network.ovn.rows import TOPOLOGY, Columns, Owner, Ref, Row, settle
from sysd.network.ovn.values import OvnNetwork, OvnUplink, text

ROUTER = Ref("Logical_Router", "router")
INSIDE = Ref("Logical_Switch", "inside")
OUTSIDE = Ref("Logical_Switch", "outside")
GATEWAYS = Ref("HA_Chassis_Group", "gateways")
GUESTS = Ref("Port_Group", "guests")
NAMES = Ref("DNS", "names")
DHCP = {4: Ref("DHCP_Options", "dhcp4"), 6: Ref("DHCP_Options", "dhcp6")}
MAX_PORTS = 2000
"""In a forward, for each protocol: OVN has a rule for every one of them."""
DROP = 500
"""Priority of what a router lets nobody do."""
ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


async def ensure(north: Northbound, network: OvnNetwork, *, settled: bool = False) -> bool:
    """Let OVN have the network as it is said, its ports and ACLs left as they are; whether anything had to change.

    Raises FailedError, also when something of others' has a name that is needed.
    """
    wanted = topology(network)
    return await north.change(lambda view: settle(view, Owner(network.uuid, TOPOLOGY), wanted), settled=settled)


async def remove(north: Northbound, uuid: str, *, settled: bool = False) -> bool:
    """Leave nothing of a network, its ports, ACLs and peerings with it; whether there was anything."""
    return await north.change(lambda view: rows.remove(view, uuid), settled=settled)


async def networks(north: Northbound) -> list[str]:
    """UUIDs of those that OVN has something of."""
    return await north.read(lambda view: view.networks())


def topology(network: OvnNetwork) -> list[Row]:
    return [
        *_inside(network),
        *(row for version in (4, 6) for row in _dhcp(network, version)),
        *(_outside(network, network.uplink) if network.uplink else ()),
        *(row for forward in network.forwards for row in _forward(network, forward)),
    ]


def has_dhcp(network: OvnNetwork, version: int) -> bool:
    return network.address(version) is not None and (network.dhcp4 if version == 4 else network.dhcp6)


def _inside(network: OvnNetwork) -> Iterator[Row]:
    uuid = network.uuid
    # Neighbours are asked for when they are needed: else each router on an uplink is told of all others.
    routing = {"always_learn_from_arp_request": "false", "dynamic_neigh_routers": "true"}
    router: Columns = {"name": name(uuid, "lr"), "options": routing}
    yield Row("Logical_Router", ROUTER.key, router)
    switch: Columns = {"name": name(uuid, "int"), "other_config": _leasing(network)}
    yield Row("Logical_Switch", INSIDE.key, switch, also={"syscont-name": network.name})
    yield Row("Port_Group", GUESTS.key, {"name": word(uuid, "guests")})
    yield Row("DNS", NAMES.key, {}, (INSIDE,))
    own = tuple(str(each) for each in network.addresses)
    port: Columns = {
        "name": name(uuid, "lr-int"), "mac": network.mac, "networks": own, "ipv6_ra_configs": _advertised(network),
    }  # fmt: skip
    yield Row("Logical_Router_Port", "router-inside", port, (ROUTER,))
    yield _to_router("inside-router", name(uuid, "int-lr"), name(uuid, "lr-int"), INSIDE)


def _to_router(key: str, own: str, port: str, switch: Ref, **options: str) -> Row:
    columns: Columns = {
        "name": own, "type": "router", "addresses": ("router",), "options": {"router-port": port, **options},
    }  # fmt: skip
    return Row("Logical_Switch_Port", key, columns, (switch,))


def _leasing(network: OvnNetwork) -> dict[str, str]:
    """Of what ovn-northd gives addresses to ports that have none of their own."""
    found = {}
    if four := network.address(4):
        spans = [(four.ip, four.ip), *(span for span in network.reserved if span[0].version == 4)]
        found["subnet"] = str(four.network)
        found["exclude_ips"] = " ".join(str(a) if a == b else f"{a}..{b}" for a, b in spans)
    six = network.address(6)
    if six and six.network.prefixlen == SLAAC_LENGTH:
        found["ipv6_prefix"] = str(six.network.network_address)
    return found


def _advertised(network: OvnNetwork) -> dict[str, str]:
    """To guests, as routers advertise themselves; also to those that have their address by DHCP, for the way out."""
    if not network.address(6):
        return {}
    mode = "slaac"
    if network.dhcp6:
        mode = "dhcpv6_stateful" if network.stateful6 else "dhcpv6_stateless"
    found = {"address_mode": mode, "send_periodic": "true", "min_interval": "10", "max_interval": "60"}
    if network.mtu >= 1280:
        found["mtu"] = str(network.mtu)
    if servers := network.servers(6):
        found["rdnss"] = str(servers[0])
    if search := _search(network):
        found["dnssl"] = ",".join(search)
    return found


def _search(network: OvnNetwork) -> list[str]:
    return [text(each) for each in network.search or ((network.domain,) if network.domain else ())]


def _dhcp(network: OvnNetwork, version: int) -> Iterator[Row]:
    own = network.address(version)
    if own and has_dhcp(network, version):
        options = _leased(network, own) if version == 4 else _told(network)
        yield Row("DHCP_Options", DHCP[version].key, {"cidr": str(own.network), "options": options})


def _leased(network: OvnNetwork, own: Interface) -> dict[str, str]:
    found = {
        "server_id": str(own.ip), "server_mac": network.mac, "router": str(own.ip), "lease_time": str(network.lease),
        "mtu": str(network.mtu),
    }  # fmt: skip
    if servers := network.servers(4):
        found["dns_server"] = _several(servers)
    if network.domain:
        found["domain_name"] = f'"{text(network.domain)}"'
    if network.search:
        found["domain_search_list"] = f'"{",".join(_search(network))}"'
    return found


def _told(network: OvnNetwork) -> dict[str, str]:
    found = {"server_id": network.mac} | ({} if network.stateful6 else {"dhcpv6_stateless": "true"})
    if servers := network.servers(6):
        found["dns_server"] = _several(servers)
    if search := _search(network):
        found["domain_search"] = f'"{",".join(search)}"'
    return found


def _several(servers: Sequence[Address]) -> str:
    return f"{{{', '.join(map(str, servers))}}}" if len(servers) > 1 else str(servers[0])


def _outside(network: OvnNetwork, uplink: OvnUplink) -> Iterator[Row]:
    uuid, port = network.uuid, name(network.uuid, "lr-ext")
    yield Row("Logical_Switch", OUTSIDE.key, {"name": name(uuid, "ext")})
    world: Columns = {
        "name": name(uuid, "ext-net"), "type": "localnet", "addresses": ("unknown",),
        "options": {"network_name": text(uplink.provider)},
    }  # fmt: skip
    if uplink.vlan:
        world["tag"] = uplink.vlan
    yield Row("Logical_Switch_Port", "outside-world", world, (OUTSIDE,))
    # Who is outside is told when the router comes to be at another host.
    yield _to_router("outside-router", name(uuid, "ext-lr"), port, OUTSIDE, **{"nat-addresses": "router"})
    yield Row("HA_Chassis_Group", GATEWAYS.key, {"name": name(uuid, "gw")})
    for chassis, priority in uplink.chassis:
        yield Row("HA_Chassis", f"chassis/{chassis}", {"chassis_name": chassis, "priority": priority}, (GATEWAYS,))
    columns: Columns = {
        "name": port, "mac": network.mac, "networks": tuple(str(each) for each in uplink.addresses),
        "ha_chassis_group": GATEWAYS, "options": {"gateway_mtu": str(network.mtu)},
    }  # fmt: skip
    yield Row("Logical_Router_Port", "router-outside", columns, (ROUTER,))
    for gateway in uplink.gateways:
        way = {"ip_prefix": ANYWHERE[gateway.version], "nexthop": str(gateway), "output_port": port}
        yield Row("Logical_Router_Static_Route", f"default{gateway.version}", way, (ROUTER,))
    for subnet in network.subnets:
        # Who is inside is known by his address, and so nobody outside has one of these.
        match = f'inport == "{port}" && ip{subnet.version}.src == {subnet}'
        policy: Columns = {"priority": DROP, "match": match, "action": "drop"}
        yield Row("Logical_Router_Policy", f"inside{subnet.version}", policy, (ROUTER,))
    for address in network.nat:
        if own := network.address(address.version):
            nat = {"type": "snat", "external_ip": str(address), "logical_ip": str(own.network)}
            yield Row("NAT", f"snat{address.version}", nat, (ROUTER,))


def _forward(network: OvnNetwork, forward: Forward) -> Iterator[Row]:
    """By the router for who is outside, and by the switch for guests, who find each other there as well."""
    for protocol in PROTOCOLS:
        vips = {}
        for port in forward.parsed:
            for ranges, target in port.pairs if port.protocol == protocol else ():
                for number in (number for first, last in ranges for number in range(first, last + 1)):
                    vips[_end(forward.listen, number)] = _end(port.address, target or number)
        if len(vips) > MAX_PORTS:
            hint = "say a target for all of it instead"
            raise InvalidError(f"the forward of {forward.listen}: more than {MAX_PORTS} {protocol} ports in OVN", hint)
        if vips:
            yield _balancer(network, forward, protocol, vips)
    if forward.target:
        yield _balancer(network, forward, "", {forward.listen: forward.target})


def _balancer(network: OvnNetwork, forward: Forward, protocol: str, vips: dict[str, str]) -> Row:
    own = name(network.uuid, "fw", forward.listen, protocol or "all")
    columns: Columns = {"name": own, "protocol": protocol, "vips": vips}
    return Row("Load_Balancer", f"forward/{forward.listen}/{protocol}", columns, (ROUTER, INSIDE))


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
