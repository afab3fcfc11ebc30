# SPDX-License-Identifier: Apache-2.0
"""Values as org.syscont.Manager's varlink types."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sysd.manager.actions import Caller
from sysd.manager.manager import Manager
from sysd.model.image import Image
from sysd.model.instance import Instance
from sysd.model.operation import Operation
from sysd.model.secrets import public
from sysd.model.snapshot import Snapshot
from sysd.model.usage import InstanceUsage, MachineUsage, Traffic
from sysd.runtime import core_scheduling
from sysd.runtime.apparmor import profiles


def instance(manager: Manager, value: Instance, caller: Caller) -> dict[str, Any]:
    status = manager.table.status(value)
    expanded = manager.table.expanded(value)
    return {
        "name": value.name,
        "project": value.project,
        "type": value.kind,
        "state": status.state,
        "unit": value.unit,
        "leader": status.leader,
        "coreCookie": core_scheduling.cookie(value.kind, status.leader),
        "appArmor": profiles.current(status.leader),
        "image": value.image,
        "imageAlias": manager.image_alias(value),
        "config": public(value.config) if caller.uid else value.config,
        "expandedConfig": public(expanded.config) if caller.uid else expanded.config,
        "devices": value.devices,
        "expandedDevices": expanded.devices,
        "profiles": value.profiles,
        "description": value.description,
        "ephemeral": value.ephemeral,
        "stateful": manager.states.is_kept(value),
        "addresses": status.addresses,
        "lostDevices": status.lost,
        "uuid": value.uuid,
        "idBase": value.id_base,
        "created": value.created,
    }


def snapshot(value: Snapshot, caller: Caller) -> dict[str, Any]:
    return {
        "name": value.name,
        "created": value.created,
        "expires": value.expires,
        "image": value.image,
        "config": public(value.config) if caller.uid else value.config,
        "devices": value.devices,
        "profiles": value.profiles,
        "description": value.description,
        "ephemeral": value.ephemeral,
        "stateful": value.stateful,
    }


def image(manager: Manager, value: Image) -> dict[str, Any]:
    return {
        "fingerprint": value.fingerprint,
        "aliases": manager.images.aliases(value.fingerprint),
        "type": value.kind,
        "architecture": value.architecture,
        "init": value.init,
        "description": value.description,
        "properties": value.properties,
        "size": value.size,
        "diskSize": value.disk_size,
        "created": value.created,
        "imported": value.imported,
    }


def usage(value: InstanceUsage) -> dict[str, Any]:
    return {
        "cpuNSec": value.cpu,
        "memory": asdict(value.memory),
        "tasks": value.tasks,
        "disks": {name: asdict(disk) for name, disk in value.disks.items()},
        "interfaces": {name: _traffic(traffic) for name, traffic in value.interfaces.items()},
        "machine": _machine(value.machine) if value.machine else None,
    }


def _traffic(value: Traffic) -> dict[str, Any]:
    return {
        "receivedBytes": value.received_bytes,
        "receivedPackets": value.received_packets,
        "sentBytes": value.sent_bytes,
        "sentPackets": value.sent_packets,
        "link": value.link,
    }


def _machine(value: MachineUsage) -> dict[str, Any]:
    return {
        "accelerator": value.accelerator,
        "why": value.why,
        "boot": value.boot,
        "secureBoot": value.secure_boot,
        "cid": value.cid,
        "agent": value.agent,
        "processors": value.processors,
        "cookies": [{"cookie": cookie, "processors": count} for cookie, count in sorted(value.cookies.items())],
    }


def operation(value: Operation) -> dict[str, Any]:
    return {
        "id": value.id,
        "kind": value.kind,
        "target": value.target,
        "status": value.status,
        "stage": value.stage,
        "done": value.done,
        "total": value.total,
        "message": value.message,
        "result": value.result,
    }
