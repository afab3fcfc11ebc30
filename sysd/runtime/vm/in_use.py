# SPDX-License-Identifier: Apache-2.0
"""What of the host's would break if a PCI function were taken from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sysd.runtime import sysfs
from sysd.runtime.sysfs import entries, read
from sysd.runtime.vm import pci

PROC = Path("/proc")
_PATH_OF_NVME = re.compile(r"nvme([0-9]+)c[0-9]+n([0-9]+)", re.ASCII)
_UP, _GATEWAY = 1, 2


def why(function: str) -> str:
    """Empty when nothing would."""
    if pci.is_bridge(function):
        return "it is a bridge, and what is behind it would go with it"
    if (count := read(pci.folder(function) / "sriov_numvfs")) not in ("", "0"):
        return f"it has {count} virtual functions, which would go with it"
    return next(_of_links(function), "") or next(_of_disks(function), "")


def _below(kind: str, function: str) -> list[str]:
    """Names in a class of devices of those that a function is behind."""
    place = pci.folder(function).resolve()
    return [entry.name for entry in entries(sysfs.SYS / "class" / kind) if entry.resolve().is_relative_to(place)]


def _of_links(function: str) -> Iterator[str]:
    routed = set(_default_routes())
    for link in _below("net", function):
        above = [name.name.removeprefix("upper_") for name in (sysfs.SYS / "class/net" / link).glob("upper_*")]
        if link in routed:
            yield f"the host's default route is by its interface {link}"
        if above:
            yield f"its interface {link} is part of {above[0]}"


def _default_routes() -> Iterator[str]:
    """Links that have one (proc_pid_net(5))."""
    for line in read(PROC / "net/route").splitlines()[1:]:
        link, to, _, flags, *_, mask, _, _, _ = line.split()
        if not int(to, 16) and not int(mask, 16) and int(flags, 16) & _UP:
            yield link
    for line in read(PROC / "net/ipv6_route").splitlines():
        to, length, *_, flags, link = line.split()
        if not int(to, 16) and not int(length, 16) and int(flags, 16) & _GATEWAY:
            yield link


def _of_disks(function: str) -> Iterator[str]:
    disks = _below("block", function)
    # A disk with several ways to it is behind none of them.
    disks += [_PATH_OF_NVME.sub(r"nvme\1n\2", name) for name in disks if _PATH_OF_NVME.fullmatch(name)]
    mounted, swapped = dict(_mounts()), set(_swaps())
    for name in disks:
        place = sysfs.SYS / "class/block" / name
        for one in (place, *(entry for entry in entries(place) if (entry / "partition").exists())):
            number = read(one / "dev")
            if holders := entries(one / "holders"):
                yield f"disk {one.name} is part of {holders[0].name}"
            if number in mounted:
                yield f"disk {one.name} is mounted at {mounted[number]}"
            if number and number in swapped:
                yield f"the host swaps to disk {one.name}"


def _mounts() -> Iterator[tuple[str, str]]:
    """Numbers of devices, and where they are mounted. Some file systems have numbers of their own, and say by name
    what they are on (proc_pid_mountinfo(5))."""
    for line in read(PROC / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()[1]
        yield fields[2], fields[4]
        if source.startswith("/dev/") and (number := _number(source)):
            yield number, fields[4]


def _swaps() -> Iterator[str]:
    for line in read(PROC / "swaps").splitlines()[1:]:
        yield _number(line.split()[0])


def _number(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
