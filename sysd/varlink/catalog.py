# SPDX-License-Identifier: Apache-2.0
"""Profiles and projects on varlink."""

from __future__ import annotations

from typing import Any

from sysd.manager.actions import Action, Caller
from sysd.manager.manager import Manager
from sysd.manager.profiles import ProfileChange, ProfileUpdate
from sysd.manager.projects import ProjectUpdate
from sysd.model.profile import Profile
from sysd.model.project import Project
from sysd.model.secrets import public
from sysd.varlink.service import Call, Method


class CatalogMethods:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._catalog = manager.catalog
        self._profiles = manager.profiles
        self._projects = manager.projects

    def table(self) -> list[Method]:
        profiles, projects = Action.MANAGE_PROFILES, Action.MANAGE_PROJECTS
        return [
            Method("ListProfiles", self.list_profiles),
            Method("GetProfile", self.get_profile),
            Method("GetProfileConfig", self.get_profile_config, profiles),
            Method("CreateProfile", self.create_profile, profiles),
            Method("UpdateProfile", self.update_profile, profiles),
            Method("ChangeProfile", self.change_profile, profiles),
            Method("AddProfileDevice", self.add_profile_device, profiles),
            Method("ChangeProfileDevice", self.change_profile_device, profiles),
            Method("CopyProfile", self.copy_profile, profiles),
            Method("RenameProfile", self.rename_profile, profiles),
            Method("DeleteProfile", self.delete_profile, profiles),
            Method("ListProjects", self.list_projects),
            Method("GetProject", self.get_project),
            Method("CreateProject", self.create_project, projects),
            Method("UpdateProject", self.update_project, projects),
            Method("ChangeProject", self.change_project, projects),
            Method("RenameProject", self.rename_project, projects),
            Method("DeleteProject", self.delete_project, projects),
        ]

    # profiles

    async def list_profiles(self, call: Call) -> None:
        call.reply({"profiles": [self._profile(profile, call.caller) for profile in self._catalog.profiles()]})

    async def get_profile(self, call: Call) -> None:
        call.reply({"profile": self._profile(self._catalog.profile(call.text("name")), call.caller)})

    async def get_profile_config(self, call: Call) -> None:
        call.reply({"config": self._catalog.profile(call.text("name")).config})

    async def create_profile(self, call: Call) -> None:
        self._profiles.create(call.text("name"), _profile_update(call))
        call.reply({})

    async def update_profile(self, call: Call) -> None:
        await self._profiles.update(call.text("name"), _profile_update(call), call.caller.uid)
        call.reply({})

    async def change_profile(self, call: Call) -> None:
        change = ProfileChange(
            call.mapping("set"), call.texts("unset"), call.mappings("devices"), call.texts("removeDevices")
        )
        await self._profiles.change(call.text("name"), change, call.caller.uid)
        call.reply({})

    async def add_profile_device(self, call: Call) -> None:
        await self._profiles.add_device(
            call.text("name"), call.text("device"), call.mapping("options"), call.caller.uid
        )
        call.reply({})

    async def change_profile_device(self, call: Call) -> None:
        await self._profiles.change_device(
            call.text("name"), call.text("device"), call.mapping("set"), call.texts("unset"), call.caller.uid
        )
        call.reply({})

    async def copy_profile(self, call: Call) -> None:
        self._profiles.copy(call.text("name"), call.text("newName"))
        call.reply({})

    async def rename_profile(self, call: Call) -> None:
        await self._profiles.rename(call.text("name"), call.text("newName"), call.caller.uid)
        call.reply({})

    async def delete_profile(self, call: Call) -> None:
        self._profiles.delete(call.text("name"))
        call.reply({})

    # projects

    async def list_projects(self, call: Call) -> None:
        call.reply({"projects": [self._project(project) for project in self._catalog.projects()]})

    async def get_project(self, call: Call) -> None:
        project = self._catalog.project(call.text("name"))
        usages = self._projects.usages(project.name)
        usage = {key: {"used": found.used, "most": found.most} for key, found in usages.items()}
        call.reply({"project": self._project(project), "usage": usage})

    async def create_project(self, call: Call) -> None:
        self._projects.create(call.text("name"), _project_update(call))
        call.reply({})

    async def update_project(self, call: Call) -> None:
        self._projects.update(call.text("name"), _project_update(call))
        call.reply({})

    async def change_project(self, call: Call) -> None:
        self._projects.change(call.text("name"), call.mapping("set"), call.texts("unset"))
        call.reply({})

    async def rename_project(self, call: Call) -> None:
        self._projects.rename(call.text("name"), call.text("newName"))
        call.reply({})

    async def delete_project(self, call: Call) -> None:
        self._projects.delete(call.text("name"))
        call.reply({})

    def _profile(self, value: Profile, caller: Caller) -> dict[str, Any]:
        return {
            "name": value.name,
            "project": value.project,
            "description": value.description,
            "config": public(value.config) if caller.uid else value.config,
            "devices": value.devices,
            "usedBy": [instance.reference for instance in self._profiles.used_by(value)],
        }

    def _project(self, value: Project) -> dict[str, Any]:
        return {
            "name": value.name,
            "description": value.description,
            "config": value.config,
            "instances": self._projects.instances(value.name),
            "profiles": [profile.name for profile in self._projects.profiles(value.name)],
        }


def _profile_update(call: Call) -> ProfileUpdate:
    return ProfileUpdate(
        config=call.mapping("config") if call.has("config") else None,
        devices=call.mappings("devices") if call.has("devices") else None,
        description=call.text("description") if call.has("description") else None,
    )


def _project_update(call: Call) -> ProjectUpdate:
    return ProjectUpdate(
        config=call.mapping("config") if call.has("config") else None,
        description=call.text("description") if call.has("description") else None,
    )
