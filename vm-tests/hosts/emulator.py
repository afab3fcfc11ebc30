# SPDX-License-Identifier: Apache-2.0
"""The QEMU that runs VM hosts: Debian 13's newest, with its libraries, out of the tree of hosts that run machines.

Debian 12's own (7.2) corrupts a 6.12 guest under emulation; that of its backports (10.0.2) aborts when firmware runs in
a guest of the guest (`tcg_handle_interrupt: assertion failed: (bql_locked())`), which 10.0.13 does not.
"""

import os

from . import rootfs

_RECIPE = rootfs.Recipe(suite="trixie", variant="vms")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Firmware is in a package of its own.
_DATA = ("usr/share/qemu", "usr/share/seabios")


def command() -> list[str]:
    """What stands in the place of qemu-system-x86_64."""
    tree = rootfs.tree(_RECIPE)
    program = [tree / "lib64/ld-linux-x86-64.so.2", "--library-path", tree / _LIBRARIES]
    data = [word for path in _DATA for word in ("-L", tree / path)]
    return [str(word) for word in (*program, tree / "usr/bin/qemu-system-x86_64", *data)]


def environment() -> dict[str, str]:
    """With which it finds its modules."""
    return {**os.environ, "QEMU_MODULE_DIR": str(rootfs.tree(_RECIPE) / _LIBRARIES / "qemu")}
