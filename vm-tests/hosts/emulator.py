# SPDX-License-Identifier: Apache-2.0
"""The QEMU that runs VM hosts, with its libraries: that of Debian 13's backports, unpacked and not installed.

Debian 12's own (7.2) corrupts a 6.12 guest under emulation; those of Debian 13 and of 12's backports (10.0) abort
when a guest of the guest sets its task priority while an interrupt is on its way, as UEFI firmware does all the time
(`tcg_handle_interrupt: assertion failed: (bql_locked())`, of target/i386/tcg/system/misc_helper.c).
"""

import os
import subprocess
from pathlib import Path

from . import apt
from .cache import cache_dir, key_of, made

_SUITE = "trixie"
_MAKE = ("mmdebstrap", "--variant=extract", "--include=qemu-system-x86,seabios")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Firmware is in a package of its own.
_DATA = ("usr/share/qemu", "usr/share/seabios")


def _tree() -> Path:
    return made(cache_dir("emulator") / key_of(_SUITE, _MAKE), _unpack, "QEMU for VM hosts")


def _unpack(to: Path) -> None:
    apt.ensure("mmdebstrap", "debian-archive-keyring")
    backports = f"{_SUITE}-backports"
    lines = [f"deb {apt.mirror()} {suite} main" for suite in (_SUITE, backports)]
    prefer = f'--aptopt=APT::Default-Release "{backports}"'
    subprocess.run([*_MAKE, prefer, _SUITE, str(to), *lines], check=True, stdout=2)


def command() -> list[str]:
    """What stands in the place of qemu-system-x86_64."""
    tree = _tree()
    program = [tree / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", tree / _LIBRARIES]
    data = [word for path in _DATA for word in ("-L", tree / path)]
    return [str(word) for word in (*program, tree / "usr/bin/qemu-system-x86_64", *data)]


def environment() -> dict[str, str]:
    """With which it finds its modules."""
    return {**os.environ, "QEMU_MODULE_DIR": str(_tree() / _LIBRARIES / "qemu")}
