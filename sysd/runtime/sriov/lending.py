# SPDX-License-Identifier: Apache-2.0
"""Virtual functions of the host's cards, lent to instances as interfaces: chosen, set up on their card, and put back as
they were.

Whoever chooses, changes or gives back holds the lock of the folder of loans, so two instances never get one function.
Run as a program, also while the daemon is away:

    take UUID REFERENCE WANTED            ExecStartPre= of an instance's unit, and before a device is plugged
    give-back UUID [DEVICE...]            ExecStopPost= (by launch-vm and plug), and when a device was unplugged
    give-back-left UUID UNIT              of an instance that does not run; nothing of one that does

A driver reads what its card says of a function when it is bound to it, so it is bound anew after a change. With that
the old link is gone from wherever it was, and a new one is the host's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sysd.model.devices.check import check_device_name
from sysd.model.errors import FailedError, SyscontError
from sysd.runtime import sysfs
from sysd.runtime.sriov import cards, loans, netlink, representors
from sysd.runtime.sriov.loans import Loan, Wanted
from sysd.runtime.sriov.netlink import Settings
from sysd.runtime.sysfs import read
from sysd.runtime.vm import lending as vfio
from sysd.runtime.vm import pci, virtual

_GIVEN = "0"
"""NET_ADDR_PERM: how a link has its address when its card says so."""


def command(verb: str, *words: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-m", "sysd.runtime.sriov.lending", verb, *words]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    loans.FUNCTIONS_DIR.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(loans.FUNCTIONS_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# taking


def take(uuid: str, reference: str, wanted: Mapping[str, Wanted]) -> None:
    """Have functions ready, by device, for an instance. One that a device has already is set up as it is wanted now. Of
    what fails half-way all is to be given back: FailedError."""
    with _locked():
        for device, one in wanted.items():
            check_device_name(device)
            one.check()
            with _of(device):
                _claim(uuid, reference, device, one)
        for device in wanted:
            with _of(device):
                _set_up(uuid, device, loans.of(uuid)[device])
        virtual.fill(uuid, {device: loan.function for device, loan in loans.of(uuid).items() if device in wanted})


@contextlib.contextmanager
def _of(device: str) -> Iterator[None]:
    try:
        yield
    except FailedError as error:
        if error.message.startswith("device "):
            raise
        raise FailedError(f"device {device}: {error.message}", error.hint) from None
    except OSError as error:
        raise FailedError(f"device {device}: a virtual function can't be set up: {error.strerror}") from None


def _claim(uuid: str, reference: str, device: str, wanted: Wanted) -> None:
    found = loans.cards_of(wanted)
    has = loans.of(uuid).get(device)
    # One with a representor is another than one without.
    same = has is not None and bool(has.wanted.port) == bool(wanted.port)
    if has and same and any(has.function in card.functions.values() for card in found):
        loans.note(uuid, device, replace(has, wanted=wanted))
        return
    if has:
        _put_back(uuid, device, has)
    card, number, function, its_end = loans.choose(found, wanted)
    its = cards.link_of(function)
    place = sysfs.SYS / "class/net" / its
    hwaddr, mtu = (read(place / "address"), int(read(place / "mtu"))) if its else ("", 0)
    before = netlink.settings(cards.index_of(card.link)).get(number)
    if before is None:
        raise FailedError(f"{card.link} says nothing of its virtual function {number}")
    if before.mac == hwaddr and read(place / "addr_assign_type") != _GIVEN:
        before = replace(before, mac=netlink.NO_MAC)  # chosen on the function's side, which may do so again
    driver = pci.driver(function)
    loan = Loan(reference, wanted, card.function, number, function, driver, its, hwaddr, mtu, before, its_end)
    loans.note(uuid, device, loan)


def _set_up(uuid: str, device: str, loan: Loan) -> None:
    wanted = loan.wanted
    # Where a card can't say whether it holds a function to its address, only that it must can't be had. What comes out
    # of a representor is looked at there.
    says = loan.settings.spoof is not None and not wanted.port
    spoof = wanted.filtered if wanted.filtered or says else None
    settings = Settings(wanted.hwaddr, wanted.vlan, 0, spoof)
    if wanted.port:
        _show(loan)
    if wanted.machine:
        _tell_card(loan, settings)
        vfio.take(uuid, loan.reference, {device: loan.function})
        return
    cards.unbind(loan.function)
    _tell_card(loan, settings)
    cards.bind(loan.function, loan.driver)
    its = cards.wait_for_link(loan.function)
    if not its:
        raise FailedError(f"the host has no driver that makes an interface of PCI function {loan.function}")
    netlink.rename(cards.index_of(its), wanted.name)


def _representor(loan: Loan) -> str:
    """What it is called now; empty when there is none."""
    return representors.of(cards.link_of(loan.card)).get(loan.number, "")


def _show(loan: Loan) -> None:
    """Let a function's representor be the port that its device has."""
    its, port = _representor(loan), loan.wanted.port
    if not its:
        raise FailedError(f"virtual function {loan.number} of {loan.wanted.parent} has no representor any more")
    if its != port:
        if cards.has_link(port):
            hint = "an interface's acceleration is changed while the instance does not run"
            raise FailedError(f"the host has a link {port}, which would be that of the representor", hint)
        _rename(its, port)
    netlink.bring_up(cards.index_of(port))


