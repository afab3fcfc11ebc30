# SPDX-License-Identifier: Apache-2.0
"""Files in instances, running or not: put there, fetched, made and deleted, each as an operation.

Bytes come and go by descriptor. What is done is done by a worker in the instance's tree; the daemon never looks into
it itself.
"""

from __future__ import annotations

import fcntl
import os
import stat

from sysd.manager.operations import Handle, Operations
from sysd.manager.table import Table
from sysd.manager.trees import Trees
from sysd.model.errors import InvalidError
from sysd.model.files import Action, FileRequest
from sysd.model.operation import Operation
from sysd.units.answers import clean

_READS = (Action.PUSH, Action.PUSH_TREE)
_WRITES = (Action.PULL, Action.PULL_TREE)


class Files:
    def __init__(self, table: Table, trees: Trees, operations: Operations) -> None:
        self._table = table
        self._trees = trees
        self._operations = operations

    def begin(self, name: str, request: FileRequest, data: int, owner: int) -> Operation:
        """Do request in the instance. data is what is to be read or written, -1 for none; it is closed at the end,
        but is still the caller's when this raises."""
        instance = self._table.ready(self._table.get(name).uuid)
        check_data(request.action, data)

        async def work(handle: Handle) -> None:
            try:
                current = self._table.ready(instance.uuid)
                result = await self._trees.work(current, request, data, handle.progress)
            finally:
                if data >= 0:
                    os.close(data)
            for key, value in result.items():
                handle.set_result(key, value)

        # A crash ends the worker too; what it leaves is in the guest's tree, where nothing of ours depends on it.
        kind = f"{request.action.value}-file" if "-" not in request.action.value else request.action.value
        return self._operations.begin(kind, clean(f"{name}{request.path}"), work, owner, record=False)


def check_data(action: Action, data: int) -> None:
    """Raise InvalidError unless data can be read or written, and is neither a way into the host's tree nor a
    terminal."""
    if (data >= 0) != (action in _READS + _WRITES):
        raise InvalidError("a descriptor is missing" if data < 0 else "no descriptor is needed")
    if data < 0:
        return
    flags, mode = fcntl.fcntl(data, fcntl.F_GETFL), os.fstat(data).st_mode
    if flags & os.O_PATH or not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise InvalidError("files are read from, and written to, regular files and pipes")
    if flags & os.O_ACCMODE == (os.O_WRONLY if action in _READS else os.O_RDONLY):
        raise InvalidError("the descriptor is open for the wrong direction")
