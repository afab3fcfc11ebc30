# SPDX-License-Identifier: Apache-2.0
"""Profiles: making and changing them. A change holds for every instance that has the profile, or is not made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from sysd.manager import hosts
from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.kept import Kept
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.quotas import Quotas
from sysd.manager.register import Register
from sysd.manager.rules import Rules
from sysd.manager.table import Table
from sysd.model import names
from sysd.model.config import SCHEMA, check_config
from sysd.model.devices.change import replaced, with_device, with_options
from sysd.model.devices.check import check_devices
from sysd.model.errors import BusyError, ExistsError, FailedError, NotFoundError, SyscontError
from sysd.model.instance import Instance, Phase
from sysd.model.profile import DEFAULT_PROFILE, Profile
from sysd.model.values import check_description

CHANGE = "change-profile"
MAX_PROFILES = 10_000
_PROPERTIES = {"config": "Config", "devices": "Devices", "description": "Description"}


@dataclass(frozen=True, slots=True)
class ProfileUpdate:
    """New values for parts of a profile, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    config: Mapping[str, str] | None = None
    devices: Mapping[str, Mapping[str, str]] | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """Keys and devices to set, and keys and devices to take away. Nothing is checked yet."""

    config: Mapping[str, str] = field(default_factory=dict)
    unset: Collection[str] = ()
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    remove: Collection[str] = ()


