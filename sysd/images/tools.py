# SPDX-License-Identifier: Apache-2.0
"""Programs that a worker runs on files it has open: given as /proc/self/fd/N, in a plain environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence

from sysd.model.errors import FailedError, UnsupportedError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# No configuration of the host's, which guests know nothing of.
_ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "MTOOLSRC": "/dev/null", "MKE2FS_CONFIG": "/dev/null"}
_PACKAGES = {
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "qemu-img": "qemu-utils",
}
DISK_MAKERS = ("mcopy", "mke2fs", "mkfs.vfat")


def need(programs: Iterable[str]) -> None:
    """Raise UnsupportedError when one of them is missing."""
    for program in programs:
        if shutil.which(program, path=PATH) is None:
            raise _missing(program)


def run(argv: Sequence[str], *fds: int, text: str = "") -> None:
    """Run it to its end with the descriptors fds, and text as its input; raises FailedError with its last words."""
    try:
        done = subprocess.run(argv, pass_fds=fds, env=_ENVIRONMENT, input=text.encode(), capture_output=True)
    except FileNotFoundError:
        raise _missing(argv[0]) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), f"status {done.returncode}")
        raise FailedError(f"{argv[0]} could not make the disk: {reason[:300]}")


def _missing(program: str) -> UnsupportedError:
    return UnsupportedError(
        f"can't make a virtual machine's disk: the program {program} is missing", f"apt install {_PACKAGES[program]}"
    )
