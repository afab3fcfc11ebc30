# SPDX-License-Identifier: Apache-2.0
"""Projects: making and changing them. No change is made that what a project holds would break."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.rules import Rules
from sysd.manager.table import Table
from sysd.model import names
from sysd.model.errors import BusyError, ExistsError, InvalidError
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.profile import DEFAULT_PROFILE, Profile, default_profile
from sysd.model.project import SCHEMA, Project
from sysd.model.restrictions import usages
from sysd.model.sizes import Usage
from sysd.model.values import check_description
from sysd.store.database import Store

MAX_PROJECTS = 1000
FEATURES = "features."


@dataclass(frozen=True, slots=True)
class ProjectUpdate:
    """New values for parts of a project, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    config: Mapping[str, str] | None = None
    description: str | None = None


class Projects:
    def __init__(self, store: Store, catalog: Catalog, events: EventBus, table: Table, rules: Rules) -> None:
        self._store = store
        self._catalog = catalog
        self._events = events
        self._table = table
        self._rules = rules

    def instances(self, name: str) -> list[str]:
        """Names of the instances of a project, also of those that are half made or half deleted."""
        return [instance.name for instance in self._table.all() if instance.project == name]

    def profiles(self, name: str) -> list[Profile]:
        """The profiles that a project has of its own."""
        return [profile for profile in self._catalog.profiles() if profile.project == name]

    def usages(self, name: str) -> dict[str, Usage]:
        """How much of each of its limits a project's instances take."""
        return usages(self._catalog.project(name), self._rules.members(name))

    def create(self, name: str, wanted: ProjectUpdate) -> Project:
        """Make a project, with profiles of its own if config does not say otherwise."""
        names.check_project_name(name)
        if self._catalog.has_project(name):
            raise ExistsError(f"a project named {name!r} exists already")
        if len(self._catalog.projects()) >= MAX_PROJECTS:
            raise BusyError("there are too many projects", "delete some")
        project = _updated(Project(name, config={"features.profiles": "true"}), wanted)
        project = replace(project, config={"features.profiles": "true"} | project.config)
        self._put(project, self._missing_profile(project))
        self._publish(Kind.PROJECT_ADDED, project)
        self._tell_profile(Kind.PROFILE_ADDED, project)
        return project

    def update(self, name: str, wanted: ProjectUpdate) -> None:
        self._change(name, lambda project: _updated(project, wanted))

    def change(self, name: str, values: Mapping[str, str], unset: Collection[str]) -> None:
        """Set and remove keys, all or none."""
        removed = set(unset)
        self._change(name, lambda project: replace(project, config=SCHEMA.changed(project.config, values, removed)))

    def _change(self, name: str, change: Callable[[Project], Project]) -> None:
        before = self._catalog.project(name)
        after = change(before)
        if before == after:
            return
        if name == DEFAULT_PROJECT and (wrong := next((key for key in after.config if key.startswith(FEATURES)), "")):
            raise InvalidError(f"{wrong} of the default project can't be changed", "it has all that there is")
        if before.has_profiles != after.has_profiles:
            self._check_empty(before, "features.profiles can be changed")
        self._rules.check_project(after)
        gone = [] if after.has_profiles else self.profiles(name)
        self._put(after, self._missing_profile(after), gone)
        changed = [part for part in ("config", "description") if getattr(before, part) != getattr(after, part)]
        self._publish(Kind.PROJECT_CHANGED, after, *(part.capitalize() for part in changed))
        for profile in gone:
            self._events.publish(Event(Kind.PROFILE_REMOVED, profile.name, profile.project))
        if after.has_profiles and not before.has_profiles:
            self._tell_profile(Kind.PROFILE_ADDED, after)

    def rename(self, name: str, new_name: str) -> None:
        """Give an empty project another name."""
        before = self._catalog.project(name)
        self._check_not_default(before, "renamed")
        names.check_project_name(new_name)
        if self._catalog.has_project(new_name):
            raise ExistsError(f"a project named {new_name!r} exists already")
        self._check_empty(before, "a project can be renamed")
        after, theirs = replace(before, name=new_name), self.profiles(name)
        self._put(after, [replace(profile, project=new_name) for profile in theirs], [before, *theirs])
        self._tell_profile(Kind.PROFILE_REMOVED, before)
        self._publish(Kind.PROJECT_REMOVED, before)
        self._publish(Kind.PROJECT_ADDED, after)
        self._tell_profile(Kind.PROFILE_ADDED, after)

    def delete(self, name: str) -> None:
        """Delete an empty project."""
        project = self._catalog.project(name)
        self._check_not_default(project, "deleted")
        self._check_empty(project, "a project can be deleted")
        gone: list[Profile | Project] = [project, *self.profiles(name)]
        with self._store.transaction():
            for each in gone:
                self._catalog.erase(each)
        for each in gone:
            self._catalog.drop(each)
        self._tell_profile(Kind.PROFILE_REMOVED, project)
        self._publish(Kind.PROJECT_REMOVED, project)

    def _missing_profile(self, project: Project) -> list[Profile]:
        """What has to be made when a project comes to have profiles of its own: as in a new installation."""
        if not project.has_profiles or self._catalog.find_profile(project.name, DEFAULT_PROFILE):
            return []
        return [replace(default_profile(), project=project.name)]

    def _put(self, project: Project, added: list[Profile], gone: Collection[Profile | Project] = ()) -> None:
        """A project and its profiles, at once."""
        there: list[Profile | Project] = [project, *added]
        with self._store.transaction():
            for old in gone:
                self._catalog.erase(old)
            for new in there:
                self._catalog.write(new)
        for old in gone:
            self._catalog.drop(old)
        for new in there:
            self._catalog.take(new)

    def _check_not_default(self, project: Project, what: str) -> None:
        if project.name == DEFAULT_PROJECT:
            raise BusyError(f"the default project can't be {what}", "it can be changed")

    def _check_empty(self, project: Project, what: str) -> None:
        """It holds nothing but the profile that it was made with."""
        own = [profile.name for profile in self.profiles(project.name) if profile.name != DEFAULT_PROFILE]
        zones = [zone.name for zone in self._catalog.zones() if zone.project == project.name]
        inside = [
            *self.instances(project.name),
            *(f"profile {name}" for name in own),
            *(f"network zone {name}" for name in zones),
        ]
        if inside:
            shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
            raise BusyError(f"project {project.name} is not empty", f"{what} when it is; it holds {shown}")

    def _tell_profile(self, kind: Kind, project: Project) -> None:
        if project.has_profiles:
            self._events.publish(Event(kind, DEFAULT_PROFILE, project.name))

    def _publish(self, kind: Kind, project: Project, *changed: str) -> None:
        self._events.publish(Event(kind, project.name, "", changed))


def _updated(project: Project, wanted: ProjectUpdate) -> Project:
    if wanted.config is not None:
        project = replace(project, config=SCHEMA.check(wanted.config))
    if wanted.description is not None:
        project = replace(project, description=check_description(wanted.description))
    return project
