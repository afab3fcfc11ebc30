# SPDX-License-Identifier: Apache-2.0
"""Instances, images and operations as D-Bus objects: their interfaces, one table each."""

from __future__ import annotations

from typing import Any

from sysd.dbus import usage
from sysd.dbus.files import FileMethods
from sysd.dbus.interface import ADD_DEVICE, CHANGE_DEVICE, Call, Interface, Method, Property
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.dbus.service import Kind
from sysd.dbus.snapshots import SnapshotMethods
from sysd.manager.actions import Action, Authority
from sysd.manager.instances import Update
from sysd.manager.manager import Manager
from sysd.manager.operations import Handle
from sysd.manager.quotas import HOW
from sysd.model.errors import UnsupportedError
from sysd.model.secrets import public
from sysd.runtime.apparmor.profiles import current as profile_of
from sysd.runtime.core_scheduling import cookie
from sysd.runtime.execute import Command


class InstanceObjects:
    """org.syscont.Instance; an object's name is its instance's, qualified by its project."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._snapshots = SnapshotMethods(manager)
        self._files = FileMethods(manager)

    def kind(self) -> Kind:
        table = self._manager.table
        return Kind(
            "instance",
            self.interface(),
            lambda: [i.reference for i in table.all()],
            table.knows,
        )

    def interface(self) -> Interface:
        manage, execute = Action.MANAGE_INSTANCES, Action.EXECUTE
        table, give = self._manager.table, [OPERATION]

        return Interface(
            "org.syscont.Instance",
            [
                Method("Start", [OPTIONS], give, self._start, manage),
                Method("Stop", [OPTIONS], give, self._stop, manage),
                Method("Restart", [OPTIONS], give, self._restart, manage),
                Method("Pause", [], give, self._pause, manage),
                Method("Resume", [], give, self._resume, manage),
                Method("Delete", [OPTIONS], give, self._delete, manage),
                Method("Rename", [("s", "new_name")], give, self._rename, manage),
                Method("GetConfig", [], [("a{ss}", "config")], self._get_config, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("ChangeDevices", [("a{sa{ss}}", "set"), ("as", "unset")], [], self._change_devices, manage),
                Method("AddDevice", ADD_DEVICE, [], self._add_device, manage),
                Method("ChangeDevice", CHANGE_DEVICE, [], self._change_device, manage),
                Method("ChangeProfiles", [("as", "add"), ("as", "remove")], [], self._change_profiles, manage),
                Method("GetDiskUsage", [], [("t", "used"), ("t", "most")], self._get_disk_usage),
                Method("GetState", [], [("a{sv}", "state")], self._get_state),
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("Exec", [("as", "command"), OPTIONS], give, self._exec, execute),
                Method("OpenConsole", [], [("h", "stream")], self._open_console, execute),
                *self._snapshots.methods(),
                *self._files.methods(),
            ],
            [
                Property("Name", "s", lambda name: table.get(name).name, changes=False),
                Property("Project", "s", lambda name: table.get(name).project, changes=False),
                Property("Type", "s", lambda name: table.get(name).kind.value, changes=False),
                Property("State", "s", lambda name: table.status(table.get(name)).state.value),
                Property("Unit", "s", lambda name: table.get(name).unit, changes=False),
                Property("Leader", "u", lambda name: table.status(table.get(name)).leader),
                Property("CoreCookie", "t", self._cookie),
                Property("AppArmor", "s", lambda name: profile_of(table.status(table.get(name)).leader)),
                Property("Image", "s", lambda name: table.get(name).image, changes=False),
                Property("Config", "a{ss}", lambda name: public(table.get(name).config)),
                Property("Devices", "a{sa{ss}}", lambda name: table.get(name).devices),
                Property("ExpandedConfig", "a{ss}", lambda name: public(table.expanded(table.get(name)).config)),
                Property("ExpandedDevices", "a{sa{ss}}", lambda name: table.expanded(table.get(name)).devices),
                Property("Profiles", "as", lambda name: table.get(name).profiles),
                Property("Description", "s", lambda name: table.get(name).description),
                Property("Ephemeral", "b", lambda name: table.get(name).ephemeral),
                Property("Stateful", "b", lambda name: self._manager.states.is_kept(table.get(name))),
                Property("Addresses", "as", lambda name: list(table.status(table.get(name)).addresses)),
                Property("LostDevices", "as", lambda name: list(table.status(table.get(name)).lost)),
                Property("UUID", "s", lambda name: table.get(name).uuid, changes=False),
                Property("CreatedTimestamp", "t", lambda name: table.get(name).created, changes=False),
                *self._snapshots.properties(),
            ],
        )

    def _cookie(self, name: str) -> int:
        instance = self._manager.table.get(name)
        return cookie(instance.kind, self._manager.table.status(instance).leader)

    async def _start(self, name: str, call: Call) -> list[Any]:
        options = call.options
        wait, stateless = options.flag("wait"), options.flag("stateless")
        options.end()
        operation = self._manager.change_state(name, "start", call.caller.uid, wait=wait, stateless=stateless)
        return operation_path(operation)

    async def _stop(self, name: str, call: Call) -> list[Any]:
        return self._stop_or_restart(name, "stop", call)

    async def _restart(self, name: str, call: Call) -> list[Any]:
        return self._stop_or_restart(name, "restart", call)

    def _stop_or_restart(self, name: str, verb: str, call: Call) -> list[Any]:
        options = call.options
        force, timeout = options.flag("force"), options.take("timeout", "u", None)
        stateful = verb == "stop" and options.flag("stateful")
        wait, stateless = (verb == "restart" and options.flag(each) for each in ("wait", "stateless"))
        options.end()
        operation = self._manager.change_state(
            name,
            verb,
            call.caller.uid,
            force=force,
            timeout=timeout,
            wait=wait,
            stateful=stateful,
            stateless=stateless,
        )
        return operation_path(operation)

    async def _pause(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.change_state(name, "pause", call.caller.uid))

    async def _resume(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.change_state(name, "resume", call.caller.uid))

    async def _delete(self, name: str, call: Call) -> list[Any]:
        options = call.options
        force = options.flag("force")
        options.end()
        return operation_path(self._manager.instances.delete(name, call.caller.uid, force=force))

    async def _rename(self, name: str, call: Call) -> list[Any]:
        return operation_path(self._manager.instances.rename(name, call.body[0], call.caller.uid))

    async def _get_config(self, name: str, call: Call) -> list[Any]:
        """All of it; the property, which everybody may read, leaves out what is private."""
        return [dict(self._manager.table.get(name).config)]

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        await self._manager.instances.change_config(name, call.body[0], call.body[1])
        return []

    async def _change_devices(self, name: str, call: Call) -> list[Any]:
        await self._manager.instances.change_devices(name, call.body[0], call.body[1])
        return []

    async def _add_device(self, name: str, call: Call) -> list[Any]:
        await self._manager.instances.add_device(name, call.body[0], call.body[1])
        return []

    async def _change_device(self, name: str, call: Call) -> list[Any]:
        await self._manager.instances.change_device(name, call.body[0], call.body[1], call.body[2])
        return []

    async def _change_profiles(self, name: str, call: Call) -> list[Any]:
        await self._manager.instances.change_profiles(name, call.body[0], call.body[1])
        return []

    async def _get_disk_usage(self, name: str, call: Call) -> list[Any]:
        """Bytes written beside the image, and the size of the root disk, 0 for none."""
        instance = self._manager.table.get(name)
        written = self._manager.quotas.usage(instance)
        if written is None:
            raise UnsupportedError(f"what {name} writes is not counted", HOW)
        return [written.used, written.most]

    async def _get_state(self, name: str, call: Call) -> list[Any]:
        return [usage.state(await self._manager.usages.of(name))]

    async def _update(self, name: str, call: Call) -> list[Any]:
        options = call.options
        update = Update(
            config=options.take("config", "a{ss}", None),
            devices=options.take("devices", "a{sa{ss}}", None),
            profiles=options.take("profiles", "as", None),
            description=options.take("description", "s", None),
            ephemeral=options.take("ephemeral", "b", None),
        )
        options.end()
        await self._manager.instances.update(name, update)
        return []

    async def _exec(self, name: str, call: Call) -> list[Any]:
        """Result of the operation: exit-status. Streams that are not given are /dev/null."""
        options = call.options
        stdio = (options.fd("stdin"), options.fd("stdout"), options.fd("stderr"))
        command = Command(
            argv=call.body[0],
            environment=options.take("environment", "a{ss}", {}),
            cwd=options.text("cwd"),
            user=options.text("user"),
            stdio=stdio,
        )
        session = options.text("session")
        options.end()
        command.check()
        self._manager.lifecycle.guest_of(self._manager.table.get(name))
        owner = call.caller.uid

        async def work(handle: Handle) -> None:
            try:
                status = await self._manager.sessions.execute(name, command, session=session, owner=owner)
            finally:
                command.close()
            handle.set_result("exit-status", str(status))

        operation = self._manager.operations.begin("exec", name, work, owner, record=False)
        call.hand_over()
        return operation_path(operation)

    async def _open_console(self, name: str, call: Call) -> list[Any]:
        call.reply_fds = [self._manager.sessions.open_console(name)]
        return [0]


def image_kind(manager: Manager) -> Kind:
    images = manager.images
    interface = Interface(
        "org.syscont.Image",
        [],
        [
            Property("Fingerprint", "s", lambda key: key, changes=False),
            Property("Aliases", "as", images.aliases),
            Property("Type", "s", lambda key: images.find(key).kind.value, changes=False),
            Property("Architecture", "s", lambda key: images.find(key).architecture, changes=False),
            Property("Description", "s", lambda key: images.find(key).description, changes=False),
            Property("Init", "s", lambda key: images.find(key).init.value, changes=False),
            Property("Properties", "a{ss}", lambda key: images.find(key).properties, changes=False),
            Property("Size", "t", lambda key: images.find(key).size, changes=False),
            Property("DiskSize", "t", lambda key: images.find(key).disk_size, changes=False),
            Property("CreatedTimestamp", "t", lambda key: images.find(key).created, changes=False),
            Property("ImportedTimestamp", "t", lambda key: images.find(key).imported, changes=False),
        ],
    )
    return Kind("image", interface, lambda: [i.fingerprint for i in images.all()], images.has)


def operation_kind(manager: Manager, authority: Authority) -> Kind:
    operations = manager.operations

    async def cancel(operation_id: str, call: Call) -> list[Any]:
        if not manager.is_own_operation(operation_id, call.caller):
            await authority.check(call.caller, Action.MANAGE_OPERATIONS, {"operation": operation_id})
        operations.cancel(operation_id)
        return []

    interface = Interface(
        "org.syscont.Operation",
        [Method("Cancel", [], [], cancel)],
        [
            Property("Id", "s", lambda key: key, changes=False),
            Property("Kind", "s", lambda key: operations.get(key).kind, changes=False),
            Property("Target", "s", lambda key: operations.get(key).target, changes=False),
            Property("Status", "s", lambda key: operations.get(key).status.value),
            Property("Stage", "s", lambda key: operations.get(key).stage),
            Property("Done", "t", lambda key: operations.get(key).done),
            Property("Total", "t", lambda key: operations.get(key).total),
            Property("Error", "s", lambda key: operations.get(key).dbus_error),
            Property("Message", "s", lambda key: operations.get(key).message),
            Property("Result", "a{ss}", lambda key: operations.get(key).result),
        ],
    )
    return Kind("operation", interface, lambda: [o.id for o in operations.all()], operations.has)
