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


def find(link: str, number: int) -> str:
    """Name of the representor of a card's virtual function; empty when there is none."""
    return devlink.representor(devlink.handle(link), number) or _by_names(link, number)


def _by_names(link: str, number: int) -> str:
    """What sysfs says of it (ABI/testing/sysfs-class-net). Two cards with one switch tell theirs apart by number."""
    switch, own = _switch(_place(link)), _CARD.fullmatch(_port(_place(link)))
    found = {}
    for entry in entries(sysfs.SYS / "class/net") if switch else ():
        named = _VIRTUAL.fullmatch(_port(entry))
        if named and int(named[2]) == number and _switch(entry) == switch:
            found[int(named[1])] = entry.name
    if own and int(own[1]) in found:
        return found[int(own[1])]
    return next(iter(found.values())) if len(found) == 1 else ""


def _place(link: str) -> Path:
    return sysfs.SYS / "class/net" / link


def _port(place: Path) -> str:
    return read(place / "phys_port_name")


def _switch(place: Path) -> str:
    return read(place / "phys_switch_id")
