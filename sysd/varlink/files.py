# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Manager has for files in instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sysd.manager.actions import Action as Permission
from sysd.manager.manager import Manager
from sysd.model.files import Action, FileRequest
from sysd.varlink.follow import follow
from sysd.varlink.service import Call, Method

_METHODS = {
    "PushFile": Action.PUSH,
    "PullFile": Action.PULL,
    "PushTree": Action.PUSH_TREE,
    "PullTree": Action.PULL_TREE,
    "MakeDirectory": Action.MAKE_DIRECTORY,
    "DeleteFile": Action.DELETE,
}


class FileMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def table(self) -> list[Method]:
        return [Method(name, self._doing(action), Permission.FILES) for name, action in _METHODS.items()]

    def _doing(self, action: Action) -> Callable[[Call], Awaitable[None]]:
        async def run(call: Call) -> None:
            request = FileRequest(
                action,
                call.text("path"),
                name=call.text("fileName", ""),
                mode=call.number("mode", -1),
                uid=call.number("uid", -1),
                gid=call.number("gid", -1),
                parents=call.flag("parents"),
                recursive=call.flag("recursive"),
                size=call.number("size", -1),
            )
            operation = self._manager.files.begin(call.text("name"), request, call.fd("dataFd"), call.caller.uid)
            call.hand_over()
            await follow(self._manager, call, operation)

        return run
