# SPDX-License-Identifier: Apache-2.0
"""What is put into backups and published images: of containers trees, of virtual machines disks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sysd.manager.images import DISK, INITRD, KERNEL, ROOTFS
from sysd.model import backup as form
from sysd.model.config import get_bool
from sysd.model.image import Image
from sysd.model.instance import Instance, Kind
from sysd.model.snapshot import Snapshot
from sysd.runtime import container
from sysd.runtime.vm import firmware, unit
from sysd.storage.packer import DiskPlan, Plan, RestPlan

NVRAM = "qemu.nvram"
# What LXD and Incus call the variables of firmware, of which qemu.nvram names one.
_VARIABLES = {True: "OVMF_VARS_4M.ms.fd", False: "OVMF_VARS_4M.fd"}


@dataclass(frozen=True, slots=True)
class Volume:
    """An instance, expanded, as it was when its layer was copied; snapshot: the one that it is, if any."""

    instance: Instance
    image: Image
    layer: Path
    snapshot: Snapshot | None = None


def backup(volume: Volume, snapshots: Sequence[Volume], own: Instance, compress: str) -> Plan | DiskPlan:
    """own: the instance without what its profiles give it."""
    taken = [each.snapshot for each in snapshots if each.snapshot]
    index = form.index(own, taken, volume.image.architecture, volume.instance)
    if own.kind is Kind.CONTAINER:
        return _trees(volume, snapshots, index, compress)
    return _disks(volume, snapshots, index, compress)


def with_rest(plan: Plan, volume: Volume, layer: Path, since: int) -> RestPlan:
    """Of volume, a copy which is in the plan, also what its own layer has become since (nanoseconds of the epoch)."""
    return RestPlan(
        plan.members, plan.first, plan.files, plan.trees, plan.compress,
        rest=_tree(replace(volume, layer=layer)), copied=_tree(volume), since=since,
    )  # fmt: skip


def image(volume: Volume) -> Plan | DiskPlan:
    if volume.instance.kind is Kind.CONTAINER:
        return Plan(["."], first=ROOTFS, trees={ROOTFS: _tree(volume)})
    return DiskPlan(copies=_kernel(volume.image, ""), disks={DISK: _disk(volume)})


def _trees(volume: Volume, snapshots: Sequence[Volume], index: form.Index, compress: str) -> Plan:
    # JSON is YAML.
    files = {"backup/index.yaml": json.dumps(index), "backup/container/backup.yaml": json.dumps(index["config"])}
    trees = {}
    for place, each in _places(volume, snapshots, "container", "snapshots").items():
        trees[f"{place}/{ROOTFS}"] = _tree(each)
        files[f"{place}/metadata.yaml"] = _described(each.image)
    members = ["backup/index.yaml", "backup/container", *(["backup/snapshots"] if snapshots else [])]
    return Plan(members, files=files, trees=trees, compress=compress)


def _disks(volume: Volume, snapshots: Sequence[Volume], index: form.Index, compress: str) -> DiskPlan:
    """Kernels that came beside a disk are put where LXD and Incus don't look."""
    places = _places(volume, snapshots, "virtual-machine", "virtual-machine-snapshots")
    kernels = {place: each.image for place, each in places.items() if each.image.kernel_command}
    plan = DiskPlan(compress=compress)
    index[form.KERNELS] = {_name(places[place]): found.fingerprint for place, found in kernels.items()}
    plan.files["backup/index.yaml"] = json.dumps(index)
    for found in kernels.values():
        place = f"backup/{form.KERNELS}/{found.fingerprint}"
        plan.files[f"{place}/{form.COMMAND}"] = found.kernel_command
        plan.copies.update(_kernel(found, f"{place}/"))
    for place, each in places.items():
        plan.folders.append(place)
        plan.files[f"{place}/metadata.yaml"] = _described(each.image)
        secure = get_bool(each.instance.config, "security.secureboot")
        variables = firmware.variables(each.layer, secure=secure)
        if variables.is_file():
            plan.copies[f"{place}/{_VARIABLES[secure]}"] = str(variables)
            plan.links[f"{place}/{NVRAM}"] = _VARIABLES[secure]
        plan.disks[f"{place}.img"] = _disk(each)
    plan.files["backup/virtual-machine/backup.yaml"] = json.dumps(index["config"])
    return plan


def _places(volume: Volume, snapshots: Sequence[Volume], own: str, others: str) -> dict[str, Volume]:
    return {f"backup/{own}": volume, **{f"backup/{others}/{_name(each)}": each for each in snapshots}}


def _name(volume: Volume) -> str:
    return volume.snapshot.name if volume.snapshot else ""


def _described(found: Image) -> str:
    return json.dumps({"architecture": found.architecture, "creation_date": found.created // 1_000_000,
                       "properties": found.properties})  # fmt: skip


def _tree(volume: Volume) -> list[str]:
    return [str(volume.layer), str(container.IMAGE_DIR / volume.image.fingerprint / ROOTFS)]


def _disk(volume: Volume) -> tuple[str, str]:
    return str(volume.layer / unit.DISK), str(container.IMAGE_DIR / volume.image.fingerprint / DISK)


def _kernel(found: Image, place: str) -> dict[str, str]:
    if not found.kernel_command:
        return {}
    folder = container.IMAGE_DIR / found.fingerprint
    return {f"{place}{name}": str(folder / name) for name in (KERNEL, INITRD)}
