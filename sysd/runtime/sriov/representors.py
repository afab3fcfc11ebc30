# SPDX-License-Identifier: Apache-2.0
"""The other ends of virtual functions, at the host, of cards whose switch the host has a hand in (mode switchdev): what
is sent to such a link comes to the function, and what a flow says of it the card can do by itself
(Documentation/networking/representors of the kernel's)."""

from __future__ import annotations

import re
from pathlib import Path

from sysd.runtime import sysfs
from sysd.runtime.sriov import devlink
from sysd.runtime.sysfs import entries, read

LEGACY, SWITCHDEV = "legacy", "switchdev"
_FUNCTION = re.compile(r"(?:c\d+)?pf(\d+)(?:vf|sf)(\d+)", re.ASCII)
_VIRTUAL = re.compile(r"pf(\d+)vf(\d+)", re.ASCII)
_CARD = re.compile(r"p(\d+)", re.ASCII)
"""What drivers call ports: phys_port_name, of functions and of a card itself. What begins with a c leads to another
computer."""


def is_one(link: str) -> bool:
    return bool(_FUNCTION.fullmatch(_port(_place(link))))


def mode(link: str) -> str:
    """Of the switch in the card that a link is of: legacy, or switchdev."""
    return devlink.mode(devlink.handle(link)) or (SWITCHDEV if _switch(_place(link)) else LEGACY)


def of(link: str) -> dict[int, str]:
    """Names of the representors that a card's virtual functions have, by number."""
    return devlink.representors(devlink.handle(link)) or _by_names(link)


def _by_names(link: str) -> dict[int, str]:
    """What sysfs says of them (ABI/testing/sysfs-class-net). Two cards with one switch tell theirs apart by number; of
    one that has no number, a function that both have is nobody's."""
    switch, own = _switch(_place(link)), _CARD.fullmatch(_port(_place(link)))
    found: dict[int, dict[int, str]] = {}
    for entry in entries(sysfs.SYS / "class/net") if switch else ():
        named = _VIRTUAL.fullmatch(_port(entry))
        if named and _switch(entry) == switch:
            found.setdefault(int(named[2]), {})[int(named[1])] = entry.name
    for each in found.values():
        if own and int(own[1]) in each:
            each |= dict.fromkeys(each, each[int(own[1])])
    return {number: names.pop() for number, each in found.items() if len(names := set(each.values())) == 1}


def _place(link: str) -> Path:
    return sysfs.SYS / "class/net" / link


def _port(place: Path) -> str:
    return read(place / "phys_port_name")


def _switch(place: Path) -> str:
    return read(place / "phys_switch_id")
