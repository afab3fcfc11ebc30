# SPDX-License-Identifier: Apache-2.0
"""The local Open vSwitch: which of the host's links are ports of OVN's, and where OVN's uplinks are.

What is ours says so in external_ids, as in OVN's northbound database; bridges, ports and mappings of others stay as
they are. Nothing waits for ovs-vswitchd, which takes up what the database says. Sources: ovs-vswitchd.conf.db(5),
ovn-controller(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sysd.model.errors import FailedError
from sysd.network.ovn.database import PATIENCE, Database, News, Schema
from sysd.network.ovn.rows import IFACE_ID, NETWORK, ROW, View, set_column

DEFAULT_REMOTE = "unix:/run/openvswitch/db.sock"
INTEGRATION = "br-int"
MAPPINGS, OUR_MAPPINGS = "ovn-bridge-mappings", "syscont-bridge-mappings"
_TABLES = Schema(
    "Open_vSwitch", "the local Open vSwitch",
    {
        "Open_vSwitch": ("bridges", "external_ids", "other_config"),
        "Bridge": ("external_ids", "name", "ports"),
        "Port": ("external_ids", "interfaces", "name"),
        "Interface": ("error", "external_ids", "name", "ofport", "type"),
    },
    unheard={"Interface": frozenset({"error", "ofport"})},
    all_rows=True,
)  # fmt: skip
_BRIDGE, _LINK = "bridge:", "link:"


class Chassis(Database):
    """A host as OVN sees it."""

    def __init__(
        self, remote: str = DEFAULT_REMOTE, *, patience: float = PATIENCE, news: News = lambda whole: None
    ) -> None:
        super().__init__(remote, _TABLES, patience=patience, news=news)


@dataclass(frozen=True, slots=True)
class Attached:
    """A link of the host's that is a port of ours. error: why it does not work; empty when it does, or as long as
    ovs-vswitchd has not taken it up."""

    link: str
    bridge: str
    network: str
    iface_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host says of itself. system_id: its name among OVN's hosts; empty where OVN is not set up."""

    system_id: str
    encap_ip: str
    hw_offload: bool
    bridges: tuple[str, ...]
    mappings: dict[str, str]


async def facts(chassis: Chassis) -> Facts:
    def work(view: View) -> Facts:
        root = _root(view)
        ids, other = dict(root.external_ids), dict(root.other_config)
        bridges = tuple(sorted(row.name for row in view.table("Bridge").rows.values()))
        return Facts(
            ids.get("system-id", ""), ids.get("ovn-encap-ip", ""), other.get("hw-offload") == "true", bridges,
            _pairs(ids.get(MAPPINGS, "")),
        )  # fmt: skip

    return await chassis.read(work)


async def ports(chassis: Chassis) -> dict[str, str]:
    """The bridges that have them, by name; also those of others."""

    def work(view: View) -> dict[str, str]:
        bridges = view.table("Bridge").rows.values()
        return {str(port.name): str(bridge.name) for bridge in bridges for port in bridge.ports}

    return await chassis.read(work)


async def attach(
    chassis: Chassis, link: str, *, network: str, iface_id: str = "", bridge: str = INTEGRATION
) -> bool:
    """Let a link of the host's be a port of a bridge, and of OVN by that name; whether anything had to change. Another
    link of ours that had the name loses it.

    Raises FailedError when there is no such bridge, or the link is a port that someone else made.
    """

    def work(view: View) -> None:
        where = _bridge(view, bridge)
        port = _own(view, "Port", link) or _insert_port(view, link, "")
        (interface,) = port.interfaces
        marks = {NETWORK: network, ROW: f"{_LINK}{link}"}
        for old in view.interfaces(iface_id) if iface_id else ():
            if old.uuid != interface.uuid and old.external_ids.get(NETWORK) == network:
                _mark(old, {IFACE_ID: ""})
        _mark(port, marks)
        _mark(interface, marks | {IFACE_ID: iface_id})
        _place(view, port, where)

    return await chassis.change(work)


async def detach(chassis: Chassis, link: str, *, network: str) -> bool:
    """Let a link be no port; whether it was one of a network of ours. It may be another's by now."""

    def work(view: View) -> None:
        for port in view.named("Port", link):
            if _is_ours(port, _LINK) and port.external_ids[NETWORK] == network:
                _place(view, port, None)
                port.delete()

    return await chassis.change(work)


async def attached(chassis: Chassis) -> list[Attached]:
    """All of ours, by name."""

    def work(view: View) -> list[Attached]:
        found = []
        for bridge in view.table("Bridge").rows.values():
            for port in bridge.ports:
                if _is_ours(port, _LINK):
                    found.append(_attached(bridge.name, port, port.interfaces[0]))
        return sorted(found, key=lambda each: each.link)

    return await chassis.read(work)


