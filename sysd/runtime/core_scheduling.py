# SPDX-License-Identifier: Apache-2.0
"""Core scheduling: the threads of a processor core run tasks of one instance at a time, or of none.

What one thread of a core does can be observed from the other; a cookie of its own keeps an instance from being
observed so by its neighbours. The launcher makes the cookie before the guest's PID 1 is born, and executed commands
take it from that; of a virtual machine's QEMU it gives one to the threads that run the guest, before they do, and to no
others. Source: the kernel's core-scheduling.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sysd import _cext
from sysd.model.instance import Kind

_PROCESSOR = "CPU "
"""How QEMU calls threads that run the guest, with a number behind (debug-threads=on)."""


def cookie(kind: Kind, leader: int) -> int:
    """The cookie of an instance's PID 1, or of its processors; 0 when it has none, or is gone."""
    thread = leader if kind is Kind.CONTAINER else next(processors(leader), 0)
    return of_thread(thread) if thread else 0


def of_thread(thread: int) -> int:
    try:
        return _cext.core_cookie(thread)
    except OSError:
        return 0


def processors(leader: int) -> Iterator[int]:
    """Threads of QEMU's that run the guest."""
    with contextlib.suppress(OSError):
        for thread in sorted(map(int, os.listdir(f"/proc/{leader}/task"))) if leader else ():
            if Path(f"/proc/{leader}/task/{thread}/comm").read_text().startswith(_PROCESSOR):
                yield thread
