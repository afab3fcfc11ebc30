# SPDX-License-Identifier: Apache-2.0
"""Snapshots, copies and backups on varlink."""

from __future__ import annotations

from sysd.manager.actions import Action
from sysd.manager.backups import Export
from sysd.manager.copies import DEFAULT_POOL, NewCopy
from sysd.manager.manager import Manager
from sysd.manager.snapshots import NewSnapshot
from sysd.model.compression import DEFAULT_COMPRESSION
from sysd.model.errors import InvalidError
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
            Method("ExportInstance", self.export, manage),
            Method("ImportInstance", self.import_backup, manage),
            Method("PublishInstance", self.publish, Action.MANAGE_IMAGES),
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
            call.text("snapshot", ""),
            call.flag("reuse"),
            None if expires < 0 else expires,
            call.flag("scheduled"),
            call.flag("stateful"),
        )
        await follow(self._manager, call, self._manager.snapshots.create(call.text("name"), wanted, call.caller.uid))

    async def restore(self, call: Call) -> None:
        operation = self._manager.snapshots.restore(
            call.text("name"), call.text("snapshot"), call.caller.uid, stateful=call.flag("stateful")
        )
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

    async def export(self, call: Call) -> None:
        name, compression = call.text("name"), call.text("compression", DEFAULT_COMPRESSION)
        wanted = Export(name, call.fd("backupFd"), compression, call.flag("instanceOnly"))
        _check_given(wanted.target)
        call.hand_over()
        await follow(self._manager, call, self._manager.backups.export(wanted, call.caller.uid))

    async def import_backup(self, call: Call) -> None:
        name, backup = call.text("name", ""), call.fd("backupFd")
        _check_given(backup)
        call.hand_over()
        await follow(self._manager, call, self._manager.backups.import_backup(backup, name, call.caller.uid))

    async def publish(self, call: Call) -> None:
        operation = self._manager.backups.publish(
            call.text("name"), call.texts("aliases"), call.mapping("properties"), call.caller.uid
        )
        await follow(self._manager, call, operation)


def _check_given(fd: int) -> None:
    if fd < 0:
        raise InvalidError("parameter backupFd is missing")
