# SPDX-License-Identifier: Apache-2.0
"""A container as a transient unit: its properties, and what the launcher is told."""

from __future__ import annotations

import base64
import logging
import platform
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from dbus_next import Variant

from sysd.model import cloudinit, sysctls
from sysd.model.config import get_bool, get_int
from sysd.model.errors import InvalidError
from sysd.model.idmap import is_privileged, make_idmap
from sysd.model.image import Image, Init
from sysd.model.instance import Instance
from sysd.model.keys.linux import kernel_modules
from sysd.model.syscalls import policy_of
from sysd.runtime import limits
from sysd.runtime.apparmor import profiles
from sysd.runtime.devices import shares
from sysd.runtime.devices.disk import io_properties
from sysd.runtime.devices.node import allowed
from sysd.runtime.plugging import PLUG
from sysd.runtime.seccomp import compile_policy
from sysd.runtime.spec import LaunchSpec, Plugged, Share
from sysd.runtime.sriov import lending
from sysd.runtime.sriov.loans import Wanted, words
from sysd.units.systemd import Properties

log = logging.getLogger(__name__)

GIVE_BACK = "--give-back"

LAUNCHER = "/usr/libexec/syscont/launch"
MODPROBE = "/sbin/modprobe"
TARGET = "syscont.target"
DEVICES = [["char-pts", "rwm"], ["/dev/net/tun", "rwm"], ["/dev/fuse", "rwm"]]
"""What each container may open beside what DevicePolicy=closed leaves it."""
STATE_DIR = Path("/var/lib/syscont/instances")
IMAGE_DIR = Path("/var/lib/syscont/images")

MADE_FOR = "made-for"
"""Beside an instance's layer: for whom the launcher last made files from its image's templates."""

TTY_GROUP = 5
"""As devpts is mounted for guests; a number that distributions have agreed on."""

RTMIN = 34
"""SIGRTMIN as glibc counts, and as systemd's container interface means it."""
POWER_OFF_SIGNAL = {Init.SYSTEMD: RTMIN + 3, Init.BUSYBOX: int(signal.SIGUSR2), Init.OTHER: int(signal.SIGPWR)}

HOST_FIELDS = ("ID", "BUILD_ID", "VARIANT_ID", "VERSION_ID")
"""Those of os-release(5) that systemd's container interface names."""

INFINITY = (1 << 64) - 1
SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Macvtap:
    """A link of a virtual machine's network namespace, by name, and the request that makes it."""

    name: str
    request: str


@dataclass(frozen=True, slots=True)
class Links:
    """An instance's interfaces, as requests; see LaunchSpec. mtus: their largest packets, 0 where nobody says. Of
    virtual machines: macvtaps, and lent, which are links of the host's whose hardware the guest is to have. virtual:
    functions of cards, chosen when it starts. stays: of put_back some would not go by itself in a while."""

    host: list[str]
    guest: list[str]
    nics: dict[str, Plugged]
    put_back: list[tuple[str, str]]
    mtus: dict[str, int] = field(default_factory=dict)
    macvtaps: dict[str, Macvtap] = field(default_factory=dict)
    lent: dict[str, str] = field(default_factory=dict)
    virtual: dict[str, Wanted] = field(default_factory=dict)
    stays: bool = False


def state_dir(instance: Instance) -> Path:
    return STATE_DIR / instance.uuid


class Held(TypedDict):
    id_base: int
    uid_map: str
    gid_map: str
    privileged: bool


def held(instance: Instance) -> Held:
    """Whose ids an expanded instance has, as LaunchSpec has it."""
    ids = make_idmap(instance.id_base, instance.id_count, instance.config)
    return {
        "id_base": ids.outside(0, 0)[0],
        "uid_map": ids.uid_text,
        "gid_map": ids.gid_text,
        "privileged": is_privileged(instance.config),
    }


def make_spec(instance: Instance, image: Image, links: Links) -> LaunchSpec:
    """instance is an expanded one."""
    ids = make_idmap(instance.id_base, instance.id_count, instance.config)
    return LaunchSpec(
        uuid=instance.uuid,
        name=instance.name,
        tty_group=ids.outside(0, TTY_GROUP)[1],
        rootfs=str(IMAGE_DIR / image.fingerprint / "rootfs"),
        state_dir=str(state_dir(instance)),
        waits_for_guest=image.init is Init.SYSTEMD,
        environment=host_identity() | environment(instance.config),
        sysctls=sysctls.settings(instance.config),
        core_scheduling=get_bool(instance.config, "security.core_scheduling"),
        credentials=credentials(instance.config),
        seed=cloudinit.seed(instance),
        # cloud-init and others choose by whether it is there. Ours is always, so that it can be switched on live.
        lxd_socket=get_bool(instance.config, "security.devlxd"),
        host_links=links.host,
        guest_links=links.guest,
        nics=links.nics,
        put_back=links.put_back,
        pin=bool(links.put_back),
        shares=shares(instance.devices),
        filter=compile_policy(policy_of(instance.config)).hex(),
        apparmor=profiles.available(instance.uuid, instance.config),
        **held(instance),
        nesting=get_bool(instance.config, "security.nesting"),
        templates=templates(instance, image),
        virtual=words(links.virtual) if links.virtual else "",
    )


