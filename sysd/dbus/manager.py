# SPDX-License-Identifier: Apache-2.0
"""org.syscont.Manager on the bus: the main object, and signals for what happens."""

from __future__ import annotations

from typing import Any

import sysd
from sysd.dbus.acls import AclObjects
from sysd.dbus.catalog import ProfileObjects, ProjectObjects, profile_update, project_update
from sysd.dbus.interface import Call, Interface, Method, Property, Signal
from sysd.dbus.networks import NetworkObjects
from sysd.dbus.objects import InstanceObjects, image_kind, operation_kind
from sysd.dbus.operation import OPERATION, OPTIONS, operation_path
from sysd.dbus.service import Kind as ObjectKind
from sysd.dbus.service import Service
from sysd.dbus.snapshots import SnapshotMethods
from sysd.dbus.transfers import TransferMethods
from sysd.dbus.trust import TrustMethods
from sysd.dbus.zones import ZoneObjects
from sysd.manager.actions import Action, Authority
from sysd.manager.events import Event
from sysd.manager.events import Kind as EventKind
from sysd.manager.instances import NewInstance, StartOptions
from sysd.manager.manager import Manager
from sysd.manager.uploads import Upload
from sysd.model.errors import InvalidError
from sysd.model.instance import Kind
from sysd.model.profile import DEFAULT_PROFILE
from sysd.model.secrets import public
from sysd.units.bus import Bus

NAME = "org.syscont.Manager"


