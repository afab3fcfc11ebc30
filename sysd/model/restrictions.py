# SPDX-License-Identifier: Apache-2.0
"""What a project lets its instances be: restrictions of each, and limits of all together.

Instances are expanded ones here: with all that their profiles give them. What is blocked, and the defaults, are LXD's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sysd.model.config import KEYS
from sysd.model.devices.disk import is_seed, root_size
from sysd.model.devices.nic import NOT_MANAGED
from sysd.model.errors import DeniedError, InvalidError
from sysd.model.instance import Instance, Kind
from sysd.model.project import Project
from sysd.model.sizes import Usage, format_size, parse_size
from sysd.model.values import boolean

COUNTS: dict[str, Callable[[Instance], bool]] = {
    "limits.instances": lambda instance: True,
    "limits.containers": lambda instance: instance.kind is Kind.CONTAINER,
    "limits.virtual-machines": lambda instance: instance.kind is Kind.VM,
}
LOWLEVEL = frozenset(
    {
        "boot.host_shutdown_timeout",
        "limits.memory.hugepages",
        "linux.kernel_modules",
        "security.devlxd.images",
        "security.idmap.base",
        "security.idmap.size",
    }
)
# LXD lets security.syscalls.allow and its like pass. They can undo the default filter, as its raw.seccomp can.
LOWLEVEL_FAMILIES = ("raw.", "security.syscalls.")
HARMLESS_DEVICES = frozenset({"none", "tpm"})
BLOCKABLE_DEVICES = frozenset({"unix-char", "unix-block", "unix-hotplug", "infiniband", "gpu", "usb", "pci", "proxy"})
_DEFAULTS = {key.name: key.default for key in KEYS if key.prefix is None}


# restrictions


def check_restrictions(project: Project, instance: Instance) -> None:
    """Raise DeniedError, naming the key or device, when a restricted project does not let an instance be so."""
    if not project.restricted:
        return
    _check_keys(project, instance)
    for name, device in instance.devices.items():
        if why := _device_refusal(project, device):
            raise _denied(project, f"device {name} of {instance.name}", why)


def check_allowed(project: Project, restriction: str, what: str) -> None:
    """For what is no part of an instance, such as ``snapshots``; what says it in the message."""
    if project.restricted and project.allows(restriction) != "allow":
        raise _denied(project, what, f"restricted.{restriction} is {project.allows(restriction)}")


def _check_keys(project: Project, instance: Instance) -> None:
    kind = "virtual-machines" if instance.kind is Kind.VM else "containers"
    if project.allows(f"{kind}.lowlevel") != "allow":
        for key in instance.config:
            if key in LOWLEVEL or key.startswith(LOWLEVEL_FAMILIES):
                raise _denied(project, f"{key} of {instance.name}", f"restricted.{kind}.lowlevel is block")
    if kind == "containers":
        _check_containment(project, instance)


def _check_containment(project: Project, instance: Instance) -> None:
    privilege = project.allows("containers.privilege")
    why = f"restricted.containers.privilege is {privilege}"
    if privilege != "allow" and _is_on(instance, "security.privileged"):
        raise _denied(project, f"security.privileged of {instance.name}", why)
    if privilege == "isolated" and not _is_on(instance, "security.idmap.isolated", "true"):
        raise _denied(project, f"{instance.name} without security.idmap.isolated", why)
    if project.allows("containers.nesting") != "allow" and _is_on(instance, "security.nesting"):
        raise _denied(project, f"security.nesting of {instance.name}", "restricted.containers.nesting is block")


def _is_on(instance: Instance, key: str, default: str = "false") -> bool:
    """default: of a key that has none in the schema."""
    return boolean(instance.config.get(key) or _DEFAULTS.get(key) or default)


def _device_refusal(project: Project, device: Mapping[str, str]) -> str:
    """Why a device may not be; empty when it may. A kind that no restriction knows may not."""
    kind = device.get("type", "")
    if kind == "disk":
        return _disk_refusal(project.allows("devices.disk"), device)
    if kind == "nic":
        return _nic_refusal(project, device)
    if kind in HARMLESS_DEVICES or (kind in BLOCKABLE_DEVICES and project.allows(f"devices.{kind}") == "allow"):
        return ""
    return f"restricted.devices.{kind} is block"


def _disk_refusal(allowed: str, device: Mapping[str, str]) -> str:
    if is_root(device) or is_seed(device) or allowed == "allow":
        return ""
    if allowed == "managed" and device.get("pool"):
        return ""
    return f"restricted.devices.disk is {allowed}"


def _nic_refusal(project: Project, device: Mapping[str, str]) -> str:
    allowed, network = project.allows("devices.nic"), device.get("network", "")
    if allowed == "block" or (allowed == "managed" and not network):
        return f"restricted.devices.nic is {allowed}"
    if allowed == "managed" and (key := next((key for key in NOT_MANAGED if key in device), "")):
        return f"restricted.devices.nic is managed, and {key} is beyond the network"
    access = [name.strip() for name in project.allows("networks.access").split(",") if name.strip()]
    # An interface of its own making can reach any network that its parent is in.
    if access and network not in access:
        return f"restricted.networks.access is {','.join(access)}"
    return ""


def is_root(device: Mapping[str, str]) -> bool:
    """Whether a device is the root disk: one of a pool, not a folder of the host's put over the root."""
    return device.get("type") == "disk" and device.get("path") == "/" and not device.get("source")