def _hide(loan: Loan) -> None:
    """Let it be the host's again, and down. A card in another mode has none."""
    its = _representor(loan)
    if its == loan.wanted.port:
        if cards.has_link(loan.representor):
            netlink.bring_down(cards.index_of(its))
        else:
            _rename(its, loan.representor)


def _rename(link: str, name: str) -> None:
    index = cards.index_of(link)
    netlink.bring_down(index)
    netlink.rename(index, name)


def _tell_card(loan: Loan, settings: Settings) -> None:
    card = cards.index_of(cards.link_of(loan.card))
    before = netlink.settings(card).get(loan.number) if card else None
    if before is None:
        raise FailedError(f"the card {loan.card} has no link that knows its virtual function {loan.number}")
    netlink.change(card, loan.number, before, settings)


# giving back


def give_back(uuid: str, devices: Sequence[str] = ()) -> None:
    """All that an instance has, or some of it. Raises FailedError for what does not come back, after the rest; that is
    nobody else's until it does."""
    with _locked():
        _give_back(uuid, devices)


def give_back_left(uuid: str, unit: str) -> None:
    """All, if it does not run. One that starts is seen to do so before it has the lock."""
    with _locked():
        if vfio.has_ended(unit):
            _give_back(uuid, ())


def _give_back(uuid: str, devices: Sequence[str]) -> None:
    failed = []
    for device, loan in loans.of(uuid).items():
        if devices and device not in devices:
            continue
        try:
            _put_back(uuid, device, loan)
        except OSError as error:
            failed.append(f"virtual function {loan.number} of {loan.wanted.parent}: {error.strerror}")
        except FailedError as error:
            failed.append(error.message)
    if not loans.of(uuid):
        with contextlib.suppress(FileNotFoundError):
            for draft in sysfs.entries(loans.FUNCTIONS_DIR / uuid):
                draft.unlink()
            (loans.FUNCTIONS_DIR / uuid).rmdir()
    if failed:
        raise FailedError(f"not put back: {'; '.join(failed)}")


def _put_back(uuid: str, device: str, loan: Loan) -> None:
    if loan.representor:
        _hide(loan)
    if pci.folder(loan.function).exists():  # or it has gone with its card
        if pci.driver(loan.function) == vfio.VFIO:
            _tell_card(loan, loan.settings)
            vfio.give_back(uuid, [loan.function])
        else:
            cards.unbind(loan.function)
            _tell_card(loan, loan.settings)
            if loan.driver:
                cards.bind(loan.function, loan.driver)
        if loan.link:
            _restore_link(loan)
    (loans.FUNCTIONS_DIR / uuid / device).unlink()


def _restore_link(loan: Loan) -> None:
    its = cards.wait_for_link(loan.function)
    if not its:
        raise FailedError(f"{loan.driver} makes no link of virtual function {loan.number} of {loan.wanted.parent}")
    index, place = cards.index_of(its), sysfs.SYS / "class/net" / its
    if read(place / "address") != loan.hwaddr:
        netlink.set_hwaddr(index, loan.hwaddr)
    if int(read(place / "mtu")) != loan.mtu:
        netlink.set_mtu(index, loan.mtu)
    if its != loan.link and not cards.has_link(loan.link):
        netlink.rename(index, loan.link)


def _give_back_everything(uuid: str) -> None:
    """Other hardware that it has, too."""
    try:
        give_back(uuid)
    finally:
        if (vfio.LENT_DIR / uuid).exists():
            vfio.give_back(uuid)


def main(verb: str, uuid: str, *rest: str) -> None:
    if verb == "take":
        reference, wanted = rest
        take(uuid, reference, loans.parse(wanted))
    elif verb == "give-back" and not rest:
        _give_back_everything(uuid)
    elif verb == "give-back":
        give_back(uuid, rest)
    elif verb == "give-back-left":
        give_back_left(uuid, *rest)
    else:
        raise FailedError(f"{verb!r} is not done here")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SyscontError as error:
        vfio.tell(sys.argv[2], f"{error.message} ({error.hint})" if error.hint else error.message)
        sys.exit(1)
