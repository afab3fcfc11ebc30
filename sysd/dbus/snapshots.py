# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Instance has for snapshots, and org.syscont.Manager for copies."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Method, Property
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.manager.actions import Action
from sysd.manager.copies import DEFAULT_POOL, NewCopy
from sysd.manager.manager import Manager
from sysd.manager.snapshots import NewSnapshot


class SnapshotMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def methods(self) -> list[Method]:
        """Of an instance."""
        manage, give, name = Action.MANAGE_INSTANCES, [OPERATION], ("s", "name")
        return [
            Method("ListSnapshots", [], [("a(stt)", "snapshots")], self._list),
            Method("CreateSnapshot", [name, OPTIONS], give, self._create, manage),
            Method("RestoreSnapshot", [name], give, self._restore, manage),
            Method("RenameSnapshot", [name, ("s", "new_name")], give, self._rename, manage),
            Method("DeleteSnapshot", [name], give, self._delete, manage),
        ]

    def properties(self) -> list[Property]:
        return [Property("Snapshots", "as", lambda name: [each[0] for each in self._rows(name)])]

    def manager_methods(self) -> list[Method]:
        takes = [("s", "source"), ("s", "name"), OPTIONS]
        return [Method("CopyInstance", takes, [OPERATION], self._copy, Action.MANAGE_INSTANCES)]

    def _rows(self, name: str) -> list[list[Any]]:
        found = self._manager.snapshots.of(self._manager.table.get(name))
        return [[each.name, each.created, each.expires] for each in found]

    async def _list(self, name: str, call: Call) -> list[Any]:
        """Name, time of creation and of expiry (0 for never) in microseconds."""
        return [self._rows(name)]

    async def _create(self, name: str, call: Call) -> list[Any]:
        """An empty name is made by snapshots.pattern. Options: reuse (b), expires (t), scheduled (b)."""
        options = call.options
        wanted = NewSnapshot(
            call.body[0], options.flag("reuse"), options.take("expires", "t", None), options.flag("scheduled")
        )
        options.end()
        return operation_path(self._manager.snapshots.create(name, wanted, call.caller.uid))

    async def _restore(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.snapshots.restore(name, call.body[0], call.caller.uid))

    async def _rename(self, name: str, call: Call) -> list[Any]:
        old, new = call.body
        return operation_path(self._manager.snapshots.rename(name, old, new, call.caller.uid))

    async def _delete(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.snapshots.delete(name, call.body[0], call.caller.uid))

    async def _copy(self, _: str, call: Call) -> list[Any]:
        """source may be INSTANCE/SNAPSHOT. Options as NewCopy has them: config (a{ss}), devices (a{sa{ss}}),
        profiles (as), ephemeral (b), instance-only (b), pool (s)."""
        options = call.options
        wanted = NewCopy(
            call.body[0],
            call.body[1],
            options.take("config", "a{ss}", {}),
            options.take("devices", "a{sa{ss}}", {}),
            options.take("profiles", "as", None),
            options.take("ephemeral", "b", None),
            options.flag("instance-only"),
            options.text("pool", DEFAULT_POOL),
        )
        options.end()
        return operation_path(self._manager.copies.copy(wanted, call.caller.uid))
