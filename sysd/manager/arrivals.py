# SPDX-License-Identifier: Apache-2.0
"""Instances that come from elsewhere: what was unpacked of a backup, or came from another host, becomes an instance.

Its root file systems or disks are images of its own by now; the instance and its snapshots are layers above them. What
is said of it is as hostile as they are: each value is checked, and what this host does not take is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sysd.manager import layers
from sysd.manager.catalog import Catalog
from sysd.manager.instances import Instances, NewInstance, StartOptions, make_folder
from sysd.manager.layers import Layers
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.quotas import Quotas
from sysd.manager.snapshots import Snapshots
from sysd.model import backup as form
from sysd.model import kinds, names
from sysd.model.addresses import mac
from sysd.model.config import check_config
from sysd.model.devices.check import check_device
from sysd.model.errors import InvalidError, SyscontError, UnsupportedError
from sysd.model.image import Image
from sysd.model.instance import VOLATILE, Instance, Kind, new_uuid
from sysd.model.profile import DEFAULT_PROFILE
from sysd.model.restrictions import check_allowed, is_root
from sysd.model.sizes import parse_size
from sysd.model.snapshot import Snapshot
from sysd.model.transfer import Taken
from sysd.model.values import check_description
from sysd.units.helper import see_through

HWADDR = ".hwaddr"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is to become of what came. config and devices (option by option) come over what is said of it; profiles and
    ephemeral are what is said when None. uuid: it goes on as the one that it was, with its hardware addresses. created,
    and taken of each snapshot by name: what is known better than by the backup. arriving: see Instances.create.
    whole: what this host does not take is an error, and not left out: it is to go on here as it was."""

    reference: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] | None = None
    ephemeral: bool | None = None
    uuid: str = ""
    created: int = 0
    taken: Mapping[str, Taken] = field(default_factory=dict)
    arriving: Callable[[], None] | None = None
    whole: bool = False


@dataclass(slots=True)
class LeftOut:
    """What a backup has and this host does not take; the user is told. sizes: whether root disks may have them, and
    least: of how many bytes."""

    kind: Kind
    sizes: bool
    least: int = 0
    names: list[str] = field(default_factory=list)

    def config(self, config: Mapping[str, str]) -> dict[str, str]:
        kept: dict[str, str] = {}
        for key, value in config.items():
            if key.startswith((VOLATILE, "image.")):
                continue  # what another daemon remembers
            try:
                checked = check_config({key: value})
                kinds.check_key(self.kind, key, "it")
                kept |= checked
            except SyscontError:
                self.names.append(key)
        return kept

    def description(self, text: str) -> str:
        try:
            return check_description(text)
        except InvalidError:
            self.names.append("description")
            return ""

    def devices(self, devices: Mapping[str, Mapping[str, str]], catalog: Catalog) -> dict[str, dict[str, str]]:
        kept: dict[str, dict[str, str]] = {}
        for name, options in devices.items():
            fitting = self._root(name, options) if is_root(options) else options
            try:
                if "network" in options and not catalog.has_network(options["network"]):
                    raise InvalidError("no such network")
                checked = check_device(name, fitting)
                kinds.check_device(self.kind, name, checked)
                kept[name] = checked
            except SyscontError:
                self.names.append(f"device {name[:64]}")
        return kept

    def _root(self, name: str, options: Mapping[str, str]) -> dict[str, str]:
        fitting = {**options, "pool": form.POOL}
        for key in ("size", "size.state"):
            if key in fitting and not (key == "size" and self._has_size(fitting[key])):
                del fitting[key]
                self.names.append(f"{key} of device {name[:64]}")
        return fitting

    def _has_size(self, size: str) -> bool:
        with contextlib.suppress(InvalidError):
            return self.sizes and parse_size(size) >= self.least
        return False


@dataclass(frozen=True, slots=True)
class Coming:
    """What came, checked: the instance and its image, and by name the images and descriptions of its snapshots."""

    wanted: Arrival
    new: NewInstance
    image: Image
    snapshots: Mapping[str, Image]
    described: Mapping[str, form.Described]
    left: LeftOut


