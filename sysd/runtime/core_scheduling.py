# SPDX-License-Identifier: Apache-2.0
"""Core scheduling: the threads of a processor core run tasks of one instance at a time, or of none.

What one thread of a core does can be observed from the other; a cookie of its own keeps an instance from being
observed so by its neighbours. The launcher makes the cookie before the guest's PID 1 is born, and executed commands
take it from that. Source: the kernel's core-scheduling.rst.
"""

from __future__ import annotations

from sysd import _cext


def cookie(leader: int) -> int:
    """The cookie of an instance's PID 1; 0 when it has none, or is gone."""
    try:
        return _cext.core_cookie(leader) if leader else 0
    except OSError:
        return 0
