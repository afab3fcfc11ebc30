# SPDX-License-Identifier: Apache-2.0
"""What QEMU and its guest needed only to start, out of memory: the initrd, and most of the program itself."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from sysd import _cext

log = logging.getLogger(__name__)

# An address, its end, how it is mapped, the file's inode: proc_pid_maps(5). The guest's memory is shared, not private.
_OF_FILE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ..[-x]p \S+ \S+ ([0-9]+) ")


def trim(pid: int, pidfd: int) -> None:
    """Of the files that a machine which has booted maps; what it still uses is read again. Pages that others map, too,
    stay. Closes pidfd. Where it can't be done, nothing is lost."""
    try:
        with Path(f"/proc/{pid}/maps").open() as stream:
            found = ranges(stream)
        _cext.page_out(pidfd, found)
    except OSError as error:
        log.info("memory of QEMU, process %d, is not trimmed: %s", pid, error)
    finally:
        os.close(pidfd)


def ranges(maps: Iterable[str]) -> list[tuple[int, int]]:
    """The address and the bytes of each private mapping of a file."""
    matches = filter(None, map(_OF_FILE.match, maps))
    return [(int(m[1], 16), int(m[2], 16) - int(m[1], 16)) for m in matches if m[3] != "0"]
