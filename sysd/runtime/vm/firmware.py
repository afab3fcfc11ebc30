# SPDX-License-Identifier: Apache-2.0
"""UEFI for machines, as the host's packages describe it (QEMU's docs/interop/firmware.json), and their variables."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysd.model.errors import FailedError
from sysd.runtime.trees import sync_directory

FOLDERS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
"""A file in the first hides one of its name in the second; then they count in the order of their names."""
_SIGNED = {"secure-boot", "enrolled-keys"}


@dataclass(frozen=True, slots=True)
class Uefi:
    """code, and variables as they are at first."""

    code: Path
    template: Path


def find(*, secure: bool) -> Uefi:
    """Firmware for a q35 machine of the host's own kind; secure: with Microsoft's keys, and bound to them. Raises
    FailedError."""
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.json")):
            files.setdefault(path.name, path)
    for name in sorted(files):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            described = json.loads(files[name].read_bytes())
            if _fits(described, secure=secure):
                flash = described["mapping"]
                # Debian's are links among each other; the launcher follows none.
                code, template = (Path(flash[key]["filename"]) for key in ("executable", "nvram-template"))
                return Uefi(code.resolve(strict=True), template.resolve(strict=True))
    what = "UEFI with secure boot" if secure else "UEFI"
    raise FailedError(f"this host has no {what} for virtual machines", "apt install ovmf; or set boot.mode=direct")


def _fits(described: Any, *, secure: bool) -> bool:
    features = set(described["features"])
    machines = [
        machine
        for target in described["targets"]
        if target["architecture"] == os.uname().machine
        for machine in target["machines"]
    ]
    return (
        "uefi" in described["interface-types"]
        and described["mapping"]["device"] == "flash"
        and any(machine.startswith("pc-q35") for machine in machines)
        and (features >= _SIGNED if secure else not features & _SIGNED)
    )


def variables(folder: Path, *, secure: bool) -> Path:
    """Where a machine's variables are: one file for each way of booting, so that none gets what the other made."""
    return folder / ("nvram-secure.fd" if secure else "nvram.fd")


def make_variables(uefi: Uefi, place: Path) -> None:
    """Unless they are there."""
    if place.exists():
        return
    draft = place.with_suffix(".new")
    draft.write_bytes(uefi.template.read_bytes())
    draft.chmod(0o600)
    draft.replace(place)
    sync_directory(place.parent)
