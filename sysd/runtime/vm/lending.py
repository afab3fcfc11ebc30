# SPDX-License-Identifier: Apache-2.0
"""PCI functions of the host's, lent to machines: bound to vfio-pci while a machine has them, and to what drove them
before when it has them no more (the kernel's driver-api/vfio.rst, ABI/testing/sysfs-bus-pci).

    /run/syscont/lent/UUID/ADDRESS    that a machine has a function, and what that was before: there from before the
                                      first step until after the last one back

All of it ends with a boot, as bindings do. Run as a program, also while the daemon is away:

    take UUID REFERENCE DEVICE=ADDRESS...     ExecStartPre= of a machine's unit, and before a device is plugged
    give-back UUID [ADDRESS...]               ExecStopPost= (by launch-vm), and when a device was unplugged
    give-back-left UUID UNIT                  of a machine that does not run; nothing of one that does
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from systemd import daemon

from sysd.model.devices.pci import address
from sysd.model.errors import FailedError, SyscontError
from sysd.runtime import sysfs
from sysd.runtime.spec import HANDOVER_SOCKET, RUNTIME_DIR
from sysd.runtime.sysfs import read
from sysd.runtime.vm import in_use, pci

LENT_DIR = RUNTIME_DIR / "lent"
VFIO = "vfio-pci"
_HARMLESS = ("", VFIO, "pci-stub", "pcieport")
"""Drivers of functions with which another of their IOMMU group can be lent: they do no DMA of the host's."""
_ENDED = ("inactive", "failed")
_DRAFT = "."


@dataclass(frozen=True, slots=True)
class Loan:
    """reference: the machine that has it; device: by which of its devices. driver and override: what drove it before,
    and what was to do so (driver_override); empty for nothing."""

    reference: str
    device: str
    driver: str
    override: str


