# SPDX-License-Identifier: Apache-2.0
"""What a backup says of an instance: LXD's index.yaml, written so that LXD and Incus can read it, and read as they and
we write it.

Sources: canonical/lxd lxd/backup/config/backup_config.go, lxc/incus internal/server/backup/backup_info.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sysd.model import names
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.instance import STATE, VOLATILE, Instance, Kind
from sysd.model.snapshot import Snapshot
from sysd.model.values import boolean

POOL = "default"
LEFT_OUT = "left-out"
"""Of index.yaml, as the worker hands it on."""
KERNELS = "syscont-kernels"
"""Of index.yaml: whose kernel that came beside a disk is which. And the folder that has these."""
COMMAND = "command"
SETTLED, GONE, REST = "backup/settled", "backup/gone", "backup/rest"
"""Members that only a host sends whose container was in use at first (sysd.storage.pack_rest)."""
SETTLED_STAGE = "settled"
"""Of the worker that unpacks: it is at the first of these, and what came before is on disk."""
Index = dict[str, Any]
_NEVER = "0001-01-01T00:00:00Z"
_OURS = frozenset({"boot.kernel_command", "boot.mode", "security.core_scheduling"})
"""Keys for which LXD and Incus refuse a backup: no other daemon knows them, or knows them so."""
_HIDDEN = "user.syscont."
_CONTENT = {Kind.CONTAINER: "filesystem", Kind.VM: "block"}


@dataclass(frozen=True, slots=True)
class Described:
    """What a backup says of an instance or a snapshot; nothing of it is checked but that it has this form. created
    and expires are microseconds since the epoch, 0 when not known."""

    name: str
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    created: int = 0
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Backup:
    """left_out: what the worker could not take over."""

    kind: Kind
    instance: Described
    snapshots: dict[str, Described]
    left_out: list[str] = field(default_factory=list)


# writing


def index(instance: Instance, snapshots: Iterable[Snapshot], architecture: str, expanded: Instance) -> dict[str, Any]:
    """index.yaml as data; the instance goes by its own name, in no project."""
    taken = list(snapshots)
    return {
        "name": instance.name,
        "backend": "dir",
        "pool": POOL,
        **({"snapshots": [each.name for each in taken]} if taken else {}),
        "optimized": False,
        "optimized_header": False,
        "type": instance.kind.value,
        "config": contents(instance, taken, architecture, expanded),
    }


def contents(instance: Instance, taken: list[Snapshot], architecture: str, expanded: Instance) -> dict[str, Any]:
    """backup.yaml as data, which index.yaml holds too."""
    kind = instance.kind
    expanded_parts = {"expanded_config": _config(expanded.config, kind), "expanded_devices": expanded.devices}
    volume = {"config": {}, "description": "", "name": instance.name, "type": kind.value, "used_by": [],
              "location": "none", "content_type": _CONTENT[kind]}  # fmt: skip
    return {
        "container": {
            **_described(instance, architecture, kind),
            **expanded_parts,
            "name": instance.name,
            "created_at": _time(instance.created),
            "last_used_at": _NEVER,
            "location": "none",
            "stateful": False,
            "status": "Stopped",
            "status_code": 102,
            "type": kind.value,
            "project": names.DEFAULT_PROJECT,
        },
        "snapshots": [
            {
                **_described(each, architecture, kind),
                **expanded_parts,
                "name": each.name,
                "created_at": _time(each.created),
                "expires_at": _time(each.expires),
                "last_used_at": _NEVER,
                "stateful": False,
                "size": -1,
            }
            for each in taken
        ],
        "pool": {"config": {}, "description": "", "name": POOL, "driver": "dir", "used_by": [], "status": "Created",
                 "locations": ["none"]},
        "volume": volume,
        "volume_snapshots": [
            {"config": {}, "description": "", "name": each.name, "expires_at": _time(each.expires),
             "created_at": _time(each.created), "content_type": _CONTENT[kind]}
            for each in taken
        ],
    }  # fmt: skip


def _described(one: Instance | Snapshot, architecture: str, kind: Kind) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "config": _config(one.config, kind),
        "devices": one.devices,
        "ephemeral": one.ephemeral,
        "profiles": one.profiles,
        "description": one.description,
    }


def _config(config: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """Ours without what we remember but for hardware addresses; and that ids in the files are as the guest has them."""
    kept = {
        f"{_HIDDEN}{key}" if key in _OURS else key: value
        for key, value in config.items()
        if not key.startswith(VOLATILE) or key.endswith(".hwaddr")
    }
    return {**kept, f"{STATE}idmap": "[]"} if kind is Kind.CONTAINER else kept


def _time(microseconds: int) -> str:
    if not microseconds:
        return _NEVER
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


# reading: data is made of maps, lists and texts only


def read(data: object) -> Backup:
    """What index.yaml says, or raises InvalidError; UnsupportedError for a backup of another kind."""
    top = _map(data, "index.yaml")
    named = _text(top, "type", Kind.CONTAINER)
    if named not in list(Kind):
        raise UnsupportedError(f"this is the backup of a {named[:40]}", "only those of instances can be imported")
    if boolean(_text(top, "optimized", "false")):
        raise UnsupportedError("the backup is in a storage driver's format", "export it without --optimized-storage")
    said = _map(top.get("config") or {}, "config")
    own = _map(said.get("container") or said.get("instance") or {}, "container")
    listed = [_map(each, "snapshots") for each in _list(said, "snapshots")]
    found = [_read(each, _text(each, "name", "")) for each in listed]
    snapshots = {each.name.rpartition("/")[2]: each for each in found}
    left = [_is_text(each, LEFT_OUT) for each in _list(top, LEFT_OUT)]
    return Backup(Kind(named), _read(own, _text(top, "name", "")), snapshots, left)


def _read(said: Mapping[str, Any], name: str) -> Described:
    devices = {key: _texts(value, "devices") for key, value in _map(said.get("devices") or {}, "devices").items()}
    return Described(
        name,
        {_shown(key): value for key, value in _texts(said.get("config") or {}, "config").items()},
        devices,
        [_is_text(each, "profiles") for each in _list(said, "profiles")],
        _text(said, "description", ""),
        _text(said, "architecture", ""),
        boolean(_text(said, "ephemeral", "false")),
        _moment(_text(said, "created_at", "")),
        _moment(_text(said, "expires_at", "")),
    )


def _shown(key: str) -> str:
    own = key.removeprefix(_HIDDEN)
    return own if own in _OURS else key


def _map(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(what)
    return value


def _list(said: Mapping[str, Any], what: str) -> list[Any]:
    value = said.get(what) or []
    if not isinstance(value, list):
        raise _wrong(what)
    return value


def _texts(value: object, what: str) -> dict[str, str]:
    return {key: _is_text(each, what) for key, each in _map(value, what).items()}


def _text(said: Mapping[str, Any], what: str, default: str) -> str:
    return _is_text(said.get(what) or default, what)


def _is_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _wrong(what)
    return value


def _wrong(what: str) -> InvalidError:
    return InvalidError(f"the backup's index.yaml: {what[:40]} has not the form that it should have")


def _moment(text: str) -> int:
    """RFC 3339, as Go writes it; what is before 1970, or no time, is not known."""
    try:
        moment = datetime.fromisoformat(text.replace(" ", "T", 1).split(" ")[0]) if text else None
    except ValueError:
        return 0
    if moment is None:
        return 0
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())) * 1_000_000
