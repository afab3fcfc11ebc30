# SPDX-License-Identifier: Apache-2.0
"""What org.syscont.Instance has for snapshots and backups, and org.syscont.Manager for copies and imports."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import Call, Method, Property
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.manager.actions import Action
from sysd.manager.backups import Export
from sysd.manager.copies import DEFAULT_POOL, NewCopy
from sysd.manager.manager import Manager
from sysd.manager.snapshots import NewSnapshot
from sysd.model.compression import DEFAULT_COMPRESSION


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
            Method("RestoreStateful", [name], give, self._restore_stateful, manage),
            Method("RenameSnapshot", [name, ("s", "new_name")], give, self._rename, manage),
            Method("DeleteSnapshot", [name], give, self._delete, manage),
            Method("Export", [("h", "backup"), OPTIONS], give, self._export, manage),
            Method("Publish", [OPTIONS], give, self._publish, Action.MANAGE_IMAGES),
        ]

    def properties(self) -> list[Property]:
        return [
            Property("Snapshots", "as", lambda name: [each[0] for each in self._rows(name)]),
            Property("StatefulSnapshots", "as", self._stateful),
        ]

    def manager_methods(self) -> list[Method]:
        takes = [("s", "source"), ("s", "name"), OPTIONS]
        manage, give = Action.MANAGE_INSTANCES, [OPERATION]
        return [
            Method("CopyInstance", takes, give, self._copy, manage),
            Method("ImportInstance", [("h", "backup"), OPTIONS], give, self._import, manage),
        ]

    def _rows(self, name: str) -> list[list[Any]]:
        found = self._manager.snapshots.of(self._manager.table.get(name))
        return [[each.name, each.created, each.expires] for each in found]

    def _stateful(self, name: str) -> list[str]:
        """Those that have the memory of a virtual machine, too."""
        found = self._manager.snapshots.of(self._manager.table.get(name))
        return [each.name for each in found if each.stateful]

    async def _list(self, name: str, call: Call) -> list[Any]:
        """Name, time of creation and of expiry (0 for never) in microseconds."""
        return [self._rows(name)]

    async def _create(self, name: str, call: Call) -> list[Any]:
        """An empty name is made by snapshots.pattern. Options: reuse (b), expires (t), scheduled (b),
        stateful (b)."""
        options = call.options
        wanted = NewSnapshot(
            call.body[0],
            options.flag("reuse"),
            options.take("expires", "t", None),
            options.flag("scheduled"),
            options.flag("stateful"),
        )
        options.end()
        return operation_path(self._manager.snapshots.create(name, wanted, call.caller.uid))

    async def _restore(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.snapshots.restore(name, call.body[0], call.caller.uid))

    async def _restore_stateful(self, name: str, call: Call) -> list[Any]:
        """A virtual machine goes on with the memory that the snapshot has."""
        return operation_path(self._manager.snapshots.restore(name, call.body[0], call.caller.uid, stateful=True))

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

    async def _export(self, name: str, call: Call) -> list[Any]:
        """Options: compression (s), instance-only (b). The backup is complete when the operation is done."""
        options = call.options
        compression, instance_only = options.text("compression", DEFAULT_COMPRESSION), options.flag("instance-only")
        options.end()
        wanted = Export(name, call.take_fd(call.body[0]), compression, instance_only)
        call.hand_over()
        return operation_path(self._manager.backups.export(wanted, call.caller.uid))

    async def _publish(self, name: str, call: Call) -> list[Any]:
        """Options: snapshot (s), aliases (as), properties (a{ss})."""
        options = call.options
        snapshot, aliases = options.text("snapshot"), options.take("aliases", "as", [])
        properties = options.take("properties", "a{ss}", {})
        options.end()
        source = f"{name}/{snapshot}" if snapshot else name
        return operation_path(self._manager.backups.publish(source, aliases, properties, call.caller.uid))

    async def _import(self, _: str, call: Call) -> list[Any]:
        """Options: name (s)."""
        options = call.options
        name = options.text("name")
        options.end()
        backup = call.take_fd(call.body[0])
        call.hand_over()
        return operation_path(self._manager.backups.import_backup(backup, name, call.caller.uid))
