# SPDX-License-Identifier: Apache-2.0
"""Snapshots and copies on varlink."""

from __future__ import annotations

from sysd.manager.actions import Action
from sysd.manager.copies import DEFAULT_POOL, NewCopy
from sysd.manager.manager import Manager
from sysd.manager.snapshots import NewSnapshot
from sysd.varlink import encode
from sysd.varlink.follow import follow
from sysd.varlink.service import Call, Method


class SnapshotMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def table(self) -> list[Method]:
        manage = Action.MANAGE_INSTANCES
        return [
            Method("ListSnapshots", self.list),
            Method("GetSnapshot", self.get),
            Method("CreateSnapshot", self.create, manage),
            Method("RestoreSnapshot", self.restore, manage),
            Method("RenameSnapshot", self.rename, manage),
            Method("DeleteSnapshot", self.delete, manage),
            Method("CopyInstance", self.copy, manage),
        ]

    async def list(self, call: Call) -> None:
        found = self._manager.snapshots.of(self._manager.table.get(call.text("name")))
        call.reply({"snapshots": [encode.snapshot(each, call.caller) for each in found]})

    async def get(self, call: Call) -> None:
        instance = self._manager.table.get(call.text("name"))
        found = self._manager.snapshots.get(instance, call.text("snapshot"))
        call.reply({"snapshot": encode.snapshot(found, call.caller)})

    async def create(self, call: Call) -> None:
        expires = call.number("expires", -1)
        wanted = NewSnapshot(
            call.text("snapshot", ""), call.flag("reuse"), None if expires < 0 else expires, call.flag("scheduled")
        )
        await follow(self._manager, call, self._manager.snapshots.create(call.text("name"), wanted, call.caller.uid))

    async def restore(self, call: Call) -> None:
        operation = self._manager.snapshots.restore(call.text("name"), call.text("snapshot"), call.caller.uid)
        await follow(self._manager, call, operation)

    async def rename(self, call: Call) -> None:
        operation = self._manager.snapshots.rename(
            call.text("name"), call.text("snapshot"), call.text("newName"), call.caller.uid
        )
        await follow(self._manager, call, operation)

    async def delete(self, call: Call) -> None:
        operation = self._manager.snapshots.delete(call.text("name"), call.text("snapshot"), call.caller.uid)
        await follow(self._manager, call, operation)

    async def copy(self, call: Call) -> None:
        wanted = NewCopy(
            call.text("source"),
            call.text("name"),
            call.mapping("config"),
            call.mappings("devices"),
            call.texts("profiles") if call.has("profiles") else None,
            call.flag("ephemeral") if call.has("ephemeral") else None,
            call.flag("instanceOnly"),
            call.text("pool", DEFAULT_POOL),
        )
        await follow(self._manager, call, self._manager.copies.copy(wanted, call.caller.uid))
