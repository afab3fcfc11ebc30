# SPDX-License-Identifier: Apache-2.0
"""Disks: the root file system, folders and files of the host that are mounted below it, and cloud-init's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sysd.model.devices import boot
from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.schema import Key
from sysd.model.sizes import parse_size
from sysd.model.values import anything, boolean, one_of, size

ROOT = "/"
SEED = "cloud-init:config"
"""As source: what cloud-init is told, on a disk of its own."""
LEAST_SIZE = 1 << 20
"""What a container needs to start, with nothing of its own written, is far less."""
OWNED_BY_US = ("/dev", "/proc", "/sys", "/run/host")
"""Of each guest, file systems of its own; see the launcher."""

MOUNT_OPTIONS = frozenset(
    {"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"}
)
_IOPS = re.compile(r"([0-9]{1,12})iops", re.ASCII)
_ELSEWHERE = "storage pools have them"


def absolute_path(text: str) -> str:
    """A path whose words are all names. Links on the way are dealt with where it is opened."""
    if not text.startswith("/") or {"..", "."} & set(text.split("/")) or len(text.encode()) > 4095:
        raise InvalidError(f"not an absolute path: {text[:80]!r}", "one that starts with / and has neither . nor ..")
    return text


def guest_path(text: str) -> str:
    """Where in a guest something may be mounted."""
    absolute_path(text)
    plain = "/" + "/".join(word for word in text.split("/") if word)
    for place in OWNED_BY_US:
        if plain == place or plain.startswith(place + "/"):
            raise InvalidError(f"nothing can be mounted at {text!r}", f"{place} is made anew at each start")
    return text


def io_limit(text: str) -> tuple[int, bool]:
    """(number, whether it counts operations) of a limit a second: ``30MB`` or ``500iops``."""
    if match := _IOPS.fullmatch(text):
        number, operations = int(match[1]), True
    else:
        number, operations = parse_size(text), False
    if number < 1:
        raise InvalidError(f"too small: {text!r}", "at least 1")
    return number, operations


def mount_options(text: str) -> list[str]:
    """What raw.mount.options says, word by word."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in MOUNT_OPTIONS:
            raise InvalidError(f"not an option of a mount: {word[:80]!r}", f"of {', '.join(sorted(MOUNT_OPTIONS))}")
    return words


def _source(text: str) -> str:
    if text.startswith(("ceph:", "cephfs:")):
        raise UnsupportedError("Ceph is mounted on the host first, and the mount point is the source")
    return text if text == SEED else absolute_path(text)


def _bus(text: str) -> str:
    if text == "9p":
        why = "QEMU itself would open the files, and it has neither the host's files nor rights to open any"
        raise UnsupportedError(f"9p is not offered: {why}", "virtiofs")
    return one_of("auto", "virtiofs")(text)


def _propagation(text: str) -> str:
    """LXD's shared and unbindable are left out: a guest's mounts never reach the host, and its tree is a clone."""
    return one_of("private", "rprivate", "slave", "rslave")(text)


OPTIONS = (
    Key("path", absolute_path, "", "Where in the guest it is mounted; / is the root file system."),
    Key(
        "source",
        _source,
        "",
        "Folder or file of the host; for virtual machines also a block device, and cloud-init:config for a disk of what"
        " cloud-init is told.",
    ),
    Key("pool", one_of("default"), "", "Storage pool of the root file system."),
    Key("required", boolean, "true", "Refuse to start when the source is not there."),
    Key("optional", boolean, "false", "LXD's older word for required=false."),
    Key("readonly", boolean, "false", "Let the guest read only."),
    Key("recursive", boolean, "false", "Take along what is mounted below the source."),
    Key("propagation", _propagation, "private", "Whether later mounts below the source are seen (slave) or not."),
    Key(
        "shift",
        boolean,
        "false",
        "Show the host's ids 0 to 65535 as the guest's own. Files that its root makes then belong to the host's root:"
        " keep the source out of other users' reach.",
    ),
    Key("raw.mount.options", mount_options, "", "Options of the mount, such as noexec,nosuid."),
    Key("limits.read", io_limit, "", "Most that is read a second, in bytes (30MB) or operations (500iops).", live=True),
    Key("limits.write", io_limit, "", "The same for writing.", live=True),
    Key("limits.max", io_limit, "", "Both limits at once.", live=True),
    Key(
        "size",
        size(LEAST_SIZE),
        "",
        "Of the root file system: most that the instance may write beside its image; snapshots are not counted. "
        "/var/lib/syscont must be on a file system with project quotas: ext4 with the features quota and project, or "
        "xfs, mounted with prjquota.",
        live=True,
    ),
    Key("io.bus", _bus, "auto", "How a virtual machine has a folder of the host: virtiofs, which auto means, too."),
    Key("size.state", anything, "", "", refused="it is for virtual machines"),
    boot.PRIORITY,
    Key("ceph.user_name", anything, "", "", refused=_ELSEWHERE),
    Key("ceph.cluster_name", anything, "", "", refused=_ELSEWHERE),
)


def check(options: Mapping[str, str]) -> None:
    if is_seed(options):
        if more := set(options) - {"type", "source"}:
            raise InvalidError(f"{min(more)} is not for {SEED}", "it is a disk of its own, which nobody can write to")
        return
    path = options.get("path", "")
    if not path:
        raise InvalidError("path is missing", "where in the guest it is mounted")
    if is_root(options):
        for key in ("source", "readonly", "recursive", "propagation", "shift", "raw.mount.options", "io.bus"):
            if key in options:
                raise InvalidError(f"{key} is not for the root file system")
        return
    guest_path(path)
    if "size" in options:
        raise InvalidError("size is for the root file system only", "other disks are as large as what they show")
    if not options.get("source"):
        raise InvalidError("source is missing", "a folder or file of the host")
    if options.get("pool"):
        raise UnsupportedError("volumes of pools can't be disks", "name a folder of the host as source")


def is_root(options: Mapping[str, str]) -> bool:
    return options.get("type") == "disk" and not is_seed(options) and not options.get("path", "").strip("/")


def is_seed(options: Mapping[str, str]) -> bool:
    return options.get("type") == "disk" and options.get("source") == SEED


def root_size(devices: Mapping[str, Mapping[str, str]]) -> int:
    """Bytes that the root file system may take, as expanded devices say; 0 when they don't."""
    sizes = (options["size"] for options in devices.values() if is_root(options) and "size" in options)
    return parse_size(next(sizes, "0"))
