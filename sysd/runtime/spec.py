# SPDX-License-Identifier: Apache-2.0
"""What the launcher is told: one JSON file per instance in /run/syscont, readable by root only.

It holds all that a start needs, so that a guest's reboot (systemd runs the launcher again)
works while the daemon is away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sysd.model.idmap import IDENTITY, IdMap, parse_map

RUNTIME_DIR = Path("/run/syscont")
SPEC_DIR = RUNTIME_DIR / "instances"
HANDOVER_SOCKET = RUNTIME_DIR / "handover"
LAUNCH_DIR = RUNTIME_DIR / "launch"
PIN_DIR = RUNTIME_DIR / "netns"
"""Network namespaces of guests that are to outlive their guests for a moment."""
SOCKET_DIR = RUNTIME_DIR / "proxies"
"""The one place of ours that is shown in guests: sockets of proxies."""

NETNS_FD = 100
"""The number at which the guest's network namespace is held while requests for the host are sent."""
HOST_NETNS_FD = 101
"""The same of the host's namespace, while requests for the guest are sent that may put something back there."""


@dataclass(frozen=True, slots=True)
class Share:
    """Something of the host's at path in the guest: source, or a device node (node: char or block) of its own.

    attributes are those of mount_setattr(2). owner is a user and a group as the guest counts them.
    """

    device: str
    path: str
    source: str = ""
    required: bool = True
    recursive: bool = False
    shift: bool = False
    slave: bool = False
    attributes: int = 0
    node: str = ""
    number: tuple[int, int] = (0, 0)
    mode: int = 0o660
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Plugged:
    """How an interface comes and goes: sides, and requests for them (sysd.network.nics). tune: requests that come after
    plug, and can be replaced by others while it is there."""

    plug: list[tuple[str, str]]
    unplug: list[tuple[str, str]]
    tune: list[tuple[str, str]] = field(default_factory=list)

    def same_link(self, other: Plugged | None) -> bool:
        """Whether both are of one interface, however it is tuned."""
        return other is not None and (self.plug, self.unplug) == (other.plug, other.unplug)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """host_links are rtnetlink requests (see sysd/_cext/launch/replay.c) for the host, guest_links for the guest's
    namespace. put_back are sides and requests for when the guest has ended; pin keeps its namespace for that long. nics
    and shares are also what a later change is compared to. id_base is what the guest's root is on the host, as user and
    as group; tty_group its group 5; the maps are texts as user_namespaces(7) has them. sysctls are by path beneath
    /proc/sys, credentials are hex by name, seed has cloud-init's files. lxd_socket: /dev/lxd/sock is there, too. filter
    is a compiled seccomp filter (hex), apparmor a profile; both may be empty. templates: by what triggers them, the
    files that the image wants made, as (path, text, "new" when only where there is none). virtual: functions of the
    host's cards that it has interfaces from (sysd.runtime.sriov.loans.words)."""

    uuid: str
    name: str
    id_base: int
    tty_group: int
    uid_map: str
    gid_map: str
    rootfs: str
    state_dir: str
    waits_for_guest: bool
    environment: dict[str, str] = field(default_factory=dict)
    host_links: list[str] = field(default_factory=list)
    guest_links: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    core_scheduling: bool = False
    credentials: dict[str, str] = field(default_factory=dict)
    seed: dict[str, str] = field(default_factory=dict)
    lxd_socket: bool = True
    shares: list[Share] = field(default_factory=list)
    pin: bool = False
    put_back: list[tuple[str, str]] = field(default_factory=list)
    nics: dict[str, Plugged] = field(default_factory=dict)
    filter: str = ""
    apparmor: str = ""
    privileged: bool = False
    nesting: bool = False
    templates: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    virtual: str = ""

    @property
    def path(self) -> Path:
        return spec_path(self.uuid)

    def write(self) -> None:
        """Replace the file atomically."""
        write_spec(self.uuid, asdict(self))

    def write_devices(self) -> None:
        """Replace what the file of an instance that runs says of its devices; the rest is how it was launched."""
        ours = asdict(self)
        parts = ("host_links", "guest_links", "shares", "nics", "put_back", "virtual")
        _rewrite(self.uuid, {part: ours[part] for part in parts})


def write_shares(uuid: str, shares: Iterable[Share]) -> None:
    """Replace what the file of an instance that runs says of what is shown in it."""
    _rewrite(uuid, {"shares": [asdict(share) for share in shares]})


def _rewrite(uuid: str, parts: dict[str, Any]) -> None:
    write_spec(uuid, {**read_spec(uuid), **parts})


def read_spec(uuid: str) -> dict[str, Any]:
    """Raises OSError or ValueError."""
    found = json.loads(spec_path(uuid).read_bytes())
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def write_spec(uuid: str, values: dict[str, Any]) -> None:
    """Replace the file atomically."""
    SPEC_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = spec_path(uuid)
    draft = path.with_suffix(".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as stream:
        json.dump(values, stream)
    draft.replace(path)


@dataclass(frozen=True, slots=True)
class Given:
    """What an instance that runs was given. pin: what is lent to it is put back when it ends."""

    shares: list[Share]
    nics: dict[str, Plugged]
    pin: bool


def read_devices(uuid: str) -> Given | None:
    """None when it is not known."""
    try:
        written = read_spec(uuid)
        shares = [
            Share(**{**each, "number": tuple(each["number"]), "owner": tuple(each["owner"])})
            for each in written["shares"]
        ]
        nics = {name: Plugged(**{part: _steps(each[part]) for part in each}) for name, each in written["nics"].items()}
        return Given(shares, nics, written["pin"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _steps(rows: list[list[str]]) -> list[tuple[str, str]]:
    return [(side, request) for side, request in rows]


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds a guest that runs, and so what is run in it, whatever its configuration is by now. root: the host's id
    of its root; filter: of system calls, compiled; privileged: it has no user namespace of its own; ids: all that it
    has; profile: of AppArmor."""

    root: int
    filter: bytes = b""
    privileged: bool = False
    ids: IdMap = IDENTITY
    profile: str = ""


def read_confinement(uuid: str) -> Confinement:
    """As the guest was launched. Raises OSError, ValueError, KeyError or TypeError when that can't be read."""
    written = read_spec(uuid)
    return Confinement(
        int(written["id_base"]),
        bytes.fromhex(written["filter"]),
        written["privileged"] is True,
        parse_map(written["uid_map"], written["gid_map"]),
        # Not said by a version that had no profiles.
        str(written.get("apparmor", "")),
    )


def spec_path(uuid: str) -> Path:
    return SPEC_DIR / f"{uuid}.json"


def pin_path(uuid: str) -> Path:
    return PIN_DIR / uuid
