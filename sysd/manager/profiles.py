# SPDX-License-Identifier: Apache-2.0
"""Profiles: what instances have in common, and instances with all that theirs give them."""

from __future__ import annotations

from collections.abc import Sequence

from sysd.model.errors import NotFoundError
from sysd.model.instance import Instance
from sysd.model.names import DEFAULT_PROJECT
from sysd.model.profile import DEFAULT_PROFILE, Profile, default_profile, expand
from sysd.store.database import Store


class Profiles:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._profiles = {(profile.project, profile.name): profile for profile in store.profiles()}
        if (DEFAULT_PROJECT, DEFAULT_PROFILE) not in self._profiles:
            self._put(default_profile())

    def all(self) -> list[Profile]:
        return [self._profiles[key] for key in sorted(self._profiles)]

    def get(self, project: str, name: str) -> Profile:
        try:
            return self._profiles[project, name]
        except KeyError:
            raise NotFoundError(f"no profile {name[:80]!r}", "'syscont profile list' shows what there is") from None

    def check(self, project: str, names: Sequence[str]) -> list[str]:
        """names, if all of them are there."""
        for name in names:
            self.get(project, name)
        return list(dict.fromkeys(names))

    def expand(self, instance: Instance) -> Instance:
        """The instance with what its profiles say. One that is gone gives nothing."""
        found = (self._profiles.get((instance.project, name)) for name in instance.profiles)
        return expand(instance, [profile for profile in found if profile])

    def origins(self, instance: Instance) -> dict[str, str]:
        """Which of its profiles each key comes from that the instance does not set itself."""
        found: dict[str, str] = {}
        for name in instance.profiles:
            if profile := self._profiles.get((instance.project, name)):
                found |= dict.fromkeys(profile.config, name)
        return {key: name for key, name in found.items() if key not in instance.config}

    def _put(self, profile: Profile) -> None:
        self._store.put_profile(profile)
        self._profiles[profile.project, profile.name] = profile
