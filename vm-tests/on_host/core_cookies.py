# SPDX-License-Identifier: Apache-2.0
"""Print the core scheduling cookie of each task of the host, as JSON: {task: cookie}. Source: prctl(2)."""

import ctypes
import json
import os
from pathlib import Path

PR_SCHED_CORE, GET, THREAD = 62, 0, 0
libc = ctypes.CDLL(None, use_errno=True)


def cookie(task: int) -> int | None:
    """None for a task that is gone."""
    value = ctypes.c_ulonglong(0)
    if libc.prctl(PR_SCHED_CORE, GET, task, THREAD, ctypes.byref(value)) == 0:
        return value.value
    if ctypes.get_errno() == 3:  # ESRCH
        return None
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), task)


tasks = [int(path.name) for path in Path("/proc").glob("[0-9]*/task/[0-9]*")]
seen = {task: cookie(task) for task in tasks if task != os.getpid()}
print(json.dumps({task: value for task, value in seen.items() if value is not None}))
