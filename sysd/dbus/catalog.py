# SPDX-License-Identifier: Apache-2.0
"""Profiles and projects as D-Bus objects."""

from __future__ import annotations

from typing import Any

from sysd.dbus.interface import ADD_DEVICE, CHANGE_DEVICE, Call, Interface, Method, Property
from sysd.dbus.operation import OPTIONS
from sysd.dbus.service import Kind
from sysd.manager.actions import Action
from sysd.manager.manager import Manager
from sysd.manager.profiles import ProfileChange, ProfileUpdate
from sysd.manager.projects import ProjectUpdate
from sysd.model.secrets import public


def profile_update(call: Call) -> ProfileUpdate:
    """Options: config (a{ss}), devices (a{sa{ss}}), description (s); what is not given stays."""
    options = call.options
    update = ProfileUpdate(
        config=options.take("config", "a{ss}", None),
        devices=options.take("devices", "a{sa{ss}}", None),
        description=options.take("description", "s", None),
    )
    options.end()
    return update


def project_update(call: Call) -> ProjectUpdate:
    """Options: config (a{ss}), description (s); what is not given stays."""
    options = call.options
    update = ProjectUpdate(
        config=options.take("config", "a{ss}", None),
        description=options.take("description", "s", None),
    )
    options.end()
    return update


class ProfileObjects:
    """org.syscont.Profile; an object's name is its profile's, qualified by its project."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def kind(self) -> Kind:
        catalog = self._manager.catalog
        return Kind(
            "profile", self.interface(), lambda: [p.reference for p in catalog.profiles()], catalog.knows_profile
        )

    def interface(self) -> Interface:
        manage, find = Action.MANAGE_PROFILES, self._manager.catalog.profile
        change_devices = [("a{sa{ss}}", "set"), ("as", "remove")]
        return Interface(
            "org.syscont.Profile",
            [
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("GetConfig", [], [("a{ss}", "config")], self._get_config, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("ChangeDevices", change_devices, [], self._change_devices, manage),
                Method("AddDevice", ADD_DEVICE, [], self._add_device, manage),
                Method("ChangeDevice", CHANGE_DEVICE, [], self._change_device, manage),
                Method("Copy", [("s", "new_name")], [], self._copy, manage),
                Method("Rename", [("s", "new_name")], [], self._rename, manage),
                Method("Delete", [], [], self._delete, manage),
            ],
            [
                Property("Name", "s", lambda name: find(name).name, changes=False),
                Property("Project", "s", lambda name: find(name).project, changes=False),
                Property("Description", "s", lambda name: find(name).description),
                Property("Config", "a{ss}", lambda name: public(find(name).config)),
                Property("Devices", "a{sa{ss}}", lambda name: find(name).devices),
            ],
        )

    async def _update(self, name: str, call: Call) -> list[Any]:
        await self._manager.profiles.update(name, profile_update(call), call.caller.uid)
        return []

    async def _get_config(self, name: str, call: Call) -> list[Any]:
        """All of it; the property, which everybody may read, leaves out what is private."""
        return [dict(self._manager.catalog.profile(name).config)]

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        change = ProfileChange(config=call.body[0], unset=call.body[1])
        await self._manager.profiles.change(name, change, call.caller.uid)
        return []

    async def _change_devices(self, name: str, call: Call) -> list[Any]:
        change = ProfileChange(devices=call.body[0], remove=call.body[1])
        await self._manager.profiles.change(name, change, call.caller.uid)
        return []

    async def _add_device(self, name: str, call: Call) -> list[Any]:
        await self._manager.profiles.add_device(name, call.body[0], call.body[1], call.caller.uid)
        return []

    async def _change_device(self, name: str, call: Call) -> list[Any]:
        device, values, unset = call.body
        await self._manager.profiles.change_device(name, device, values, unset, call.caller.uid)
        return []

    async def _copy(self, name: str, call: Call) -> list[Any]:
        self._manager.profiles.copy(name, call.body[0])
        return []

    async def _rename(self, name: str, call: Call) -> list[Any]:
        await self._manager.profiles.rename(name, call.body[0], call.caller.uid)
        return []

    async def _delete(self, name: str, call: Call) -> list[Any]:
        self._manager.profiles.delete(name)
        return []


class ProjectObjects:
    """org.syscont.Project"""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def kind(self) -> Kind:
        catalog = self._manager.catalog
        return Kind("project", self.interface(), lambda: [p.name for p in catalog.projects()], catalog.has_project)

    def interface(self) -> Interface:
        manage, find = Action.MANAGE_PROJECTS, self._manager.catalog.project
        return Interface(
            "org.syscont.Project",
            [
                Method("Update", [OPTIONS], [], self._update, manage),
                Method("ChangeConfig", [("a{ss}", "set"), ("as", "unset")], [], self._change_config, manage),
                Method("GetUsage", [], [("a{s(tt)}", "usage")], self._get_usage),
                Method("Rename", [("s", "new_name")], [], self._rename, manage),
                Method("Delete", [], [], self._delete, manage),
            ],
            [
                Property("Name", "s", lambda name: find(name).name, changes=False),
                Property("Description", "s", lambda name: find(name).description),
                Property("Config", "a{ss}", lambda name: find(name).config),
            ],
        )

    async def _update(self, name: str, call: Call) -> list[Any]:
        self._manager.projects.update(name, project_update(call))
        return []

    async def _change_config(self, name: str, call: Call) -> list[Any]:
        self._manager.projects.change(name, call.body[0], call.body[1])
        return []

    async def _get_usage(self, name: str, call: Call) -> list[Any]:
        """By limit: how much of it is used, and how much there is."""
        return [{key: [usage.used, usage.most] for key, usage in self._manager.projects.usages(name).items()}]

    async def _rename(self, name: str, call: Call) -> list[Any]:
        self._manager.projects.rename(name, call.body[0])
        return []

    async def _delete(self, name: str, call: Call) -> list[Any]:
        self._manager.projects.delete(name)
        return []
