# SPDX-License-Identifier: Apache-2.0
"""Where hosts are: HOST:PORT, or [ADDRESS]:PORT."""

from __future__ import annotations

import re

from sysd.model.errors import InvalidError

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9][A-Za-z0-9._-]{0,253})):([0-9]{1,5})", re.ASCII)


def check_address(text: str) -> str:
    """Raises InvalidError."""
    split_address(text)
    return text


def split_address(text: str) -> tuple[str, int]:
    """Raises InvalidError."""
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < int(found[3]) < 65536:
        hint = "HOST:PORT, such as 192.0.2.1:8443 or [2001:db8::1]:8443"
        raise InvalidError(f"not an address: {str(text)[:80]!r}", hint)
    return found[1] or found[2], int(found[3])
