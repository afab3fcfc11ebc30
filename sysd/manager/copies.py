# SPDX-License-Identifier: Apache-2.0
"""Copies of instances and of their snapshots, as instances of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sysd.images import facts
from sysd.manager import layers
from sysd.manager.instances import Instances, NewInstance, StartOptions
from sysd.manager.layers import Layers
from sysd.manager.operations import Handle
from sysd.manager.quotas import Quotas
from sysd.manager.snapshots import Snapshots
from sysd.manager.stillness import Stillness
from sysd.manager.table import Table
from sysd.model import names
from sysd.model.errors import BusyError, InvalidError, NotFoundError
from sysd.model.instance import Instance, Kind, forget, new_uuid
from sysd.model.operation import Operation
from sysd.model.snapshot import Snapshot
from sysd.runtime import container
from sysd.runtime.vm import state

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class NewCopy:
    """source: an instance, or ``INSTANCE/SNAPSHOT``. config and devices (option by option) come over those of the
    source; profiles, and ephemeral, are the source's when None. instance_only: without its snapshots."""

    source: str
    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] | None = None
    ephemeral: bool | None = None
    instance_only: bool = False
    pool: str = DEFAULT_POOL


class Copies:
    def __init__(
        self,
        table: Table,
        instances: Instances,
        snapshots: Snapshots,
        stillness: Stillness,
        work: Layers,
        quotas: Quotas,
    ) -> None:
        self._table = table
        self._instances = instances
        self._snapshots = snapshots
        self._stillness = stillness
        self._layers = work
        self._quotas = quotas

    def copy(self, wanted: NewCopy, owner: int, options: StartOptions = StartOptions()) -> Operation:  # noqa: B008
        check_pool(wanted.pool)
        source, snapshot = self._snapshots.find(wanted.source)
        base = snapshot.applied(source) if snapshot else source
        project, _ = names.split_new(wanted.name)
        with_snapshots = not snapshot and not wanted.instance_only
        if with_snapshots:
            self._snapshots.check_room(project, source)
        new = NewInstance(
            wanted.name,
            base.image,
            forget(base.config) | dict(wanted.config),
            self._devices(base, wanted.devices),
            base.profiles if wanted.profiles is None else wanted.profiles,
            base.description,
            base.ephemeral if wanted.ephemeral is None else wanted.ephemeral,
        )

        async def fill(handle: Handle, instance: Instance, folder: Path) -> None:
            handle.progress("copy")
            async with self._table.lock(source.uuid):
                current = self._table.ready(source.uuid)
                found = self._snapshots.get(current, snapshot.name) if snapshot else None
                if (found or current).image != instance.image:
                    raise BusyError(f"{wanted.source} was made another meanwhile", "copy it again")
                if found:
                    layer = self._snapshots.layer(current, found)
                    await self._layers.clone(layer, folder / layers.UPPER, self._quotas.number(instance))
                    await self._layers.settle(folder / layers.UPPER)
                else:
                    await self._copy(current, instance, folder, with_snapshots=with_snapshots)
            if instance.kind is Kind.CONTAINER:
                forget_identity(folder / layers.UPPER)
            else:
                state.drop(folder / layers.UPPER)  # two can't go on with the memory of one
            with suppress(FileNotFoundError):
                shutil.copyfile(container.state_dir(source) / container.MADE_FOR, folder / container.MADE_FOR)

        return self._instances.create(new, options, owner, kind="copy-instance", fill=fill)

    def _devices(self, base: Instance, changes: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        inherited = self._table.expand(base).devices
        changed = {
            name: base.devices.get(name, inherited.get(name, {})) | dict(options) for name, options in changes.items()
        }
        return {**base.devices, **changed}

    async def _copy(self, source: Instance, instance: Instance, folder: Path, *, with_snapshots: bool) -> None:
        async with self._stillness.still(source):
            await self._layers.clone(layers.upper(source), folder / layers.UPPER, self._quotas.number(instance))
        made: list[Snapshot] = []
        for each in self._snapshots.of(source) if with_snapshots else ():
            copied = replace(each, uuid=new_uuid(), instance=instance.uuid, config=forget(each.config), stateful=False)
            async with self._layers.draft(folder / layers.SNAPSHOTS / copied.uuid) as place:
                await self._layers.clone(self._snapshots.layer(source, each), place / layers.UPPER)
                if each.stateful:
                    state.drop(place / layers.UPPER)
            made.append(copied)
        await self._layers.settle(folder / layers.UPPER)
        for copied in made:
            self._snapshots.put(copied)


def check_pool(pool: str) -> None:
    if pool != DEFAULT_POOL:
        raise NotFoundError(f"no storage pool {pool[:80]!r}", f"there is {DEFAULT_POOL!r}")


def forget_identity(layer: Path) -> None:
    """Two systems must not have one machine id, nor a name of the other's; where the guest has made something odd of
    its /etc it is left as it is."""
    root = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        facts.forget_identity(root)
    except InvalidError:
        return
    finally:
        os.close(root)
