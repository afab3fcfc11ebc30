# SPDX-License-Identifier: Apache-2.0
"""The profiles, projects, networks, ACLs and zones that there are, and the host's configuration: looked up here, and
remembered from here only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from sysd.model import names, server
from sysd.model.acls import Acl
from sysd.model.errors import NotFoundError
from sysd.model.instance import Instance, Phase
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.network import Network
from sysd.model.profile import DEFAULT_PROFILE, Profile, default_profile, expand
from sysd.model.project import Project, default_project
from sysd.model.zones import Zone
from sysd.store.database import Store

Lookup = Callable[[str, str], Profile | None]
"""The profile of a project and a name."""
Remembered = Profile | Project | Network | Acl | Zone


class Catalog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.server_config = store.server_config()
        self._projects = {project.name: project for project in store.projects()}
        self._profiles = {(profile.project, profile.name): profile for profile in store.profiles()}
        self._networks = {network.name: network for network in store.networks()}
        self._acls = {acl.name: acl for acl in store.acls()}
        self._zones = {zone.name: zone for zone in store.zones()}
        if DEFAULT_PROJECT not in self._projects:
            self.remember(default_project())
        if (DEFAULT_PROJECT, DEFAULT_PROFILE) not in self._profiles:
            self.remember(default_profile())

    # projects

    def projects(self) -> list[Project]:
        return [self._projects[name] for name in sorted(self._projects)]

    def has_project(self, name: str) -> bool:
        return name in self._projects

    def project(self, name: str) -> Project:
        try:
            return self._projects[name]
        except KeyError:
            raise NotFoundError(f"no project {name[:80]!r}", "'syscont project list' shows what there is") from None

    # profiles

    def profiles(self) -> list[Profile]:
        return [self._profiles[key] for key in sorted(self._profiles)]

    def find_profile(self, project: str, name: str) -> Profile | None:
        return self._profiles.get((project, name))

    def knows_profile(self, reference: str) -> bool:
        """Whether there is a profile whose qualified name is just this."""
        found = self.find_profile(*names.split(reference))
        return found is not None and found.reference == reference

    def profile(self, reference: str) -> Profile:
        """That of a qualified name, as instances of the project see it: where the project has none of its own, it is
        the default project's."""
        project, name = names.split(reference)
        return self._seen_from(project, name)

    def _seen_from(self, project: str, name: str) -> Profile:
        found = self.find_profile(self.project(project).profile_project, name)
        if found is None:
            raise NotFoundError(f"no profile {name[:80]!r}", "'syscont profile list' shows what there is")
        return found

    def check_profiles(self, project: str, wanted: Sequence[str]) -> list[str]:
        """The names of profiles for an instance of project, each once, if all of them are there."""
        for name in wanted:
            self._seen_from(project, name)
        return list(dict.fromkeys(wanted))

    def home_of(self, instance: Instance) -> str:
        """The project that an instance's profiles are of."""
        project = self._projects.get(instance.project)
        return project.profile_project if project else DEFAULT_PROJECT

    def expand(self, instance: Instance, look: Lookup | None = None) -> Instance:
        """The instance with what the host and its profiles say. A profile that is gone gives nothing. look: where
        profiles are to be found when not in the catalog, for trying changes out."""
        home, look = self.home_of(instance), look or self.find_profile
        found = (look(home, name) for name in instance.profiles)
        return expand(instance, [profile for profile in found if profile], server.defaults(self.server_config))

    def origins(self, instance: Instance) -> dict[str, str]:
        """Which of its profiles each key comes from that the instance does not set itself."""
        found: dict[str, str] = {}
        for name in instance.profiles:
            if profile := self.find_profile(self.home_of(instance), name):
                found |= dict.fromkeys(profile.config, name)
        return {key: name for key, name in found.items() if key not in instance.config}

    # networks

    def networks(self) -> list[Network]:
        """All of them, also those that are half made or being deleted."""
        return [self._networks[name] for name in sorted(self._networks)]

    def find_network(self, name: str) -> Network | None:
        """One that can be used."""
        found = self._networks.get(name)
        return found if found and found.phase is Phase.READY else None

    def has_network(self, name: str) -> bool:
        return self.find_network(name) is not None

    def network(self, name: str) -> Network:
        found = self.find_network(name)
        if found is None:
            raise NotFoundError(f"no network {name[:80]!r}", "'syscont network list' shows what there is")
        return found

    def is_taken(self, network: str) -> bool:
        """Whether a network has the name, be it half made or half deleted, or its row can't be read."""
        return network in self._networks or network in self._store.unreadable("networks")

    # ACLs

    def acls(self) -> list[Acl]:
        return [self._acls[name] for name in sorted(self._acls)]

    def find_acl(self, name: str) -> Acl | None:
        return self._acls.get(name)

    def has_acl(self, name: str) -> bool:
        return name in self._acls

    def is_acl_taken(self, name: str) -> bool:
        """Whether an ACL has the name, be it that its row can't be read."""
        return name in self._acls or name in self._store.unreadable("acls")

    def acl(self, name: str) -> Acl:
        try:
            return self._acls[name]
        except KeyError:
            raise NotFoundError(f"no ACL {name[:80]!r}", "'syscont network acl list' shows what there is") from None

    def acls_of(self, network: Network) -> list[Acl]:
        """Those that hold in a network. Raises NotFoundError: without one of them, it would be open where it is not to
        be."""
        return [self.acl(name) for name in network.acls]

    # zones

    def zones(self) -> list[Zone]:
        return [self._zones[name] for name in sorted(self._zones)]

    def find_zone(self, name: str) -> Zone | None:
        """name: as it is remembered (see sysd.model.zones.check_name)."""
        return self._zones.get(name)

    def has_zone(self, name: str) -> bool:
        return name in self._zones

    def zone(self, name: str) -> Zone:
        found = self._zones.get(name.lower().removesuffix("."))
        if found is None:
            raise NotFoundError(f"no zone {name[:80]!r}", "'syscont network zone list' shows what there is")
        return found

    # the store and what is in memory change together; within a transaction, memory changes by what it returns

    def transaction(self) -> AbstractContextManager[None]:
        """For what is written and erased together."""
        return self._store.transaction()

    def remember_server_config(self, config: dict[str, str]) -> None:
        self._store.put_server_config(config)
        self.server_config = config

    def remember(self, value: Remembered) -> None:
        self.write(value)
        self.take(value)

    def write(self, value: Remembered) -> None:
        """On disk only, for a transaction; then comes take."""
        match value:
            case Project():
                self._store.put_project(value)
            case Profile():
                self._store.put_profile(value)
            case Network():
                self._store.put_network(value)
            case Acl():
                self._store.put_acl(value)
            case Zone():
                self._store.put_zone(value)

    def erase(self, value: Remembered) -> None:
        """On disk only, for a transaction; then comes drop."""
        match value:
            case Project():
                self._store.delete_project(value.name)
            case Profile():
                self._store.delete_profile(value.project, value.name)
            case Network():
                self._store.delete_network(value.name)
            case Acl():
                self._store.delete_acl(value.name)
            case Zone():
                self._store.delete_zone(value.name)

    def take(self, value: Remembered) -> None:
        match value:
            case Project():
                self._projects[value.name] = value
            case Profile():
                self._profiles[value.project, value.name] = value
            case Network():
                self._networks[value.name] = value
            case Acl():
                self._acls[value.name] = value
            case Zone():
                self._zones[value.name] = value

    def drop(self, value: Remembered) -> None:
        match value:
            case Project():
                self._projects.pop(value.name, None)
            case Profile():
                self._profiles.pop((value.project, value.name), None)
            case Network():
                self._networks.pop(value.name, None)
            case Acl():
                self._acls.pop(value.name, None)
            case Zone():
                self._zones.pop(value.name, None)
