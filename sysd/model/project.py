# SPDX-License-Identifier: Apache-2.0
"""Projects: namespaces of instances and their profiles, with limits and restrictions of their own.

Names, values and defaults of keys are LXD's (see its project configuration reference).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.names import DEFAULT_PROJECT, check_network_name
from sysd.model.schema import Key, Schema
from sysd.model.sizes import parse_size
from sysd.model.values import anything, boolean, integer, one_of
from sysd.model.zones import check_name as check_zone_name

MAX_COUNT = 10**9
_SHARED = "all projects share those of the host"
_NO_CLUSTER = "there are no clusters"
_OF_IMAGES = "images are not of a project: all projects share those of the host"


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)

    @property
    def has_profiles(self) -> bool:
        """Whether it has profiles of its own, as the default project always has, or else uses those of that."""
        return self.name == DEFAULT_PROJECT or SCHEMA.boolean(self.config, "features.profiles")

    @property
    def profile_project(self) -> str:
        """The project whose profiles its instances have."""
        return self.name if self.has_profiles else DEFAULT_PROJECT

    @property
    def restricted(self) -> bool:
        return SCHEMA.boolean(self.config, "restricted")

    def allows(self, restriction: str) -> str:
        """The value of a restriction, such as ``block``; only of force when the project is restricted."""
        return SCHEMA.text(self.config, f"restricted.{restriction}")


def _shared(what: str) -> Callable[[str], object]:
    def check(text: str) -> bool:
        if boolean(text):
            raise UnsupportedError(f"projects have no {what} of their own", _SHARED)
        return False

    return check


def _networks(text: str) -> list[str]:
    return [check_network_name(name) for name in re.split(r",\s*", text) if name]


def _zones(text: str) -> list[str]:
    return [check_zone_name(name) for name in re.split(r",\s*", text) if name]


def _size(text: str) -> int:
    value = parse_size(text)
    if not value:
        raise InvalidError(f"too small: {text!r}", "more than nothing")
    return value


_count = integer(0, MAX_COUNT)
_allow = one_of("allow", "block")
_FEATURE = "Whether the project has {} of its own; {}."
_TOTAL = "Most {} of all its instances together; each of them must then have {}."


def _restriction(name: str, help: str, check: Callable[[str], object] = _allow, default: str = "block") -> Key:
    return Key(f"restricted.{name}", check, default, help, live=True)


def _device(kind: str, what: str) -> Key:
    return _restriction(f"devices.{kind}", f"Whether instances may have {what}: allow or block.")


KEYS = (
    Key(
        "features.profiles",
        boolean,
        "false",
        "Whether the project has profiles of its own, as a new one has unless told otherwise; else it uses those of "
        "the default project.",
        live=True,
    ),
    Key("features.images", _shared("images"), "false", _FEATURE.format("images", _SHARED), live=True),
    Key("features.networks", _shared("networks"), "false", _FEATURE.format("networks", _SHARED), live=True),
    Key(
        "features.storage.volumes",
        _shared("storage volumes"),
        "false",
        _FEATURE.format("storage volumes", _SHARED),
        live=True,
    ),
    Key("limits.instances", _count, "", "Most instances of the project.", live=True),
    Key("limits.containers", _count, "", "Most containers of the project.", live=True),
    Key("limits.virtual-machines", _count, "", "Most virtual machines of the project.", live=True),
    Key("limits.cpu", _count, "", _TOTAL.format("CPUs", "limits.cpu, as a number of CPUs"), live=True),
    Key("limits.memory", _size, "", _TOTAL.format("memory", "limits.memory, in bytes"), live=True),
    Key("limits.processes", _count, "", _TOTAL.format("processes", "limits.processes"), live=True),
    Key("limits.disk", _size, "", _TOTAL.format("disk space", "a size on its root disk"), live=True),
    Key("limits.networks", _count, "", "", refused=f"projects have no networks of their own: {_SHARED}"),
    Key(
        "restricted",
        boolean,
        "false",
        "Whether what the restricted.* keys block is blocked: with what they are when they are not set.",
        live=True,
    ),
    _restriction("backups", "Whether instances may be exported: allow or block."),
    _restriction("snapshots", "Whether snapshots of instances may be made: allow or block."),
    _restriction("containers.nesting", "Whether security.nesting may be on: allow or block."),
    _restriction(
        "containers.lowlevel",
        "Whether raw.*, security.syscalls.* and other keys that reach deep may be set: allow or block.",
    ),
    _restriction(
        "containers.privilege",
        "unprivileged: no security.privileged; isolated: also no security.idmap.isolated=false; allow: anything.",
        one_of("unprivileged", "isolated", "allow"),
        "unprivileged",
    ),
    _restriction("virtual-machines.lowlevel", "As restricted.containers.lowlevel, of virtual machines."),
    _device("unix-char", "character devices"),
    _device("unix-block", "block devices"),
    _device("unix-hotplug", "unix-hotplug devices"),
    _device("infiniband", "InfiniBand devices"),
    _device("gpu", "GPUs"),
    _device("usb", "USB devices"),
    _device("pci", "PCI devices"),
    _device("proxy", "proxies"),
    _restriction(
        "devices.nic",
        "Which network interfaces instances may have: managed (only in managed networks), allow or block (none).",
        one_of("managed", "allow", "block"),
        "managed",
    ),
    _restriction(
        "devices.disk",
        "Which disks instances may have besides the root disk: managed (only of storage pools), allow or block (none).",
        one_of("managed", "allow", "block"),
        "managed",
    ),
    _restriction(
        "networks.access",
        "The only networks that instances may be in, with commas between them; any network when it is not set.",
        _networks,
        "",
    ),
    Key("restricted.cluster.target", _allow, "block", "", refused=_NO_CLUSTER),
    Key("restricted.networks.subnets", anything, "", "", refused=f"projects have no networks of their own: {_SHARED}"),
    Key("restricted.networks.uplinks", anything, "", "", refused=f"projects have no networks of their own: {_SHARED}"),
    _restriction(
        "networks.zones",
        "The only network zones, with those below them, in which instances of the project may have names, with commas "
        "between them; none when it is not set.",
        _zones,
        "",
    ),
    Key("backups.compression_algorithm", anything, "", "", refused="it is chosen for each export"),
    Key("images.auto_update_cached", anything, "", "", refused=_OF_IMAGES),
    Key("images.auto_update_interval", anything, "", "", refused=_OF_IMAGES),
    Key("images.compression_algorithm", anything, "", "", refused=_OF_IMAGES),
    Key("images.default_architecture", anything, "", "", refused=_OF_IMAGES),
    Key("images.remote_cache_expiry", anything, "", "", refused=_OF_IMAGES),
    Key("user.*", anything, "", "Free for users; may span lines. Everybody on the host can read it.", multiline=True),
)
SCHEMA = Schema(KEYS, "project", "see 'syscont project keys'")


def default_project() -> Project:
    """The one that is always there."""
    return Project(DEFAULT_PROJECT, "What is in no other project")
