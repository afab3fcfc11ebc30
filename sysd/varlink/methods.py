# SPDX-License-Identifier: Apache-2.0
"""org.syscont.Manager on varlink: each method unpacks its parameters and asks the manager."""

from __future__ import annotations

import asyncio

from sysd.manager.actions import Action, Authority
from sysd.manager.events import Event
from sysd.manager.instances import NewInstance, StartOptions, Update
from sysd.manager.logs import Excerpt
from sysd.manager.manager import Manager
from sysd.manager.uploads import Upload
from sysd.model.instance import Kind
from sysd.model.operation import Operation
from sysd.model.profile import DEFAULT_PROFILE
from sysd.model.secrets import public
from sysd.runtime.execute import Command
from sysd.varlink import encode
from sysd.varlink.acls import AclMethods
from sysd.varlink.catalog import CatalogMethods
from sysd.varlink.files import FileMethods
from sysd.varlink.follow import follow
from sysd.varlink.forwards import ForwardMethods
from sysd.varlink.meetings import MeetingMethods
from sysd.varlink.networks import NetworkMethods
from sysd.varlink.peers import PeerMethods
from sysd.varlink.service import Call, Method
from sysd.varlink.snapshots import SnapshotMethods
from sysd.varlink.transfers import TransferMethods
from sysd.varlink.trust import TrustMethods
from sysd.varlink.zones import ZoneMethods

MAX_QUEUED_EVENTS = 1000


