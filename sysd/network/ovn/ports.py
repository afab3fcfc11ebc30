# SPDX-License-Identifier: Apache-2.0
"""Ports of guests in OVN: which addresses they have and may use, what leads to them, and their names in DNS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sysd.model.addresses import Address
from sysd.model.errors import FailedError
from sysd.network.ovn.acls import OWN_FIRST, RESTRICTED, acl_group, default_rules
from sysd.network.ovn.northbound import Northbound, digest, name, word
from sysd.network.ovn.rows import ROW, Columns, Owner, Ref, Row, View, settle
from sysd.network.ovn.topology import DHCP, GUESTS, INSIDE, NAMES, ROUTER, has_dhcp
from sysd.network.ovn.values import OvnNetwork, OvnPort, check_port, text

PART = "port/"
_NIC = "nic"
_RECORDS = "syscont-records"
"""In external_ids of a port: what of the network's names is because of it."""
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class PortState:
    """iface_id: what the local Open vSwitch has to say of the interface. addresses: its own, or those OVN gave it."""

    id: str
    iface_id: str
    mac: str
    addresses: tuple[Address, ...]
    up: bool


def iface_id(network: str, port: str) -> str:
    return name(network, "nic", port)


async def add_port(north: Northbound, network: OvnNetwork, port: OvnPort, *, settled: bool = False) -> bool:
    """Let OVN have the port as it is said, also if it has it otherwise; whether anything had to change."""
    return await add_ports(north, network, [port], settled=settled)


async def add_ports(
    north: Northbound, network: OvnNetwork, ports: Sequence[OvnPort], *, settled: bool = False
) -> bool:
    """Several in one transaction."""
    for port in ports:
        check_port(network, port)
    wanted = [(_owner(network.uuid, port.id), list(_rows(network, port))) for port in ports]

    def work(view: View) -> None:
        gone, new = {}, {}
        for owner, rows in wanted:
            gone.update(_records(view, owner))
            new.update(_read(next(row.also[_RECORDS] for row in rows if row.key == _NIC)))
            settle(view, owner, rows)
        _rename(view.resolve(network.uuid, NAMES), gone, new)

    return await north.change(work, settled=settled)


async def remove_port(north: Northbound, network: str, port: str, *, settled: bool = False) -> bool:
    """Leave nothing of it; whether there was anything."""
    owner = _owner(network, port)

    def work(view: View) -> None:
        gone = _records(view, owner)
        settle(view, owner, ())
        if names := view.find(Owner(network, NAMES.part), NAMES.table, NAMES.key):
            _rename(names, gone, {})

    return await north.change(work, settled=settled)


async def ports_of(north: Northbound, network: str) -> list[PortState]:
    """All of a network's guests, by their names."""

    def work(view: View) -> list[PortState]:
        found = [_state(row) for row in view.of_network(network, "Logical_Switch_Port") if _is_guest(row)]
        return sorted(found, key=lambda state: state.id)

    return await north.read(work)


async def given(north: Northbound, network: str, names: Sequence[str]) -> dict[str, tuple[Address, ...]]:
    """Addresses of those of some ports that have any by now, and of those that were given any since this was asked."""

    def work(view: View) -> dict[str, tuple[Address, ...]]:
        rows = [view.find(_owner(network, each), "Logical_Switch_Port", _NIC) for each in names]
        found = [_state(row) for row in (*rows, *view.answered(network, "Logical_Switch_Port")) if row is not None]
        return {each.id: each.addresses for each in found if each.addresses}

    return await north.read(work)


async def addresses_of(north: Northbound, network: str, port: str) -> tuple[Address, ...]:
    """Of a port, when ovn-northd has given it some. Raises FailedError when it has not, after a while."""
    deadline = time.monotonic() + north.patience
    while True:
        found = await north.read(lambda view: _given(view, _owner(network, port)))
        if found:
            return found
        if time.monotonic() >= deadline:
            raise FailedError(f"OVN gives port {port} no address", "is ovn-northd running, and an address free?")
        await asyncio.sleep(_LOOK)


def _owner(network: str, port: str) -> Owner:
    return Owner(network, PART + port)