def command(verb: str, *words: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-m", "sysd.runtime.vm.lending", verb, *words]


def pairs(functions: Mapping[str, str]) -> list[str]:
    """As take has them."""
    return [f"{device}={function}" for device, function in functions.items()]


def loans(uuid: str) -> dict[str, Loan]:
    """Of a machine, by address."""
    found = {}
    for path in sysfs.entries(LENT_DIR / uuid):
        if not path.name.startswith(_DRAFT) and (text := read(path)):
            found[path.name] = Loan(**json.loads(text))
    return found


def others(uuid: str) -> dict[str, Loan]:
    """Of all machines but one."""
    found: dict[str, Loan] = {}
    for folder in sysfs.entries(LENT_DIR):
        if folder.name != uuid:
            found |= loans(folder.name)
    return found


def _note(uuid: str, function: str, loan: Loan) -> None:
    draft = LENT_DIR / uuid / f"{_DRAFT}{function}"
    draft.write_text(json.dumps(asdict(loan)))
    draft.replace(LENT_DIR / uuid / function)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = _lock(folder)
    try:
        yield
    finally:
        os.close(fd)


def _lock(folder: Path) -> int:
    """Of the folder that is there when it is locked: whoever had the lock may have removed another."""
    while True:
        LENT_DIR.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if folder.exists() and folder.stat().st_ino == os.fstat(fd).st_ino:
                return fd
            os.close(fd)


# taking


def take(uuid: str, reference: str, wanted: Mapping[str, str]) -> None:
    """Bind functions, by device, for a machine. Of what fails half-way the rest is to be given back: FailedError."""
    with _locked(LENT_DIR / uuid):
        with _locked(LENT_DIR):
            _claim(uuid, reference, wanted)
        for device, function in wanted.items():
            _bind(device, function)


def _claim(uuid: str, reference: str, wanted: Mapping[str, str]) -> None:
    if not (sysfs.SYS / "bus/pci/drivers" / VFIO).exists():
        raise FailedError(f"the host's kernel has no {VFIO}", f"modprobe {VFIO}")
    had, taken = loans(uuid), others(uuid)
    for device, function in wanted.items():
        _check(device, function, taken)
        _check_group(device, function, {*wanted.values(), *had}, taken)
    for device, function in wanted.items():
        if function not in had:  # what it was before that loan counts
            before = Loan(reference, device, pci.driver(function), _override(function))
            _note(uuid, function, before)


def _check(device: str, function: str, taken: Mapping[str, Loan]) -> None:
    if not pci.folder(function).exists():
        raise FailedError(f"device {device}: the host has no PCI function {function}")
    if loan := taken.get(function):
        what = f"device {device}: {loan.reference} has PCI function {function}"
        raise FailedError(what, f"by its device {loan.device}")
    if why := "" if pci.driver(function) == VFIO else in_use.why(function):
        raise FailedError(f"device {device}: PCI function {function} is in use: {why}")


def _check_group(device: str, function: str, ours: set[str], taken: Mapping[str, Loan]) -> None:
    """What is in one IOMMU group goes to one machine, or to nobody."""
    number = pci.group(function)
    if not number:
        raise FailedError(f"device {device}: PCI function {function} is behind no IOMMU that is in use")
    rest = [one for one in pci.members(function) if one not in ours]
    if elsewhere := [one for one in rest if one in taken]:
        loan = taken[elsewhere[0]]
        what = f"device {device}: {loan.reference} has PCI function {elsewhere[0]}, of the same IOMMU group {number}"
        raise FailedError(what, "a group goes to one machine as a whole")
    if driven := [one for one in rest if pci.driver(one) not in _HARMLESS]:
        what = ", ".join(map(pci.describe, driven))
        why = f"device {device}: PCI function {function} can't be apart from others of its IOMMU group {number}: {what}"
        raise FailedError(why, "give the machine these, too, or have nothing drive them")


def _override(function: str) -> str:
    found = read(pci.folder(function) / "driver_override")
    return "" if found == "(null)" else found


def _bind(device: str, function: str) -> None:
    if pci.driver(function) == VFIO:
        return
    try:
        _write(pci.folder(function) / "driver_override", VFIO)
        _unbind(function)
        _write(sysfs.SYS / "bus/pci/drivers_probe", function)
    except OSError as error:
        raise FailedError(f"device {device}: PCI function {function} can't be lent: {error.strerror}") from None
    if pci.driver(function) != VFIO:
        raise FailedError(f"device {device}: {VFIO} does not take PCI function {function}", "journalctl -k tells more")


def _unbind(function: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it has no driver
        _write(pci.folder(function) / "driver/unbind", function)


def _write(path: Path, text: str) -> None:
    """A line, as an empty text would be none."""
    with open(path, "wb", buffering=0) as stream:
        stream.write(f"{text}\n".encode())


# giving back


def give_back(uuid: str, functions: Sequence[str] = ()) -> None:
    """All that a machine has, or some of it. Raises FailedError for what does not come back, after the rest."""
    with _locked(LENT_DIR / uuid):
        _give_back(uuid, functions)


def give_back_left(uuid: str, unit: str) -> None:
    """All, if it does not run. One that starts is seen to do so before it has the lock."""
    with _locked(LENT_DIR / uuid):
        if has_ended(unit):
            _give_back(uuid, ())


def has_ended(unit: str) -> bool:
    argv = ["/usr/bin/systemctl", "show", "--property=ActiveState", "--value", unit]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() in _ENDED


def _give_back(uuid: str, functions: Sequence[str]) -> None:
    failed = []
    for function, loan in loans(uuid).items():
        if functions and function not in functions:
            continue
        try:
            _put_back(function, loan)
        except OSError as error:
            failed.append(f"PCI function {function} does not go back to {loan.driver}: {error.strerror}")
        (LENT_DIR / uuid / function).unlink(missing_ok=True)
    if not loans(uuid):
        shutil.rmtree(LENT_DIR / uuid)
    if failed:
        raise FailedError("; ".join(failed))


def _put_back(function: str, loan: Loan) -> None:
    if not pci.folder(function).exists() or loan.driver == VFIO:
        return
    _write(pci.folder(function) / "driver_override", loan.override)
    if pci.driver(function) == VFIO:
        _unbind(function)
    if loan.driver and not pci.driver(function):
        driver = sysfs.SYS / "bus/pci/drivers" / loan.driver
        _write(driver / "bind" if driver.exists() else sysfs.SYS / "bus/pci/drivers_probe", function)


def main(verb: str, uuid: str, *words: str) -> None:
    if verb == "take":
        reference, *pairs = words
        wanted = dict(pair.rsplit("=", 1) for pair in pairs)
        take(uuid, reference, {device: address(function) for device, function in wanted.items()})
    elif verb == "give-back":
        give_back(uuid, [address(function) for function in words])
    elif verb == "give-back-left":
        give_back_left(uuid, *words)
    else:
        raise FailedError(f"{verb!r} is not done here")


def tell(uuid: str, why: str) -> None:
    """As the launcher tells its failures: the journal, systemd, and the daemon."""
    print(why, file=sys.stderr)
    if "NOTIFY_SOCKET" in os.environ:
        daemon.notify(f"STATUS={why}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(json.dumps({"uuid": uuid, "error": why}).encode(), str(HANDOVER_SOCKET))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SyscontError as error:
        tell(sys.argv[2], f"{error.message} ({error.hint})" if error.hint else error.message)
        sys.exit(1)
