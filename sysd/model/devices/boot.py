# SPDX-License-Identifier: Apache-2.0
"""What disks and network interfaces of virtual machines have in common: firmware may try to start from them."""

from __future__ import annotations

from sysd.model.schema import Key
from sysd.model.values import integer

PRIORITY = Key(
    "boot.priority",
    integer(0, (1 << 31) - 1),
    "",
    "Of a virtual machine's: when its firmware tries to start from it, the highest first. The root disk has 1 if it "
    "does not say; others that do not are not tried.",
)
