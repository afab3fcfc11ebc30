# SPDX-License-Identifier: Apache-2.0
"""Instances: the table of what there is, and making, changing and deleting them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sysd.manager.catalog import Catalog
from sysd.manager.events import Event, EventBus, Kind
from sysd.manager.guests import STOPPED
from sysd.manager.ids import Ids
from sysd.manager.images import Images
from sysd.manager.kept import Kept
from sysd.manager.layers import UPPER
from sysd.manager.lifecycle import Lifecycle
from sysd.manager.operations import Handle, Operations
from sysd.manager.quotas import Quotas
from sysd.manager.register import Register
from sysd.manager.table import Table
from sysd.manager.trees import exclusive_layers
from sysd.model import instance as model
from sysd.model import names
from sysd.model.config import SCHEMA, check_config, find_key, get_bool
from sysd.model.devices.change import replaced, with_device, with_options
from sysd.model.devices.check import Devices, check_devices
from sysd.model.errors import BusyError, ExistsError, NotFoundError
from sysd.model.instance import Instance, Phase, new_uuid
from sysd.model.operation import Operation
from sysd.model.profile import DEFAULT_PROFILE
from sysd.model.values import check_description
from sysd.runtime import container
from sysd.runtime.trees import remove_tree, sync_directory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewInstance:
    """What is asked for; nothing is checked yet. name may be qualified by a project. kind: None for the image's. uuid,
    created and remembered (volatile keys): of one that goes on here as what it was elsewhere."""

    name: str
    image: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] = (DEFAULT_PROFILE,)
    description: str = ""
    ephemeral: bool = False
    kind: model.Kind | None = None
    uuid: str = ""
    created: int = 0
    remembered: Mapping[str, str] = field(default_factory=dict)


Fill = Callable[[Handle, Instance, Path], Awaitable[None]]
"""Puts the layers of a new instance into its folder: upper, and its snapshots if it has any."""


MoveCheck = Callable[[str, Instance], None]
"""Raises when an instance may not get into a project."""


@dataclass(frozen=True, slots=True)
class Update:
    """New values for parts of an instance, each of them whole; None leaves a part as it is. Nothing is checked yet."""

    config: Mapping[str, str] | None = None
    devices: Mapping[str, Mapping[str, str]] | None = None
    profiles: Sequence[str] | None = None
    description: str | None = None
    ephemeral: bool | None = None


# As D-Bus has them; what is expanded may change with any of the others.
_PROPERTIES = {
    "config": ("Config", "ExpandedConfig"),
    "devices": ("Devices", "ExpandedDevices"),
    "profiles": ("Profiles", "ExpandedConfig", "ExpandedDevices"),
    "description": ("Description",),
    "ephemeral": ("Ephemeral",),
}


@dataclass(frozen=True, slots=True)
class StartOptions:
    start: bool = False
    wait: bool = False


class Instances:
    def __init__(
        self,
        register: Register,
        events: EventBus,
        operations: Operations,
        images: Images,
        lifecycle: Lifecycle,
        table: Table,
        catalog: Catalog,
        ids: Ids,
        quotas: Quotas,
        kept: Kept,
    ) -> None:
        self._kept = kept
        self._register = register
        self._events = events
        self._operations = operations
        self._images = images
        self._lifecycle = lifecycle
        self._table = table
        self._catalog = catalog
        self._ids = ids
        self._quotas = quotas
        self._move_checks: list[MoveCheck] = []

    def before_move(self, check: MoveCheck) -> None:
        """Have check asked, under the instance's lock, before it gets into another project."""
        self._move_checks.append(check)

    def create(
        self,
        wanted: NewInstance,
        options: StartOptions,
        owner: int,
        *,
        kind: str = "create-instance",
        fill: Fill | None = None,
        arriving: Callable[[], None] | None = None,
    ) -> Operation:
        """Make an instance, and start it if options say so; the operation ends when that is done. fill puts its
        layers into its folder; else it has written nothing yet. arriving: it is another host's yet; stores, together
        with that, what is to be remembered of this."""
        instance = self._new(wanted)

        async def work(handle: Handle) -> None:
            job = ""
            async with self._table.lock(instance.uuid):
                await self._make(handle, instance, fill or self._make_empty, arriving)
                made = self._table.by_uuid(instance.uuid)
                if made.phase is Phase.ARRIVING:
                    return
                if options.start:
                    handle.progress("start")
                    job = await self._lifecycle.start(made)
                    handle.warn(self._lifecycle.warning(made))
                else:
                    await self._lifecycle.load([made])
            if options.wait:
                handle.progress("boot")
                await self._lifecycle.wait_for_boot(made, job)

        return self._register.begin(kind, instance, work, owner)

    def _new(self, wanted: NewInstance) -> Instance:
        project, name = names.split_new(wanted.name)
        self.check_free(project, name)
        image = self._images.find(wanted.image, wanted.kind)
        instance = Instance(
            uuid=self.check_new(wanted.uuid) if wanted.uuid else new_uuid(),
            name=name,
            project=project,
            image=image.fingerprint,
            id_base=0,
            kind=image.kind,
            config={**check_config(wanted.config), **wanted.remembered},
            profiles=self._catalog.check_profiles(project, wanted.profiles),
            description=check_description(wanted.description),
            ephemeral=wanted.ephemeral,
        )
        instance = replace(instance, devices=self._check_devices(instance, wanted.devices))
        if wanted.created:
            instance = replace(instance, created=wanted.created)
        instance = self._quotas.give(self._ids.give(instance))
        return self._kept.remember(instance)

    def check_new(self, uuid: str) -> str:
        """Raises ExistsError for one that an instance has, or had and left files of."""
        if self._table.find_uuid(uuid) or (container.STATE_DIR / uuid).exists():
            raise ExistsError(f"an instance with the UUID {uuid} exists already", "copy it instead of moving it")
        return uuid

    def _check_devices(self, instance: Instance, devices: Mapping[str, Mapping[str, str]]) -> Devices:
        return check_devices({name: self._with_type(instance, name, options) for name, options in devices.items()})

    def _with_type(self, instance: Instance, device: str, options: Mapping[str, str]) -> Mapping[str, str]:
        """Without a type they change, for one instance, the device that its profiles give it."""
        if "type" in options:
            return options
        given = self._table.expand(replace(instance, devices={})).devices
        if device not in given:
            raise NotFoundError(f"no profile gives {instance.name} a device {device[:80]!r}", "say its type")
        return {**given[device], **options}

    def check_free(self, project: str, name: str, but: Instance | None = None) -> None:
        """Names are told apart as DNS does: without regard to case."""
        for other in self._table.all():
            if other is not but and other.project == project and names.same_host(other.name, name):
                raise ExistsError(f"an instance named {other.name!r} exists already")

    async def _make(
        self, handle: Handle, instance: Instance, fill: Fill, arriving: Callable[[], None] | None
    ) -> None:
        folder = container.state_dir(instance)
        try:
            make_folder(folder)
            await fill(handle, instance, folder)
            make_folder(folder / "work")
            self._quotas.count(instance, folder / "work")
            # In threads: with many at once, nobody waits for more than his own.
            await asyncio.to_thread(sync_directory, folder)
            await asyncio.to_thread(sync_directory, folder.parent)
            # Not what was asked for: a profile may have changed meanwhile.
            self._quotas.check_room(self._table.expanded(self._table.by_uuid(instance.uuid)))
            made = replace(self._table.by_uuid(instance.uuid), phase=Phase.ARRIVING if arriving else Phase.READY)
            await self._quotas.apply(self._table.expanded(made))
            if arriving:
                self._register.check(made)
                self._register.commit((made,), arriving)
            else:
                self._register.put_soon(made)
        except BaseException:
            await asyncio.to_thread(remove_tree, folder)
            await self._quotas.forget(instance)
            self._register.drop(instance)
            raise
        self._lifecycle.hosts_changed()

    async def _make_empty(self, handle: Handle, instance: Instance, folder: Path) -> None:
        make_folder(folder / UPPER)
        self._quotas.count(instance, folder / UPPER)
        await self._lifecycle.begin(instance, folder / UPPER)

    # changing

    async def change_config(self, name: str, values: Mapping[str, str], unset: Iterable[str]) -> None:
        """Set and remove keys, all or none; those that can are in force at once."""
        removed = set(unset)

        def change(instance: Instance) -> Instance:
            return replace(instance, config=SCHEMA.changed(instance.config, values, removed))

        await self._change(name, change)

    async def change_devices(
        self, name: str, values: Mapping[str, Mapping[str, str]], removed: Iterable[str]
    ) -> None:
        """Put devices, each as a whole, and remove others; all or none. A running instance has them at once. What has
        no type is the device of that name that its profiles give it, with these options changed."""
        gone = set(removed)

        def change(instance: Instance) -> Instance:
            self._check_own(instance, gone)
            put = self._check_devices(instance, values)
            return replace(instance, devices=replaced(instance.devices, instance.name, put, gone))

        await self._change(name, change)

    async def add_device(self, name: str, device: str, options: Mapping[str, str]) -> None:
        """Give it a device of a name that none of its own has; without a type, as in change_devices."""

        def change(instance: Instance) -> Instance:
            made = self._with_type(instance, device, options)
            return replace(instance, devices=with_device(instance.devices, instance.name, device, made))

        await self._change(name, change)

    async def change_device(self, name: str, device: str, values: Mapping[str, str], unset: Iterable[str]) -> None:
        """Set options of one of its own devices and remove others."""
        removed = set(unset)

        def change(instance: Instance) -> Instance:
            self._check_own(instance, [device])
            return replace(
                instance, devices=with_options(instance.devices, instance.name, device, values, removed)
            )

        await self._change(name, change)

    def _check_own(self, instance: Instance, devices: Iterable[str]) -> None:
        """One that a profile gives has to be called so."""
        given = self._table.expand(instance).devices
        for device in sorted(devices):
            if device in given and device not in instance.devices:
                raise NotFoundError(
                    f"{instance.name} has no device {device!r} of its own",
                    "it comes from a profile: 'syscont device override' changes it, one of type none hides it",
                )

    async def change_profiles(self, name: str, add: Sequence[str], remove: Collection[str]) -> None:
        """Add profiles after those that it has, and take others away."""

        def change(instance: Instance) -> Instance:
            if twice := next((profile for profile in add if profile in instance.profiles), ""):
                raise ExistsError(f"{instance.name} has profile {twice} already")
            if missing := next((profile for profile in remove if profile not in instance.profiles), ""):
                raise NotFoundError(f"{instance.name} does not have profile {missing[:80]}")
            wanted = [*(profile for profile in instance.profiles if profile not in remove), *add]
            return replace(instance, profiles=self._catalog.check_profiles(instance.project, wanted))

        await self._change(name, change)

    async def update(self, name: str, wanted: Update) -> None:
        """Give parts of an instance new values, all or none; what can be is in force at once."""

        def change(instance: Instance) -> Instance:
            return self.updated(instance, wanted)

        await self._change(name, change)

    def updated(self, instance: Instance, wanted: Update) -> Instance:
        """What it is then; nothing changes."""
        if wanted.config is not None:
            ours = {key: value for key, value in instance.config.items() if find_key(key).internal}
            instance = replace(instance, config=ours | check_config(wanted.config))
        if wanted.devices is not None:
            instance = replace(instance, devices=self._check_devices(instance, wanted.devices))
        if wanted.profiles is not None:
            instance = replace(instance, profiles=self._catalog.check_profiles(instance.project, wanted.profiles))
        if wanted.description is not None:
            instance = replace(instance, description=check_description(wanted.description))
        if wanted.ephemeral is not None:
            instance = replace(instance, ephemeral=wanted.ephemeral)
        return instance

    async def _change(self, name: str, change: Callable[[Instance], Instance]) -> None:
        """The one way in which what an instance is configured by changes; change checks and does nothing else."""
        uuid = self._table.get(name).uuid
        async with self._table.lock(uuid):
            before = self._table.ready(uuid)
            changed = change(before)
            changed = self._kept.remember(changed)
            parts = [part for part in _PROPERTIES if getattr(before, part) != getattr(changed, part)]
            if not parts:
                return
            self._register.check(changed)
            self._quotas.check_room(self._table.expand(changed))
            await self._lifecycle.apply_limits(changed)
            if "devices" in parts or "profiles" in parts:
                await self._lifecycle.apply_devices(changed)
            await self._quotas.apply(self._table.expand(changed))
            self._register.put_soon(changed)
            await self._lifecycle.reload(changed)
            if changed.devices != before.devices or changed.profiles != before.profiles:
                self._lifecycle.hosts_changed()
            properties = dict.fromkeys(name for part in parts for name in _PROPERTIES[part])
            self._publish(Kind.INSTANCE_CHANGED, changed, *properties)
        await self._register.on_disk()
        if changed.devices != before.devices or changed.profiles != before.profiles:
            await self._lifecycle.tell_networks(self._table.expand(changed))

    def rename(self, reference: str, new_reference: str, owner: int) -> Operation:
        """Give a stopped instance another name, or with ``PROJECT:NAME`` another project."""
        found = self._table.get(reference)
        uuid = found.uuid
        here = new_reference if ":" in new_reference else names.qualified(found.project, new_reference)
        project, new_name = names.split_new(here)

        async def work(handle: Handle) -> None:
            async with self._table.lock(uuid):
                instance = self._table.ready(uuid)
                if await self._lifecycle.refresh(instance) not in STOPPED:
                    raise BusyError(f"{instance.name} is running", "stop it before it is renamed")
                self.check_free(project, new_name, but=instance)
                for check in self._move_checks if project != instance.project else ():
                    check(project, instance)
                profiles = self._catalog.check_profiles(project, instance.profiles)
                renamed = replace(instance, project=project, name=new_name, profiles=profiles)
                renamed = self._kept.remember(renamed)
                self._register.check(renamed)
                await self._lifecycle.forget(instance)
                self._register.rename(instance, renamed)
                self._lifecycle.hosts_changed()
                await self._lifecycle.load([renamed])

        return self._operations.begin("rename-instance", reference, work, owner)

    def delete(self, name: str, owner: int, *, force: bool = False) -> Operation:
        instance = self._table.get(name)
        self._check_deletable(instance, force=force)

        async def work(handle: Handle) -> None:
            if force:
                await self._lifecycle.kill(instance)
            async with self._table.lock(instance.uuid):
                current = self._table.by_uuid(instance.uuid)
                await self._lifecycle.refresh(current)
                self._check_deletable(current, force=force)
                await self._lifecycle.stop(current, force=True)
                # Half a tree is of no use to anyone: what has begun is not cancelled any more.
                await asyncio.shield(self.destroy(current))

        return self._operations.begin("delete-instance", name, work, owner)

    # between hosts

    def check_movable(self, instance: Instance) -> None:
        """Raise unless it may be given up to another host."""
        if get_bool(self._table.expand(instance).config, "security.protection.delete"):
            raise BusyError(f"{instance.name} is protected", "unset security.protection.delete first, or copy it")

    async def take_over(self, uuid: str, besides: Callable[[], None]) -> None:
        """One that has arrived is ours from now on; besides stores what belongs to that."""
        async with self._table.lock(uuid):
            made = replace(self._table.by_uuid(uuid), phase=Phase.READY)
            self._register.commit((made,), besides)
            log.info("%s has been moved here", made.reference)
            self._lifecycle.hosts_changed()
            self._publish(Kind.INSTANCE_CHANGED, made, "State")
            await self._lifecycle.load([made])

    def give_away(self, instance: Instance, besides: Callable[[], None]) -> None:
        """One is another host's from now on, and to be destroyed here."""
        self._register.commit((replace(instance, phase=Phase.DELETING),), besides)

    def _check_deletable(self, instance: Instance, *, force: bool) -> None:
        if get_bool(self._table.expand(instance).config, "security.protection.delete"):
            raise BusyError(f"{instance.name} is protected", "unset security.protection.delete first")
        if not force and self._table.status(instance).state not in STOPPED:
            raise BusyError(f"{instance.name} is running", "stop it first, or use --force")
        if not force and instance.phase is Phase.ARRIVING:
            hint = "--force gives up what has come, which may be all that there is of it"
            raise BusyError(f"{instance.name} is on its way here, and it is not known yet whether it is to stay", hint)

    async def destroy(self, instance: Instance) -> None:
        """Remove a stopped instance. Once it has begun it is finished, after a crash at the next start."""
        async with exclusive_layers(instance):
            await self._lifecycle.destroy(instance)
            gone = replace(instance, phase=Phase.DELETING)
            self._register.put_soon(gone)
            await self._register.on_disk()
            await asyncio.to_thread(remove_tree, container.state_dir(gone))
            await self._quotas.forget(gone)
        self._register.drop(gone)
        self._lifecycle.hosts_changed()

    def _publish(self, kind: Kind, instance: Instance, *changed: str) -> None:
        self._events.publish(Event(kind, instance.name, instance.project, changed))




def make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # that of the upper layer is the mode of the guest's root folder
