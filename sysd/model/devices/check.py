# SPDX-License-Identifier: Apache-2.0
"""The one validator of devices: of instances and of profiles."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sysd.model.devices import disk, nic
from sysd.model.errors import InvalidError
from sysd.model.schema import Key, Schema
from sysd.model.values import anything, one_of

Devices = dict[str, dict[str, str]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_OPTIONS: dict[str, tuple[Key, ...]] = {"none": (), "nic": nic.OPTIONS, "disk": disk.OPTIONS}
_TYPE = Key("type", one_of(*_OPTIONS), "", "What kind of device it is.")
_USER = Key("user.*", anything, "", "Free for users; may span lines.", multiline=True)
SCHEMAS = {kind: Schema((_TYPE, *options, _USER), f"{kind} device") for kind, options in _OPTIONS.items()}


def check_device(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """A checked copy of one device's options; raises InvalidError naming the device and the option."""
    if not _NAME.fullmatch(name):
        raise InvalidError(f"invalid device name {name[:80]!r}", "1 to 64 letters, digits, '-', '_' and '.'")
    kind = options.get("type", "")
    if kind not in SCHEMAS:
        raise InvalidError(f"device {name}: unknown type {kind[:80]!r}", f"one of {', '.join(SCHEMAS)}")
    try:
        return SCHEMAS[kind].check(options)
    except InvalidError as error:
        raise type(error)(f"device {name}: {error.message}", error.hint) from None


def check_devices(devices: Mapping[str, Mapping[str, str]]) -> Devices:
    return {name: check_device(name, options) for name, options in devices.items()}