def host_identity() -> dict[str, str]:
    """What the container interface lets guests know of the system that they run on."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return {}
    return {f"container_host_{field.lower()}": release[field] for field in HOST_FIELDS if field in release}


def environment(config: Mapping[str, str]) -> dict[str, str]:
    prefix = "environment."
    return {key[len(prefix) :]: value for key, value in config.items() if key.startswith(prefix)}


def _has_module(name: str) -> bool:
    return Path("/sys/module", name.replace("-", "_")).exists()


def _modules(config: Mapping[str, str]) -> list[list[str]]:
    """What can't be loaded fails the start. Not for those that the kernel has: modprobe knows them only where it finds
    the kernel's own folder."""
    wanted = config.get("linux.kernel_modules")
    missing = [name for name in kernel_modules(wanted) if not _has_module(name)] if wanted else []
    return [[MODPROBE, "--all", "--use-blacklist", "--", *missing]] if missing else []


def first(commands: Iterable[list[str]]) -> Properties:
    """Before each start, so that it is done also when the daemon is away."""
    found = [[argv[0], argv, False] for argv in commands]
    return {"ExecStartPre": Variant("a(sasb)", found)} if found else {}


def borrowing(instance: Instance, virtual: str) -> list[list[str]]:
    """As Links.virtual, in words."""
    return [lending.command("take", instance.uuid, instance.reference, virtual)] if virtual else []


def templates(instance: Instance, image: Image) -> dict[str, list[tuple[str, str, str]]]:
    """Files that the image wants made, by what triggers them. cloud-init's seed is made without them."""
    made: dict[str, list[tuple[str, str, str]]] = {}
    for template in image.templates:
        if template.path.startswith(cloudinit.SEED):
            continue
        for trigger in template.when:
            try:
                text = template.render(instance, image.architecture, trigger)
            except InvalidError as error:
                log.warning("%s: %s is not made: %s", instance.name, template.path, error.message)
                continue
            made.setdefault(trigger, []).append((template.path, text, "new" if template.create_only else ""))
    return made


def credentials(config: Mapping[str, str]) -> dict[str, str]:
    text, binary = "systemd.credential.", "systemd.credential-binary."
    found = {key.removeprefix(text): value.encode() for key, value in config.items() if key.startswith(text)}
    for key, value in config.items():
        if key.startswith(binary):
            found[key.removeprefix(binary)] = base64.b64decode(value)
    return {name: value.hex() for name, value in found.items()}


def unit_properties(instance: Instance, image: Image, spec: LaunchSpec, cpus: Iterable[int]) -> Properties:
    """The container's unit. The guest's own PID 1 becomes its main process; see the launcher."""
    argv = [LAUNCHER, str(spec.path)]
    return {
        "Description": Variant("s", f"Container {instance.name}"),
        "Slice": Variant("s", "syscont.slice"),
        # The target's ordering stands for the default one, and its end at shutdown for theirs.
        "DefaultDependencies": Variant("b", False),
        "Requires": Variant("as", [TARGET]),
        "After": Variant("as", [TARGET]),
        "AddRef": Variant("b", True),
        "Type": Variant("s", "notify"),
        "NotifyAccess": Variant("s", "all"),
        **first([*_modules(instance.config), *borrowing(instance, spec.virtual)]),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "SyslogIdentifier": Variant("s", instance.name),
        "Delegate": Variant("b", True),
        "KeyringMode": Variant("s", "private"),
        # Guests boot at their own pace; stopping one that never gets ready is the user's decision.
        "TimeoutStartUSec": Variant("t", INFINITY),
        # 0 would mean for ever in a unit file, and means at once to us.
        "TimeoutStopUSec": Variant("t", max(1, get_int(instance.config, "boot.host_shutdown_timeout") * SECOND)),
        "KillMode": Variant("s", "mixed"),
        "KillSignal": Variant("i", POWER_OFF_SIGNAL[image.init]),
        # reboot(2) in a pid namespace ends its init by SIGHUP (restart) or SIGINT (power off).
        "RestartForceExitStatus": Variant("(aiai)", [[], [int(signal.SIGHUP)]]),
        "SuccessExitStatus": Variant("(aiai)", [[], [int(signal.SIGHUP), int(signal.SIGINT)]]),
        "RestartUSec": Variant("t", 0),
        "StartLimitIntervalUSec": Variant("t", 60 * SECOND),
        "StartLimitBurst": Variant("u", 10),
        "DevicePolicy": Variant("s", "closed"),
        **device_policy(spec.shares),
        **io_properties(instance.devices),
        **release(spec),
        **limits.start_properties(instance.config),
        **limits.live_properties(instance.config, cpus),
    }


def device_policy(shares: Iterable[Share]) -> Properties:
    return {"DeviceAllow": Variant("a(ss)", [*DEVICES, *allowed(shares)])}


def release(spec: LaunchSpec) -> Properties:
    """What it was given comes back. Each command is some 15 ms of a stop, so those that have nothing have none; of what
    cards give one that runs, see sysd.manager.functions."""
    put_back = [[PLUG, [PLUG, "--release", str(spec.path)], True]] if spec.pin else []
    give_back = [giving_back(spec.uuid)] if spec.virtual else []
    found = [*put_back, *give_back]
    return {"ExecStopPost": Variant("a(sasb)", found)} if found else {}


def giving_back(uuid: str) -> list[object]:
    """As systemd has commands: of what cards have given an instance, if anything."""
    return [PLUG, [PLUG, GIVE_BACK, uuid], True]