class Arrivals:
    def __init__(
        self,
        operations: Operations,
        catalog: Catalog,
        instances: Instances,
        snapshots: Snapshots,
        work: Layers,
        quotas: Quotas,
        lifecycle: Lifecycle,
    ) -> None:
        self._operations = operations
        self._catalog = catalog
        self._instances = instances
        self._snapshots = snapshots
        self._layers = work
        self._quotas = quotas
        self._lifecycle = lifecycle

    async def make(self, handle: Handle, wanted: Arrival, made: form.Backup, images: list[Image], owner: int) -> None:
        """images: of the instance and of its snapshots, which are held until this has ended. The operation's result has
        the name, and what was left out."""
        coming = self.look(wanted, made, images)

        async def fill(_: Handle, instance: Instance, folder: Path) -> None:
            await self.begin(instance, folder / layers.UPPER)
            for snapshot in self.snapshots(coming, instance):
                await self.put(instance, snapshot, folder)

        new = coming.new
        operation = self._instances.create(new, StartOptions(), owner, fill=fill, arriving=wanted.arriving)
        try:
            await self._operations.wait(operation.id)
        except asyncio.CancelledError:
            self._operations.cancel(operation.id)
            await see_through(self._operations.ended(operation.id))
            raise
        self.tell(handle, coming)

    def look(self, wanted: Arrival, made: form.Backup, images: list[Image]) -> Coming:
        """Check it all, but what it takes to be there."""
        project, _ = names.split(wanted.reference)
        by_volume = {image.properties.get("volume", ""): image for image in images}
        left, own = self._left_out(by_volume[""]), made.instance
        left.names += made.left_out
        if len(by_volume) > 1:
            check_allowed(self._catalog.project(project), "snapshots", "the snapshots that come with it")
        left.names += [f"snapshot {name[:63]}" for name in made.snapshots if name not in by_volume]
        new = self._described(wanted, own, left, by_volume[""])
        if wanted.whole and left.names:
            why = f"{wanted.reference} would go on without what this host does not take: {', '.join(left.names[:10])}"
            raise UnsupportedError(why, "stop it first: that is left out then, and named")
        snapshots = {name: image for name, image in by_volume.items() if name}
        described = {name: made.snapshots.get(name, replace(own, name=name, created=0)) for name in snapshots}
        return Coming(wanted, new, by_volume[""], snapshots, described, left)

    async def begin(self, instance: Instance, upper: Path) -> None:
        """Make the layer above what came. It is on disk then: another host may give its own up for it."""
        make_folder(upper)
        self._quotas.count(instance, upper)
        await self._lifecycle.begin(instance, upper)
        await self._layers.settle(upper)

    def snapshots(self, coming: Coming, instance: Instance) -> list[Snapshot]:
        return [
            self._snapshot(coming.wanted, instance, coming.described[name], name, image)
            for name, image in coming.snapshots.items()
        ]

    async def put(
        self, instance: Instance, snapshot: Snapshot, folder: Path, *, instead_of: Snapshot | None = None
    ) -> None:
        """Make the layer of a snapshot that came, and remember it. folder: the instance's."""
        async with self._layers.draft(folder / layers.SNAPSHOTS / snapshot.uuid) as place:
            make_folder(place / layers.UPPER)
            await self._lifecycle.begin(snapshot.applied(instance), place / layers.UPPER)
            await self._layers.settle(place / layers.UPPER)
            self._snapshots.put(snapshot, instead_of=instead_of)
        if instead_of:
            await self._layers.remove(place.with_name(instead_of.uuid))

    def tell(self, handle: Handle, coming: Coming) -> None:
        handle.set_result("name", coming.wanted.reference)
        if coming.left.names:
            handle.set_result("left-out", ", ".join(dict.fromkeys(coming.left.names)))

    def _described(self, wanted: Arrival, own: form.Described, left: LeftOut, image: Image) -> NewInstance:
        project, _ = names.split(wanted.reference)
        devices = left.devices(own.devices, self._catalog)
        changed = {name: devices.get(name, {}) | dict(options) for name, options in wanted.devices.items()}
        return NewInstance(
            wanted.reference,
            image.fingerprint,
            left.config(own.config) | dict(wanted.config),
            {**devices, **changed},
            self._profiles(project, own.profiles) if wanted.profiles is None else wanted.profiles,
            left.description(own.description),
            own.ephemeral if wanted.ephemeral is None else wanted.ephemeral,
            uuid=wanted.uuid,
            created=wanted.created,
            remembered=_addresses(own.config) if wanted.uuid else {},
        )

    def _left_out(self, image: Image) -> LeftOut:
        sized = image.kind is Kind.VM or self._quotas.are_there
        return LeftOut(image.kind, sized, image.disk_size)

    def _snapshot(
        self, wanted: Arrival, instance: Instance, said: form.Described, name: str, image: Image
    ) -> Snapshot:
        left = self._left_out(image)
        made = Snapshot(
            new_uuid(),
            instance.uuid,
            name,
            image.fingerprint,
            left.config(said.config) | (_addresses(said.config) if wanted.uuid else {}),
            left.devices(said.devices, self._catalog),
            self._profiles(instance.project, said.profiles),
            left.description(said.description),
            said.ephemeral,
            expires=said.expires,
        )
        created = said.created
        if known := wanted.taken.get(name):
            created, made = known.created, replace(made, expires=known.expires)
        return replace(made, created=created) if created else made

    def _profiles(self, project: str, wanted: Sequence[str]) -> list[str]:
        """Those that are there; the default one when none of several is."""
        found = []
        for name in wanted:
            with contextlib.suppress(SyscontError):
                found += self._catalog.check_profiles(project, [name])
        return found or ([DEFAULT_PROFILE] if wanted else [])


def _addresses(config: Mapping[str, str]) -> dict[str, str]:
    """The hardware addresses that a daemon has made up and remembered."""
    kept: dict[str, str] = {}
    for key, value in config.items():
        if key.startswith(VOLATILE) and key.endswith(HWADDR) and key.count(".") == 2:
            with contextlib.suppress(SyscontError):
                kept[key] = mac(value)
    return kept