class Profiles:
    def __init__(
        self,
        catalog: Catalog,
        events: EventBus,
        operations: Operations,
        table: Table,
        register: Register,
        rules: Rules,
        lifecycle: Lifecycle,
        quotas: Quotas,
        kept: Kept,
    ) -> None:
        self._kept = kept
        self._catalog = catalog
        self._events = events
        self._operations = operations
        self._table = table
        self._register = register
        self._rules = rules
        self._lifecycle = lifecycle
        self._quotas = quotas

    def used_by(self, profile: Profile) -> list[Instance]:
        """The instances that have a profile."""
        return [
            instance
            for instance in self._table.all()
            if profile.name in instance.profiles and self._catalog.home_of(instance) == profile.project
        ]

    # making

    def create(self, reference: str, wanted: ProfileUpdate) -> Profile:
        """Make a profile, in the project whose profiles the one of reference has."""
        profile = _updated(self._new(reference), wanted)
        self._add(profile)
        return profile

    def copy(self, reference: str, new_reference: str) -> Profile:
        source, new = self._catalog.profile(reference), self._new(new_reference)
        copied = replace(source, name=new.name, project=new.project)
        self._add(copied)
        return copied

    def _new(self, reference: str) -> Profile:
        project, name = names.split(reference)
        names.check_profile_name(name)
        home = self._catalog.project(project).profile_project
        if self._catalog.find_profile(home, name):
            raise ExistsError(f"a profile named {name!r} exists already")
        if len(self._catalog.profiles()) >= MAX_PROFILES:
            raise BusyError("there are too many profiles", "delete some")
        return Profile(name, home)

    def _add(self, profile: Profile) -> None:
        hosts.check_devices(profile.devices, self._catalog.find_network)
        self._catalog.remember(profile)
        self._publish(Kind.PROFILE_ADDED, profile)

    # changing

    async def update(self, reference: str, wanted: ProfileUpdate, owner: int) -> None:
        await self._change(reference, lambda profile: _updated(profile, wanted), owner)

    async def change(self, reference: str, wanted: ProfileChange, owner: int) -> None:
        await self._change(reference, lambda profile: _changed(profile, wanted), owner)

    async def add_device(self, reference: str, device: str, options: Mapping[str, str], owner: int) -> None:
        """Give it a device of a name that none of its has."""

        def change(profile: Profile) -> Profile:
            return replace(profile, devices=with_device(profile.devices, _owner(profile), device, options))

        await self._change(reference, change, owner)

    async def change_device(
        self, reference: str, device: str, values: Mapping[str, str], unset: Collection[str], owner: int
    ) -> None:
        """Set options of one of its devices and remove others."""

        def change(profile: Profile) -> Profile:
            return replace(profile, devices=with_options(profile.devices, _owner(profile), device, values, unset))

        await self._change(reference, change, owner)

    async def _change(self, reference: str, change: Callable[[Profile], Profile], owner: int) -> None:
        """Change a profile for all that have it; when one of them can't be so, nothing changes. Before a change is
        said to be made it is in force where it can be at once. What a crash leaves undone is done at the next start:
        see put_in_force."""
        profile = self._catalog.profile(reference)
        change(profile)  # bad input is refused before anything is begun

        async def work(handle: Handle) -> None:
            async with self._held(profile):
                before = self._catalog.profile(profile.reference)
                after = change(before)
                if after != before:
                    users = self._commit(before, after)
                    await self.put_in_force(after, users, handle.progress)

        await self._operations.wait(self._operations.begin(CHANGE, profile.reference, work, owner).id)

    def _commit(self, before: Profile, after: Profile) -> list[Instance]:
        """Check what becomes of each instance that has the profile, then change it all at once. Returns the new values
        of those instances."""

        def look(project: str, name: str) -> Profile | None:
            is_it = (project, name) == (after.project, after.name)
            return after if is_it else self._catalog.find_profile(project, name)

        users = [user for user in self.used_by(before) if user.phase is not Phase.DELETING]
        if after.devices != before.devices:
            hosts.check_devices(after.devices, self._catalog.find_network)
        changed = [self._kept.remember(user, look) for user in users]
        self._rules.check(changed, look)
        for user in changed:
            self._quotas.check_room(self._catalog.expand(user, look))
        others = tuple(new for new, old in zip(changed, users, strict=True) if new != old)
        self._register.commit(others, lambda: self._catalog.write(after))
        self._catalog.take(after)
        self._table.forget_expanded()
        parts = [name for part, name in _PROPERTIES.items() if getattr(before, part) != getattr(after, part)]
        self._publish(Kind.PROFILE_CHANGED, after, *parts)
        return changed

    async def put_in_force(
        self, profile: Profile, users: Sequence[Instance], progress: Callable[[str, int, int], None]
    ) -> None:
        """Let the instances that have a profile be as it says; raises FailedError when some can't."""
        failed: list[str] = []
        for done, user in enumerate(users):
            progress(user.name, done, len(users))
            if user.phase is Phase.READY:
                try:
                    await self._lifecycle.put_in_force(user)
                    await self._lifecycle.tell_networks(self._table.expanded(user))
                except SyscontError as error:
                    failed.append(error.message)
            changed = ("Config", "ExpandedConfig", "ExpandedDevices")
            self._events.publish(Event(Kind.INSTANCE_CHANGED, user.name, user.project, changed))
        self._lifecycle.hosts_changed()
        if failed:
            raise FailedError(f"profile {profile.name} has changed, but not all is in force: {'; '.join(failed)}")

    async def finish(self, reference: str) -> None:
        """At start, of a change that a crash cut off: it was made or not, but may not be in force everywhere."""
        try:
            profile = self._catalog.profile(reference)
        except NotFoundError:
            return
        async with self._held(profile):
            await self.put_in_force(profile, self.used_by(profile), lambda *_: None)

    # names

    async def rename(self, reference: str, new_name: str, owner: int) -> None:
        """Give a profile another name, also where instances name it."""
        names.check_profile_name(new_name)
        profile = self._catalog.profile(reference)

        async def work(handle: Handle) -> None:
            async with self._held(profile):
                before = self._catalog.profile(profile.reference)
                self._check_not_default(before, "renamed")
                if self._catalog.find_profile(before.project, new_name):
                    raise ExistsError(f"a profile named {new_name!r} exists already")
                self._rename(before, replace(before, name=new_name))

        await self._operations.wait(self._operations.begin("rename-profile", profile.reference, work, owner).id)

    def _rename(self, before: Profile, after: Profile) -> None:
        users = tuple(
            replace(user, profiles=[after.name if name == before.name else name for name in user.profiles])
            for user in self.used_by(before)
        )

        def write() -> None:
            self._catalog.erase(before)
            self._catalog.write(after)

        self._register.commit(users, write)
        self._catalog.drop(before)
        self._catalog.take(after)
        self._publish(Kind.PROFILE_REMOVED, before)
        self._publish(Kind.PROFILE_ADDED, after)
        for user in users:
            self._events.publish(Event(Kind.INSTANCE_CHANGED, user.name, user.project, ("Profiles",)))

    def delete(self, reference: str) -> None:
        profile = self._catalog.profile(reference)
        self._check_not_default(profile, "deleted")
        if users := self.used_by(profile):
            shown = ", ".join(user.reference for user in users[:3]) + (", ..." if len(users) > 3 else "")
            raise BusyError(f"profile {profile.name} is in use by {shown}", "take it from them first")
        self._catalog.erase(profile)
        self._catalog.drop(profile)
        self._publish(Kind.PROFILE_REMOVED, profile)

    def _check_not_default(self, profile: Profile, what: str) -> None:
        if profile.name == DEFAULT_PROFILE:
            raise BusyError(f"the default profile can't be {what}", "it can be changed")

    @asynccontextmanager
    async def _held(self, profile: Profile) -> AsyncIterator[None]:
        """With the locks of all instances that have a profile held, in one order, so that two can't wait for each
        other."""
        while True:
            users = {user.uuid: self._table.live(user).lock for user in self.used_by(profile)}
            async with AsyncExitStack() as held:
                for uuid in sorted(users):
                    await held.enter_async_context(users[uuid])
                if {user.uuid for user in self.used_by(profile)} <= users.keys():
                    yield
                    return
            # Others have taken the profile while we waited.

    def _publish(self, kind: Kind, profile: Profile, *changed: str) -> None:
        self._events.publish(Event(kind, profile.name, profile.project, changed))


def _updated(profile: Profile, wanted: ProfileUpdate) -> Profile:
    if wanted.config is not None:
        profile = replace(profile, config=check_config(wanted.config))
    if wanted.devices is not None:
        profile = replace(profile, devices=check_devices(wanted.devices))
    if wanted.description is not None:
        profile = replace(profile, description=check_description(wanted.description))
    return profile


def _changed(profile: Profile, wanted: ProfileChange) -> Profile:
    return replace(
        profile,
        config=SCHEMA.changed(profile.config, wanted.config, set(wanted.unset)),
        devices=replaced(profile.devices, _owner(profile), check_devices(wanted.devices), wanted.remove),
    )


def _owner(profile: Profile) -> str:
    return f"profile {profile.name}"
