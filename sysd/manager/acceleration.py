# SPDX-License-Identifier: Apache-2.0
"""Which network cards can carry interfaces of OVN networks by themselves, and what those lack that can't."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sysd.model.errors import FailedError
from sysd.network.ovn import chassis
from sysd.network.ovn.chassis import Chassis
from sysd.runtime.sriov import cards, loans, representors
from sysd.runtime.sriov.loans import Found


@dataclass(frozen=True, slots=True)
class Accelerator(Found):
    """A card. bridge: of Open vSwitch, that it is a port of; empty when of none. missing: what keeps it from carrying
    interfaces, each with what to do; none when it can."""

    bridge: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acceleration:
    """Of a host. bridge: that OVN's ports are in; offload: whether Open vSwitch lets cards do what they can."""

    bridge: str
    offload: bool
    cards: tuple[Accelerator, ...]


async def look(switch: Chassis, bridge: str) -> Acceleration:
    """An Open vSwitch that does not answer is missing, too."""
    offload, ports, away = False, dict[str, str](), list[str]()
    try:
        offload, ports = (await chassis.facts(switch)).hw_offload, await chassis.ports(switch)
    except FailedError as error:
        away = [f"Open vSwitch: {error.message} ({error.hint})"]
    there = await asyncio.to_thread(loans.everything)
    found = [_look_at(one, ports.get(one.link, ""), bridge, offload, away) for one in there]
    return Acceleration(bridge, offload, tuple(found))


def _look_at(one: Found, has: str, bridge: str, offload: bool, away: list[str]) -> Accelerator:
    missing = list(away)
    if not one.enabled:
        place = f"/sys/class/net/{one.link}/device/sriov_numvfs"
        missing.append(f"virtual functions: 'echo {one.total or 'NUMBER'} >{place}', before the mode is set")
    elif not one.free:
        missing.append("a virtual function that nobody has")
    if one.mode != "switchdev":
        missing.append(f"mode switchdev: 'devlink dev eswitch set {one.device} mode switchdev'")
    elif one.enabled and not one.representors:
        missing.append(f"representors: none of the host's links has the switch of {one.link}, and a function's name")
    if not offload:
        missing.append(
            "hw-offload: 'ovs-vsctl set open_vswitch . other_config:hw-offload=true', "
            "and restart openvswitch-switch.service"
        )
    if has != bridge:
        there = f", which has it in {has}" if has else ""
        missing.append(f"a port in {bridge}{there}: 'ovs-vsctl add-port {bridge} {one.link}'")
    return Accelerator(**asdict(one), bridge=has, missing=tuple(missing))


async def carriers(switch: Chassis, bridge: str) -> list[str]:
    """The links of those cards that could carry an interface, if one of their functions is free. Raises FailedError
    when there is none."""
    offload, ports = (await chassis.facts(switch)).hw_offload, await chassis.ports(switch)
    found = await asyncio.to_thread(_switching, [link for link, where in ports.items() if where == bridge])
    if not offload or not found:
        hint = "'syscont network info --acceleration' tells what is missing"
        raise FailedError("no network card of this host can carry an interface of an OVN network", hint)
    return found


def _switching(links: Collection[str]) -> list[str]:
    """Those of them that are of cards in mode switchdev."""
    return [link for link in cards.named() if link in links and representors.mode(link) == "switchdev"]
