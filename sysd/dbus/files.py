# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Instance has for files in instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sysd.dbus.interface import Call, Method
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.manager.actions import Action as Permission
from sysd.manager.manager import Manager
from sysd.model.files import Action, FileRequest

_PATH = ("s", "path")
_DATA = ("h", "data")


class FileMethods:
    """Options: create-dirs, recursive (b), mode, uid, gid (u), name (s), size (t)."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def methods(self) -> list[Method]:
        """Of an instance."""
        with_data, without = [_PATH, _DATA, OPTIONS], [_PATH, OPTIONS]
        return [
            self._method("PushFile", with_data, Action.PUSH),
            self._method("PullFile", with_data, Action.PULL),
            self._method("PushTree", with_data, Action.PUSH_TREE),
            self._method("PullTree", with_data, Action.PULL_TREE),
            self._method("MakeDirectory", without, Action.MAKE_DIRECTORY),
            self._method("DeleteFile", without, Action.DELETE),
        ]

    def _method(self, name: str, takes: list[tuple[str, str]], action: Action) -> Method:
        return Method(name, takes, [OPERATION], self._doing(action, takes), Permission.FILES)

    def _doing(self, action: Action, takes: list[tuple[str, str]]) -> Callable[[str, Call], Awaitable[list[Any]]]:
        async def run(name: str, call: Call) -> list[Any]:
            options = call.options
            request = FileRequest(
                action,
                call.body[0],
                name=options.text("name"),
                mode=options.take("mode", "u", -1),
                uid=options.take("uid", "u", -1),
                gid=options.take("gid", "u", -1),
                parents=options.flag("create-dirs"),
                recursive=options.flag("recursive"),
                size=options.take("size", "t", -1),
            )
            options.end()
            data = call.take_fd(call.body[1]) if _DATA in takes else -1
            operation = self._manager.files.begin(name, request, data, call.caller.uid)
            call.hand_over()
            return operation_path(operation)

        return run