# limits


def check_limits(project: Project, instances: Iterable[Instance]) -> None:
    """Raise DeniedError when all instances of a project together are more than it may have; InvalidError when one
    does not say what it takes of a limit."""
    for key, usage in usages(project, list(instances)).items():
        if usage.used > usage.most:
            shown = format_size if key in _SIZES else str
            raise _denied(project, f"{key} is {shown(usage.most)}", f"its instances would have {shown(usage.used)}")


def usages(project: Project, instances: list[Instance]) -> dict[str, Usage]:
    """How much of each limit that a project has its instances take."""
    found: dict[str, Usage] = {}
    for key, counted in COUNTS.items():
        if most := project.config.get(key):
            found[key] = Usage(sum(map(counted, instances)), int(most))
    for key in _WANTED:
        if most := project.config.get(key):
            total = sum(_taken(project, key, instance) for instance in instances)
            found[key] = Usage(total, parse_size(most))
    return found


def _taken(project: Project, key: str, instance: Instance) -> int:
    text = _said(key, instance)
    try:
        return parse_size(text) if key in _SIZES else int(text)
    except (ValueError, InvalidError):
        is_now = f"it is {text!r}" if text else "it is not set"
        raise InvalidError(f"{instance.reference}: {_WANTED[key]}: {is_now}", _why(project, key)) from None


def _said(key: str, instance: Instance) -> str:
    """What an instance says that it takes of a limit."""
    if key == DISK:
        return str(root_size(instance.devices) or "")
    if key == "limits.processes" and instance.kind is Kind.VM:
        return "0"  # those of its guest are no tasks of the host's
    return instance.config.get(key, "")


def _why(project: Project, key: str) -> str:
    return f"project {project.name} has {key}, which holds for all of its instances together"


DISK = "limits.disk"
_SIZES = frozenset({"limits.memory", DISK})
# Of these an instance takes what its key of the same name says; of the disk, what its root disk does.
_WANTED = {
    "limits.cpu": "limits.cpu has to be a number of CPUs",
    "limits.memory": "limits.memory has to be a size in bytes",
    "limits.processes": "limits.processes has to be set",
    DISK: "its root disk has to have a size",
}


def _denied(project: Project, what: str, why: str) -> DeniedError:
    return DeniedError(f"project {project.name} does not allow it: {what}", why)