class Methods:
    def __init__(self, manager: Manager, authority: Authority) -> None:
        self._manager = manager
        self._authority = authority

    def table(self) -> list[Method]:
        instances, images = Action.MANAGE_INSTANCES, Action.MANAGE_IMAGES
        return [
            Method("GetInfo", self.get_info),
            Method("GetServerConfig", self.get_server_config, Action.MANAGE_SERVER),
            Method("ChangeServerConfig", self.change_server_config, Action.MANAGE_SERVER),
            Method("UpdateServerConfig", self.update_server_config, Action.MANAGE_SERVER),
            Method("ListInstances", self.list_instances),
            Method("GetInstance", self.get_instance),
            Method("GetInstanceState", self.get_instance_state),
            Method("ReadLog", self.read_log, instances),
            Method("CreateInstance", self.create_instance, instances),
            Method("StartInstance", self.start_instance, instances),
            Method("StopInstance", self.stop_instance, instances),
            Method("RestartInstance", self.restart_instance, instances),
            Method("PauseInstance", self.pause_instance, instances),
            Method("ResumeInstance", self.resume_instance, instances),
            Method("DeleteInstance", self.delete_instance, instances),
            Method("RenameInstance", self.rename_instance, instances),
            Method("GetConfig", self.get_config, instances),
            Method("ChangeConfig", self.change_config, instances),
            Method("ChangeDevices", self.change_devices, instances),
            Method("AddDevice", self.add_device, instances),
            Method("ChangeDevice", self.change_device, instances),
            Method("ChangeProfiles", self.change_profiles, instances),
            Method("UpdateInstance", self.update_instance, instances),
            Method("Exec", self.execute, Action.EXECUTE),
            Method("SignalExec", self.signal_exec, Action.EXECUTE),
            Method("OpenConsole", self.open_console, Action.EXECUTE),
            Method("ResizeConsole", self.resize_console, Action.EXECUTE),
            *FileMethods(self._manager).table(),
            Method("ListImages", self.list_images),
            Method("GetImage", self.get_image),
            Method("BuildImage", self.build_image, images),
            Method("ImportImage", self.import_image, images),
            Method("DeleteImage", self.delete_image, images),
            Method("AddImageAlias", self.add_image_alias, images),
            Method("RemoveImageAlias", self.remove_image_alias, images),
            *NetworkMethods(self._manager).table(),
            *ForwardMethods(self._manager).table(),
            *PeerMethods(self._manager).table(),
            *AclMethods(self._manager).table(),
            *ZoneMethods(self._manager).table(),
            *CatalogMethods(self._manager).table(),
            Method("ListOperations", self.list_operations),
            Method("CancelOperation", self.cancel_operation),
            Method("Monitor", self.monitor),
            *SnapshotMethods(self._manager).table(),
            *TransferMethods(self._manager).table(),
            *MeetingMethods(self._manager.meetings, self._manager.settlements).table(),
            *TrustMethods(self._manager.trust).table(),
        ]

    # the host

    async def get_info(self, call: Call) -> None:
        config = self._manager.server.config
        call.reply({**await self._manager.info(), "config": public(config) if call.caller.uid else config})

    async def get_server_config(self, call: Call) -> None:
        call.reply({"config": self._manager.server.config})

    async def change_server_config(self, call: Call) -> None:
        await self._manager.server.change(call.mapping("set"), call.texts("unset"), call.caller.uid)
        call.reply({})

    async def update_server_config(self, call: Call) -> None:
        if call.has("config"):
            await self._manager.server.update(call.mapping("config"), call.caller.uid)
        call.reply({})

    # instances

    async def list_instances(self, call: Call) -> None:
        call.reply({"instances": [encode.instance(self._manager, i, call.caller) for i in self._manager.table.all()]})

    async def get_instance(self, call: Call) -> None:
        instance = self._manager.table.get(call.text("name"))
        usage = self._manager.quotas.usage(instance)
        disk = {"used": usage.used, "most": usage.most} if usage else None
        call.reply({"instance": encode.instance(self._manager, instance, call.caller), "disk": disk})

    async def get_instance_state(self, call: Call) -> None:
        call.reply({"state": encode.usage(await self._manager.usages.of(call.text("name")))})

    async def read_log(self, call: Call) -> None:
        wanted = Excerpt(call.number("lines", -1), call.flag("boot"), call.flag("follow"), call.text("output", ""))
        await self._manager.logs.write(call.text("name"), wanted, call.fd("logFd"))
        call.reply({})

    async def create_instance(self, call: Call) -> None:
        options = StartOptions(start=call.flag("start"), wait=call.flag("wait"))
        wanted = NewInstance(
            call.text("name"),
            call.text("image"),
            call.mapping("config"),
            call.mappings("devices"),
            call.texts("profiles", (DEFAULT_PROFILE,)),
            call.text("description", ""),
            call.flag("ephemeral"),
            Kind.VM if call.flag("vm") else None,
        )
        await self._follow(call, self._manager.instances.create(wanted, options, call.caller.uid))

    async def start_instance(self, call: Call) -> None:
        await self._change_state(call, "start")

    async def stop_instance(self, call: Call) -> None:
        await self._change_state(call, "stop")

    async def restart_instance(self, call: Call) -> None:
        await self._change_state(call, "restart")

    async def pause_instance(self, call: Call) -> None:
        await self._change_state(call, "pause")

    async def resume_instance(self, call: Call) -> None:
        await self._change_state(call, "resume")

    async def _change_state(self, call: Call, verb: str) -> None:
        timeout = call.number("timeout", -1)
        operation = self._manager.change_state(
            call.text("name"),
            verb,
            call.caller.uid,
            wait=call.flag("wait"),
            force=call.flag("force"),
            timeout=None if timeout < 0 else timeout,
            stateful=verb == "stop" and call.flag("stateful"),
            stateless=verb in ("start", "restart") and call.flag("stateless"),
        )
        await self._follow(call, operation)

    async def delete_instance(self, call: Call) -> None:
        operation = self._manager.instances.delete(call.text("name"), call.caller.uid, force=call.flag("force"))
        await self._follow(call, operation)

    async def rename_instance(self, call: Call) -> None:
        operation = self._manager.instances.rename(call.text("name"), call.text("newName"), call.caller.uid)
        await self._follow(call, operation)

    async def get_config(self, call: Call) -> None:
        instance = self._manager.table.get(call.text("name"))
        expanded = self._manager.table.expanded(instance).config
        origins = self._manager.catalog.origins(instance)
        call.reply({"config": instance.config, "expanded": expanded, "origins": origins})

    async def change_config(self, call: Call) -> None:
        await self._manager.instances.change_config(call.text("name"), call.mapping("set"), call.texts("unset"))
        call.reply({})

    async def change_devices(self, call: Call) -> None:
        await self._manager.instances.change_devices(call.text("name"), call.mappings("set"), call.texts("unset"))
        call.reply({})

    async def add_device(self, call: Call) -> None:
        await self._manager.instances.add_device(call.text("name"), call.text("device"), call.mapping("options"))
        call.reply({})

    async def change_device(self, call: Call) -> None:
        await self._manager.instances.change_device(
            call.text("name"), call.text("device"), call.mapping("set"), call.texts("unset")
        )
        call.reply({})

    async def change_profiles(self, call: Call) -> None:
        await self._manager.instances.change_profiles(call.text("name"), call.texts("add"), call.texts("remove"))
        call.reply({})

    async def update_instance(self, call: Call) -> None:
        update = Update(
            config=call.mapping("config") if call.has("config") else None,
            devices=call.mappings("devices") if call.has("devices") else None,
            profiles=call.texts("profiles") if call.has("profiles") else None,
            description=call.text("description") if call.has("description") else None,
            ephemeral=call.flag("ephemeral") if call.has("ephemeral") else None,
        )
        await self._manager.instances.update(call.text("name"), update)
        call.reply({})

    # commands and consoles

    async def execute(self, call: Call) -> None:
        tty = call.flag("tty")
        command = Command(
            argv=call.texts("command"),
            environment=call.mapping("environment"),
            cwd=call.text("cwd", ""),
            user=call.text("user", ""),
            tty=tty,
            size=(call.number("rows", 0), call.number("columns", 0)),
            stdio=(-1, -1, -1) if tty or len(call.fds) < 3 else (call.fds[0], call.fds[1], call.fds[2]),
        )

        def on_terminal(fd: int) -> None:
            call.reply_fds = [fd]
            call.reply({"terminalFd": 0}, continues=True)

        status = await self._manager.sessions.execute(
            call.text("name"),
            command,
            session=call.text("session", ""),
            owner=call.caller.uid,
            on_terminal=on_terminal if tty and call.more else None,
        )
        call.reply({"exitStatus": status})

    async def signal_exec(self, call: Call) -> None:
        self._manager.sessions.signal(call.text("session"), call.number("signal"), call.caller.uid)
        call.reply({})

    async def open_console(self, call: Call) -> None:
        call.reply_fds = [self._manager.sessions.open_console(call.text("name"))]
        call.reply({"streamFd": 0})

    async def resize_console(self, call: Call) -> None:
        self._manager.sessions.resize_console(call.text("name"), call.number("columns"), call.number("rows"))
        call.reply({})

    # images

    async def list_images(self, call: Call) -> None:
        call.reply({"images": [encode.image(self._manager, i) for i in self._manager.images.all()]})

    async def get_image(self, call: Call) -> None:
        call.reply({"image": encode.image(self._manager, self._manager.images.find(call.text("name")))})

    async def build_image(self, call: Call) -> None:
        source, vm = call.text("source"), call.flag("vm")
        operation = self._manager.images.build(source, call.texts("aliases"), call.caller.uid, vm=vm)
        await self._follow(call, operation)

    async def import_image(self, call: Call) -> None:
        aliases, vm, form = call.texts("aliases"), call.flag("vm"), call.text("format", "")
        upload = Upload(call.fd("imageFd"), call.fd("metadataFd"), call.fd("rootfsFd"), vm, form)
        call.hand_over()
        await self._follow(call, self._manager.images.import_image(upload, aliases, call.caller.uid))

    async def delete_image(self, call: Call) -> None:
        await self._follow(call, self._manager.images.delete(call.text("name"), call.caller.uid))

    async def add_image_alias(self, call: Call) -> None:
        self._manager.images.add_alias(call.text("alias"), call.text("image"))
        call.reply({})

    async def remove_image_alias(self, call: Call) -> None:
        self._manager.images.remove_alias(call.text("alias"))
        call.reply({})

    # the rest

    async def list_operations(self, call: Call) -> None:
        call.reply({"operations": [encode.operation(o) for o in self._manager.operations.all()]})

    async def cancel_operation(self, call: Call) -> None:
        operation_id = call.text("id")
        if not self._manager.is_own_operation(operation_id, call.caller):
            await self._authority.check(call.caller, Action.MANAGE_OPERATIONS, {"operation": operation_id})
        self._manager.operations.cancel(operation_id)
        call.reply({})

    async def monitor(self, call: Call) -> None:
        queue: asyncio.Queue[Event] = asyncio.Queue()

        def take(event: Event) -> None:
            if queue.qsize() > MAX_QUEUED_EVENTS:
                call.connection.close()
            queue.put_nowait(event)

        end = self._manager.events.subscribe(take)
        try:
            while True:
                event = await queue.get()
                call.reply({"event": event.kind, "project": event.project, "name": event.name}, continues=True)
        finally:
            end()

    async def _follow(self, call: Call, operation: Operation) -> None:
        await follow(self._manager, call, operation)