def _rows(network: OvnNetwork, port: OvnPort) -> Iterator[Row]:
    own = port.all_addresses(network)
    columns: Columns = {
        "name": iface_id(network.uuid, port.id),
        "addresses": (" ".join([port.mac, *(["dynamic"] if port.is_dynamic(network) else map(str, own))]),),
        "port_security": _allowed(network, port, own) if port.secured else (),
        "enabled": port.enabled,
    }
    for version in (4, 6):
        if has_dhcp(network, version):
            columns[f"dhcpv{version}_options"] = DHCP[version]
    groups = [acl_group(acl) for acl in port.acls] + ([RESTRICTED] if port.acls else [])
    defaults = Ref("Port_Group", "defaults", PART + port.id)
    if port.acls and port.defaults:
        group = word(network.uuid, "nic", digest(port.id))
        yield Row(defaults.table, defaults.key, {"name": group})
        yield from default_rules(network, defaults, group, port.defaults, OWN_FIRST)
        groups.append(defaults)
    said = json.dumps(_names(network, port, own), sort_keys=True)
    yield Row("Logical_Switch_Port", _NIC, columns, (INSIDE, GUESTS, *groups), {_RECORDS: said})
    yield from _ways(network, port, own)


def _allowed(network: OvnNetwork, port: OvnPort, own: list[Address]) -> tuple[str, ...]:
    """What the guest may send from. Until OVN gave it an address, its hardware address is all that can be said."""
    if port.is_dynamic(network) and not any(each.version == 4 for each in own):
        return (port.mac,)
    found = [str(each) for each in own]
    if port.privacy and (six := network.address(6)):
        found += [str(six.network), "fe80::/10"]
    return (" ".join([port.mac, *found, *(str(each) for each in (*port.routes, *port.published))]),)


def _ways(network: OvnNetwork, port: OvnPort, own: list[Address]) -> Iterator[Row]:
    """Until OVN gave the port an address, there is none."""
    for subnet in (*port.routes, *port.published):
        hop = next((each for each in own if each.version == subnet.version), None)
        if hop is None:
            continue
        way = {"ip_prefix": str(subnet), "nexthop": str(hop), "output_port": name(network.uuid, "lr-int")}
        yield Row("Logical_Router_Static_Route", f"route/{subnet}", way, (ROUTER,))
    for subnet in port.published:
        for address in subnet:
            # It becomes itself: the router only answers for it on the uplink.
            same: Columns = {
                "type": "dnat_and_snat", "external_ip": str(address), "logical_ip": str(address),
                "options": {"stateless": "true"},
            }  # fmt: skip
            yield Row("NAT", f"published/{address}", same, (ROUTER,))


def _names(network: OvnNetwork, port: OvnPort, own: list[Address]) -> dict[str, str]:
    """In OVN's DNS, which compares in small letters."""
    if not port.hostname or not network.domain or not own:
        return {}
    full = f"{text(port.hostname)}.{text(network.domain)}".lower()
    return {full: " ".join(map(str, own)), **{each.reverse_pointer: full for each in own}}


def _read(said: str) -> dict[str, str]:
    """Whoever wrote it, nothing but names comes out."""
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _records(view: View, owner: Owner) -> dict[str, str]:
    row = view.find(owner, "Logical_Switch_Port", _NIC)
    return _read(row.external_ids.get(_RECORDS, "")) if row else {}


def _rename(row: Any, gone: dict[str, str], new: dict[str, str]) -> None:
    there = dict(getattr(row, "records", {}))
    for key, value in gone.items():
        # Another port may have the name since.
        if key not in new and there.get(key) == value:
            row.delkey("records", key)
    for key, value in new.items():
        if there.get(key) != value:
            row.setkey("records", key, value)


def _is_guest(row: Any) -> bool:
    return bool(row.external_ids[ROW].startswith(PART))


def _state(row: Any) -> PortState:
    words = " ".join(row.dynamic_addresses or row.addresses).split()
    port = str(row.external_ids[ROW]).partition(":")[0].removeprefix(PART)
    return PortState(port, str(row.name), words[0] if words else "", tuple(_addresses(words[1:])), row.up == [True])


def _addresses(words: list[str]) -> Iterator[Address]:
    """Those among them: whoever may write to the database may have said anything."""
    for each in words:
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_address(each)


def _given(view: View, owner: Owner) -> tuple[Address, ...]:
    row = view.find(owner, "Logical_Switch_Port", _NIC)
    if row is None:
        raise FailedError(f"OVN has no port {owner.part.removeprefix(PART)} in network {owner.network}")
    return _state(row).addresses