async def ensure_bridge(chassis: Chassis, name: str, *, network: str) -> bool:
    """Have a bridge of ours for an uplink; whether it had to be made. Raises FailedError when it is someone else's."""

    def work(view: View) -> None:
        marks = {NETWORK: network, ROW: f"{_BRIDGE}{name}"}
        bridge = _own(view, "Bridge", name)
        if bridge is None:
            bridge = view.make("Bridge")
            bridge.name = name
        if not view.has(_root(view), "bridges", bridge):
            view.put(_root(view), "bridges", bridge)
        _mark(bridge, marks)
        # The port of the bridge's own name is the host's end of it.
        port = _own(view, "Port", name) or _insert_port(view, name, "internal")
        _mark(port, marks)
        _place(view, port, bridge)

    return await chassis.change(work)


async def remove_bridge(chassis: Chassis, name: str) -> bool:
    """With its ports; whether it was there and ours."""

    def work(view: View) -> None:
        for bridge in view.named("Bridge", name):
            if _is_ours(bridge, _BRIDGE):
                view.take(_root(view), "bridges", bridge)
                bridge.delete()

    return await chassis.change(work)


async def map_uplink(chassis: Chassis, provider: str, bridge: str) -> bool:
    """Let OVN find an uplink at a bridge; whether anything had to change. Raises FailedError when others have it
    elsewhere."""

    def change(all_of_them: dict[str, str], ours: dict[str, str]) -> None:
        there = all_of_them.get(provider)
        if there not in (None, bridge) and ours.get(provider) != there:
            raise FailedError(
                f"the local Open vSwitch maps {provider} to {there} already, and not for us",
                f"take it out of external_ids:{MAPPINGS}, or use another name",
            )
        ours[provider] = all_of_them[provider] = bridge

    return await _remap(chassis, change)


async def unmap_uplink(chassis: Chassis, provider: str) -> bool:
    """Whether it was mapped by us."""

    def change(all_of_them: dict[str, str], ours: dict[str, str]) -> None:
        if (bridge := ours.pop(provider, "")) and all_of_them.get(provider) == bridge:
            del all_of_them[provider]

    return await _remap(chassis, change)


async def _remap(chassis: Chassis, change: Any) -> bool:
    def work(view: View) -> None:
        root = _root(view)
        ids = dict(root.external_ids)
        everything, ours = _pairs(ids.get(MAPPINGS, "")), _pairs(ids.get(OUR_MAPPINGS, ""))
        before = dict(everything), dict(ours)
        change(everything, ours)
        if (everything, ours) != before:
            _mark(root, {MAPPINGS: _said(everything), OUR_MAPPINGS: _said(ours)})

    return await chassis.change(work)


def _pairs(text: str) -> dict[str, str]:
    found = (word.strip().partition(":") for word in text.split(","))
    return {provider: bridge for provider, colon, bridge in found if colon}


def _said(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{provider}:{bridge}" for provider, bridge in pairs.items())


def _root(view: View) -> Any:
    for row in view.table("Open_vSwitch").rows.values():
        return row
    raise FailedError("the local Open vSwitch is not set up", "start openvswitch-switch.service")


def _bridge(view: View, name: str) -> Any:
    for row in view.named("Bridge", name):
        return row
    hint = "ovn-controller makes it: install ovn-host" if name == INTEGRATION else "'ovs-vsctl add-br' makes one"
    raise FailedError(f"the local Open vSwitch has no bridge {name}", hint)


def _is_ours(row: Any, kind: str = "") -> bool:
    ids = row.external_ids
    return NETWORK in ids and bool(ids.get(ROW, "").startswith(kind))


def _own(view: View, table: str, name: str) -> Any:
    """None when there is none of that name. Raises FailedError when it is someone else's."""
    for row in view.named(table, name):
        if not _is_ours(row):
            raise FailedError(f"the local Open vSwitch has a {table.lower()} {name} that is not ours", "who made it?")
        return row
    return None


def _insert_port(view: View, name: str, kind: str) -> Any:
    interface = view.make("Interface")
    interface.name, interface.type = name, kind
    port = view.make("Port")
    port.name, port.interfaces = name, [interface]
    return port


def _mark(row: Any, marks: Mapping[str, str]) -> None:
    """Say these in external_ids; an empty one is not said."""
    row.verify("external_ids")
    ids = {**getattr(row, "external_ids", {}), **marks}
    set_column(row, "external_ids", {key: value for key, value in ids.items() if value or key not in marks})


def _place(view: View, port: Any, bridge: Any) -> None:
    """Into a bridge, and out of others."""
    if bridge is not None and not view.has(bridge, "ports", port):
        view.put(bridge, "ports", port)
    for other in view.table("Bridge").rows.values():
        if (bridge is None or other.uuid != bridge.uuid) and view.has(other, "ports", port):
            view.take(other, "ports", port)


def _attached(bridge: str, port: Any, interface: Any) -> Attached:
    ids = dict(interface.external_ids)
    error = (interface.error or [""])[0]
    return Attached(str(port.name), bridge, ids.get(NETWORK, ""), ids.get(IFACE_ID, ""), str(error))