class ManagerObject:
    def __init__(self, manager: Manager, authority: Authority) -> None:
        self._manager = manager
        self._authority = authority
        self._kinds: dict[str, ObjectKind] = {}

    def serve(self, bus: Bus) -> Service:
        """Answer calls on the bus and emit signals from now on."""
        kinds = self.kinds()
        self._kinds = {kind.element: kind for kind in kinds}
        service = Service(bus, self.interface(), kinds, self._authority)
        self._manager.events.subscribe(lambda event: _tell(service, event))
        return service

    def kinds(self) -> list[ObjectKind]:
        return [
            InstanceObjects(self._manager).kind(),
            image_kind(self._manager),
            NetworkObjects(self._manager).kind(),
            AclObjects(self._manager).kind(),
            ZoneObjects(self._manager).kind(),
            ProfileObjects(self._manager).kind(),
            ProjectObjects(self._manager).kind(),
            operation_kind(self._manager, self._authority),
        ]

    def interface(self) -> Interface:
        instances, images = Action.MANAGE_INSTANCES, Action.MANAGE_IMAGES
        profiles, projects, server = Action.MANAGE_PROFILES, Action.MANAGE_PROJECTS, Action.MANAGE_SERVER
        give, change = [OPERATION], [("a{ss}", "set"), ("as", "unset")]
        return Interface(
            NAME,
            [
                Method("GetServerConfig", [], [("a{ss}", "config")], self._get_server_config, server),
                Method("ChangeServerConfig", change, [], self._change_server_config, server),
                Method("UpdateServerConfig", [("a{ss}", "config")], [], self._update_server_config, server),
                Method("ListInstances", [], [("a(sssso)", "instances")], self._list_instances),
                Method("GetInstance", [("s", "name")], [("o", "instance")], self._get_instance),
                Method("CreateInstance", [("s", "name"), OPTIONS], give, self._create_instance, instances),
                *SnapshotMethods(self._manager).manager_methods(),
                *TransferMethods(self._manager).manager_methods(),
                Method("ListImages", [], [("a(sasto)", "images")], self._list_images),
                Method("GetImage", [("s", "name")], [("o", "image")], self._get_image),
                Method("BuildImage", [("s", "source"), OPTIONS], give, self._build_image, images),
                Method("ImportImage", [OPTIONS], give, self._import_image, images),
                Method("DeleteImage", [("s", "name")], give, self._delete_image, images),
                Method("AddImageAlias", [("s", "alias"), ("s", "image")], [], self._add_alias, images),
                Method("RemoveImageAlias", [("s", "alias")], [], self._remove_alias, images),
                *NetworkObjects(self._manager).manager_methods(),
                *AclObjects(self._manager).manager_methods(),
                *ZoneObjects(self._manager).manager_methods(),
                *TrustMethods(self._manager.trust).manager_methods(),
                Method("ListProfiles", [], [("a(ssso)", "profiles")], self._list_profiles),
                Method("GetProfile", [("s", "name")], [("o", "profile")], self._get_profile),
                Method("CreateProfile", [("s", "name"), OPTIONS], [("o", "profile")], self._create_profile, profiles),
                Method("ListProjects", [], [("a(sso)", "projects")], self._list_projects),
                Method("GetProject", [("s", "name")], [("o", "project")], self._get_project),
                Method("CreateProject", [("s", "name"), OPTIONS], [("o", "project")], self._create_project, projects),
                Method("ListOperations", [], [("a(sssso)", "operations")], self._list_operations),
                Method("GetOperation", [("s", "id")], [("o", "operation")], self._get_operation),
                Method("CancelOperation", [("s", "id")], [], self._cancel_operation),
            ],
            [
                Property("Version", "s", lambda _: sysd.__version__, changes=False),
                Property("ServerConfig", "a{ss}", lambda _: public(self._manager.server.config)),
                *TrustMethods(self._manager.trust).manager_properties(),
            ],
            [
                Signal("InstanceNew", [("s", "name"), ("o", "instance")]),
                Signal("InstanceRemoved", [("s", "name"), ("o", "instance")]),
                Signal("OperationNew", [("s", "id"), ("o", "operation")]),
                Signal("OperationRemoved", [("s", "id"), ("o", "operation")]),
            ],
        )

    # the host

    async def _get_server_config(self, _: str, call: Call) -> list[Any]:
        """All of it; the property, which everybody may read, leaves out what is private."""
        return [self._manager.server.config]

    async def _change_server_config(self, _: str, call: Call) -> list[Any]:
        await self._manager.server.change(call.body[0], call.body[1], call.caller.uid)
        return []

    async def _update_server_config(self, _: str, call: Call) -> list[Any]:
        await self._manager.server.update(call.body[0], call.caller.uid)
        return []

    # instances

    async def _list_instances(self, _: str, call: Call) -> list[Any]:
        table, path = self._manager.table, self._kinds["instance"].path
        rows = [(i.reference, i.kind.value, table.status(i).state.value, i.image) for i in table.all()]
        return [[[*row, path(row[0])] for row in rows]]

    async def _get_instance(self, _: str, call: Call) -> list[Any]:
        return [self._kinds["instance"].path(self._manager.table.get(call.body[0]).reference)]

    async def _create_instance(self, _: str, call: Call) -> list[Any]:
        options = call.options
        wanted = NewInstance(
            call.body[0],
            options.text("image"),
            options.take("config", "a{ss}", {}),
            options.take("devices", "a{sa{ss}}", {}),
            options.take("profiles", "as", [DEFAULT_PROFILE]),
            options.text("description"),
            options.flag("ephemeral"),
            Kind.VM if options.flag("vm") else None,
        )
        start = StartOptions(start=options.flag("start"), wait=options.flag("wait"))
        options.end()
        if not wanted.image:
            raise InvalidError("option image is missing", "name the image that the instance is made from")
        return operation_path(self._manager.instances.create(wanted, start, call.caller.uid))

    # images

    async def _list_images(self, _: str, call: Call) -> list[Any]:
        images, path = self._manager.images, self._kinds["image"].path
        return [[[i.fingerprint, images.aliases(i.fingerprint), i.size, path(i.fingerprint)] for i in images.all()]]

    async def _get_image(self, _: str, call: Call) -> list[Any]:
        return [self._kinds["image"].path(self._manager.images.find(call.body[0]).fingerprint)]

    async def _build_image(self, _: str, call: Call) -> list[Any]:
        options = call.options
        aliases, vm = options.take("aliases", "as", []), options.flag("vm")
        options.end()
        return operation_path(self._manager.images.build(call.body[0], aliases, call.caller.uid, vm=vm))

    async def _import_image(self, _: str, call: Call) -> list[Any]:
        """Options: image (h), or metadata (h) and rootfs (h); aliases (as); vm (b), and format (s) of a disk."""
        options = call.options
        aliases, vm, form = options.take("aliases", "as", []), options.flag("vm"), options.text("format")
        upload = Upload(options.fd("image"), options.fd("metadata"), options.fd("rootfs"), vm, form)
        options.end()
        call.hand_over()
        return operation_path(self._manager.images.import_image(upload, aliases, call.caller.uid))

    async def _delete_image(self, _: str, call: Call) -> list[Any]:
        return operation_path(self._manager.images.delete(call.body[0], call.caller.uid))

    async def _add_alias(self, _: str, call: Call) -> list[Any]:
        self._manager.images.add_alias(call.body[0], call.body[1])
        return []

    async def _remove_alias(self, _: str, call: Call) -> list[Any]:
        self._manager.images.remove_alias(call.body[0])
        return []

    # profiles and projects

    async def _list_profiles(self, _: str, call: Call) -> list[Any]:
        path = self._kinds["profile"].path
        return [[[p.name, p.project, p.description, path(p.reference)] for p in self._manager.catalog.profiles()]]

    async def _get_profile(self, _: str, call: Call) -> list[Any]:
        return [self._kinds["profile"].path(self._manager.catalog.profile(call.body[0]).reference)]

    async def _create_profile(self, _: str, call: Call) -> list[Any]:
        profile = self._manager.profiles.create(call.body[0], profile_update(call))
        return [self._kinds["profile"].path(profile.reference)]

    async def _list_projects(self, _: str, call: Call) -> list[Any]:
        path = self._kinds["project"].path
        return [[[p.name, p.description, path(p.name)] for p in self._manager.catalog.projects()]]

    async def _get_project(self, _: str, call: Call) -> list[Any]:
        return [self._kinds["project"].path(self._manager.catalog.project(call.body[0]).name)]

    async def _create_project(self, _: str, call: Call) -> list[Any]:
        project = self._manager.projects.create(call.body[0], project_update(call))
        return [self._kinds["project"].path(project.name)]

    # operations

    async def _list_operations(self, _: str, call: Call) -> list[Any]:
        return [[[o.id, o.kind, o.target, o.status.value, *operation_path(o)] for o in self._manager.operations.all()]]

    async def _get_operation(self, _: str, call: Call) -> list[Any]:
        return operation_path(self._manager.operations.get(call.body[0]))

    async def _cancel_operation(self, _: str, call: Call) -> list[Any]:
        method = self._kinds["operation"].interface.method("Cancel")
        assert method
        return await method.run(self._manager.operations.get(call.body[0]).id, call)


OPERATION_PROPERTIES = ("Status", "Stage", "Done", "Total", "Error", "Message", "Result")


def _tell(service: Service, event: Event) -> None:
    """Events as D-Bus signals."""
    noun, _, what = event.kind.partition("-")
    if event.kind is EventKind.SERVER_CHANGED:
        service.manager_changed(event.changed)
    elif what == "added":
        service.added(noun, event.reference)
    elif what == "removed":
        service.removed(noun, event.reference)
    elif event.kind is EventKind.OPERATION_CHANGED:
        service.changed(noun, event.reference, OPERATION_PROPERTIES)
    elif event.changed:
        service.changed(noun, event.reference, event.changed)
    signals = {
        EventKind.INSTANCE_ADDED: "InstanceNew",
        EventKind.INSTANCE_REMOVED: "InstanceRemoved",
        EventKind.OPERATION_ADDED: "OperationNew",
        EventKind.OPERATION_REMOVED: "OperationRemoved",
    }
    if signal := signals.get(event.kind):
        service.emit(signal, event.reference, service.path(noun, event.reference))
