# SPDX-License-Identifier: Apache-2.0
"""Which instances have which virtual functions of the host's cards: what is written down of them, and which are free.

    /run/syscont/functions/UUID/DEVICE    which function a device has, and what that was before: there from before the
                                          first step until after the last one back

All of it ends with a boot, as the functions do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sysd.model.addresses import link, mac
from sysd.model.errors import FailedError
from sysd.model.values import integer
from sysd.runtime import sysfs
from sysd.runtime.spec import RUNTIME_DIR
from sysd.runtime.sriov import cards, devlink, netlink, representors
from sysd.runtime.sriov.cards import Card
from sysd.runtime.sriov.netlink import Settings
from sysd.runtime.sysfs import read
from sysd.runtime.vm import lending as vfio

FUNCTIONS_DIR = RUNTIME_DIR / "functions"
DRAFT = "."
_SHOWN = 8
"""Functions that a message names, at most."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a device is to have: a function of the card whose link is parent, or of one of several, with commas between.
    name: what its link is called on the host on its way to a container, and by which the same is told from another.
    machine: a virtual machine has the function itself. port: what the function's representor is called meanwhile, as
    Open vSwitch has that for a port; empty when none is asked for."""

    parent: str
    hwaddr: str
    vlan: int
    filtered: bool
    name: str
    machine: bool
    port: str = ""

    @property
    def parents(self) -> list[str]:
        return self.parent.split(",")

    def check(self) -> None:
        """Raises InvalidError for what is no name, address or VLAN."""
        for name in (*self.parents, self.name, *filter(None, [self.port])):
            link(name)
        mac(self.hwaddr)
        integer(0, 4094)(str(self.vlan))


@dataclass(frozen=True, slots=True)
class Loan:
    """reference: the instance that has a function of a card, which knows it by its number; wanted: as what. Before, it
    had this driver, and a link with this name, hwaddr and mtu if there was one; settings: what its card said of it;
    representor: what that was called, if the device is to have it, too."""

    reference: str
    wanted: Wanted
    card: str
    number: int
    function: str
    driver: str
    link: str
    hwaddr: str
    mtu: int
    settings: Settings
    representor: str = ""


def words(wanted: Mapping[str, Wanted]) -> str:
    """As take has it."""
    return json.dumps({device: asdict(one) for device, one in wanted.items()}, separators=(",", ":"))


def parse(said: str) -> dict[str, Wanted]:
    """What words has made."""
    return {device: Wanted(**one) for device, one in json.loads(said or "{}").items()}


def of(uuid: str) -> dict[str, Loan]:
    """Of an instance, by device."""
    found = {}
    for path in sysfs.entries(FUNCTIONS_DIR / uuid):
        if not path.name.startswith(DRAFT) and (text := read(path)):
            said = json.loads(text)
            parts = {"wanted": Wanted(**said["wanted"]), "settings": Settings(**said["settings"])}
            found[path.name] = Loan(**said | parts)
    return found


def note(uuid: str, device: str, loan: Loan) -> None:
    folder = FUNCTIONS_DIR / uuid
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / f"{DRAFT}{device}"
    draft.write_text(json.dumps(asdict(loan)))
    draft.replace(folder / device)


# what is free


def cards_of(wanted: Wanted) -> list[Card]:
    """Those that are there. Raises FailedError when none is."""
    found, failed = [], []
    for parent in wanted.parents:
        try:
            found.append(cards.find(parent))
        except FailedError as error:
            failed.append(error)
    if not found:
        raise failed[0]
    return found


def choose(found: Sequence[Card], wanted: Wanted) -> tuple[Card, int, str, str]:
    """The first that nobody has, of the first card that has one, and its representor if that is asked for."""
    failed = []
    for card in found:
        # Intel's cards have no functions, and these no links, while they are down.
        netlink.bring_up(cards.index_of(card.link))
        try:
            there = card if card.functions else cards.switch_on(card)
            return there, *_free(there, wanted)
        except FailedError as error:
            failed.append(error)
    raise FailedError("; ".join(error.message for error in failed), failed[0].hint)


def _free(card: Card, wanted: Wanted) -> tuple[int, str, str]:
    has, reasons = lent(), []
    ends = representors.of(card.link) if wanted.port else {}
    for number, function in card.functions.items():
        its = ends.get(number, "")
        why = has.get(function) or cards.why_not(function) or (_unseen(card, its) if wanted.port else "")
        if not why:
            return number, function, its
        reasons.append(f"{number} ({why})")
    shown = ", ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        shown += f" and {len(reasons) - _SHOWN} more"
    hint = "stop an instance that has one, or let the host have one free: down, with no addresses, part of nothing"
    if len(card.functions) < card.total:
        hint += f"; {card.total} can be switched on when none is in use (sriov_numvfs)"
    raise FailedError(f"all {len(card.functions)} virtual functions of {card.link} are taken: {shown}", hint)


def _unseen(card: Card, its: str) -> str:
    """Why a function's representor, if it has one, can't be a port; empty when it can."""
    if not its:
        return f"no representor: {card.link} is in mode {representors.mode(card.link)}"
    above = cards.part_of(its)
    return f"its representor {its} is part of {above}" if above else ""


def lent() -> dict[str, str]:
    """Who has which function."""
    found = {}
    for folder in sysfs.entries(vfio.LENT_DIR):
        for function, passed in vfio.loans(folder.name).items():
            found[function] = f"device {passed.device} of {passed.reference}"
    for folder in sysfs.entries(FUNCTIONS_DIR):
        for device, loan in of(folder.name).items():
            found[loan.function] = f"device {device} of {loan.reference}"
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """A network card. device: what devlink knows it by; mode: of its switch. Of total virtual functions that it could
    have (0 where it does not say) enabled are switched on, of which nobody has free, and representors are seen."""

    link: str
    device: str
    driver: str
    mode: str
    total: int
    enabled: int
    free: int
    representors: int


def everything() -> list[Found]:
    """All cards that have, or could have, virtual functions."""
    has = lent()
    return [_found(link, has) for link in cards.named()]


def _found(link: str, has: Mapping[str, str]) -> Found:
    place = sysfs.SYS / "class/net" / link / "device"
    driver = (place / "driver").resolve().name if (place / "driver").exists() else ""
    enabled, total = (int(read(place / f"sriov_{what}") or "0") for what in ("numvfs", "totalvfs"))
    try:
        functions = cards.find(link).functions.values()
        free = sum(1 for each in functions if each not in has and not cards.why_not(each))
    except FailedError:  # a simulated one: its functions are nothing that could be lent
        free = 0
    mode, seen = representors.mode(link), len(representors.of(link))
    return Found(link, "/".join(devlink.handle(link)), driver, mode, total, enabled, free, seen)


