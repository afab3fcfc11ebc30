# SPDX-License-Identifier: Apache-2.0
"""PCI devices: functions of the host's hardware that a virtual machine is given as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sysd.model.errors import InvalidError
from sysd.model.schema import Key

_ADDRESS = re.compile(r"([0-9a-f]{4}:)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])", re.ASCII | re.IGNORECASE)


def address(text: str) -> str:
    """That of one function, as the kernel writes it: with its domain, in small letters."""
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise InvalidError(f"not a PCI address: {text[:80]!r}", "such as 0000:01:00.0")
    return f"{match[1] or '0000:'}{match[2]}".lower()


OPTIONS = (Key("address", address, "", "PCI address on the host, as lspci -D has it; one function of a device."),)


def check(options: Mapping[str, str]) -> None:
    if not options.get("address"):
        raise InvalidError("address is missing", "such as 0000:01:00.0")


def addresses(options: Mapping[str, str]) -> list[str]:
    """Those that a device of any type says itself."""
    option = {"pci": "address", "gpu": "pci"}.get(options.get("type", ""), "")
    return [address(options[option])] if options.get(option) else []
