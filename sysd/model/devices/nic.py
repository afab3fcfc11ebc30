# SPDX-License-Identifier: Apache-2.0
"""Network interfaces."""

from __future__ import annotations

import re

from sysd.model.errors import InvalidError
from sysd.model.names import check_interface_name, check_network_name
from sysd.model.schema import Key

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", re.ASCII)


def _mac(text: str) -> str:
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise InvalidError(f"not a hardware address: {text!r}", "six bytes such as 02:73:63:00:00:01, not a group's")
    return text.lower()


OPTIONS = (
    Key("network", check_network_name, "", "Managed network that the interface is in."),
    Key("name", check_interface_name, "", "Name of the interface in the guest."),
    Key("hwaddr", _mac, "", "Hardware address; made up when it is not set."),
)
