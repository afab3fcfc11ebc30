# SPDX-License-Identifier: Apache-2.0
"""A virtual machine as a transient unit: its properties, and what the launcher is told."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dbus_next import Variant

from sysd.model.config import SCHEMA, get_bool, get_int
from sysd.model.errors import InvalidError
from sysd.model.image import Image, Init
from sysd.model.instance import Instance, hardware_address, host_interface_name
from sysd.model.keys import machine as keys
from sysd.model.machine import memory_of, processors_of
from sysd.runtime import container, limits
from sysd.runtime.devices.disk import io_properties
from sysd.runtime.sriov.loans import words
from sysd.runtime.vm import (
    firmware,
    helpers,
    kvm,
    lending,
    mounts,
    notify,
    parts,
    processors,
    seed,
    state,
    vfio,
    virtual,
)  # fmt: skip
from sysd.runtime.vm.hardware import MODEL, Firmware, Kernel, Machine, Part, build
from sysd.runtime.vm.spec import MachineSpec, sockets_of
from sysd.units.systemd import Properties

LAUNCHER = "/usr/libexec/syscont/launch-vm"
QEMU = f"/usr/bin/qemu-system-{os.uname().machine}"
DISK = "root.qcow2"
VHOST_NET, VHOST_VSOCK = "/dev/vhost-net", "/dev/vhost-vsock"
MACVTAP = "macvtap"
MOST_MEMORY_STEP = 128 << 20
_ABSENT = frozenset({"limits.memory"})
"""Keys whose unit property would count what QEMU itself takes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a machine is made of: an expanded instance, its image, and how it goes on. key: that lets us in by ssh.
    kept: memory from which it is to go on, or with arrives what a machine is that comes from elsewhere."""

    instance: Instance
    image: Image
    links: container.Links
    had: Mapping[str, Part]
    key: str = ""
    kept: state.Kept | None = None
    arrives: bool = False


def folder_of(instance: Instance) -> Path:
    """Of what the guest has written."""
    return container.state_dir(instance) / "upper"


def disk_path(instance: Instance) -> Path:
    return folder_of(instance) / DISK


@dataclass(frozen=True, slots=True)
class _Size:
    """As in hardware.Machine."""

    memory: int
    most_memory: int
    cpus: int
    most_cpus: int


def _size(instance: Instance) -> _Size:
    cpus, pins = processors_of(instance.config)
    memory = memory_of(instance.config, host_memory())
    most = processors.most_memory(SCHEMA.text(instance.config, "limits.cpu.model"), host_memory())
    most_memory = max(memory, most - most % MOST_MEMORY_STEP)
    return _Size(memory, most_memory, cpus, cpus if pins else max(cpus, os.cpu_count() or 1))


def make_spec(wanted: Wanted) -> MachineSpec:
    instance, image = wanted.instance, wanted.image
    folder = folder_of(instance)
    root = parts.Root(str(container.IMAGE_DIR / image.fingerprint / "disk.img"), str(folder / DISK))
    given = parts.Given(
        instance.uuid,
        root,
        links_of(instance, wanted.links),
        seed.of_instance(_without(instance, {**wanted.links.lent, **wanted.links.virtual})),
        wanted.links.lent,
        {name: one.name for name, one in wanted.links.virtual.items()},
    )
    found = parts.build(instance.devices, given, wanted.had)
    passed = parts.functions(found)
    _, pins = processors_of(instance.config)
    cid, kept = cid_of(instance), wanted.kept
    emulated = kvm.refusal()
    if kept:
        kept.check(instance, found, accelerated=not emulated, vsock=bool(cid), arrives=wanted.arrives)
        cid = cid if kept.vsock else 0
    boot = _boot(instance, image, folder)
    size = _Size(kept.memory, kept.most_memory, kept.cpus, kept.most_cpus) if kept else _size(instance)
    board = build(
        Machine(
            uuid=instance.uuid,
            name=instance.machine,
            memory=size.memory,
            most_memory=size.most_memory,
            hugepages=get_bool(instance.config, "limits.memory.hugepages"),
            cpus=size.cpus,
            most_cpus=size.most_cpus,
            boot=boot,
            accelerated=not emulated,
            credentials=credentials(instance, cid, wanted, found),
            cid=cid,
            vhost_net=os.path.exists(VHOST_NET),
            extra=keys.options(SCHEMA.text(instance.config, "raw.qemu")),
            model=kept.model if kept else MODEL,
            usb=any(options["type"] == "usb" for options in instance.devices.values()),
            plugged=kept.plugged if kept else (),
            iommufd=bool(passed) and vfio.has_iommufd(),
            processor=SCHEMA.text(instance.config, "limits.cpu.model"),
        ),
        found,
    )
    return MachineSpec(
        uuid=instance.uuid,
        name=instance.name,
        state_dir=str(container.state_dir(instance)),
        owner=instance.id_base,
        waits_for_guest=image.init in (Init.SYSTEMD, Init.OTHER),
        core_scheduling=get_bool(instance.config, "security.core_scheduling"),
        pins=pins,
        program=QEMU,
        arguments=board.arguments + (state.DEFER if wanted.arrives else []),
        qmp=str(sockets_of(instance.uuid)[1]),
        descriptors=board.descriptors,
        nodes=[] if emulated else [kvm.DEVICE],
        host_links=wanted.links.host,
        cid=cid,
        memory=size.memory,
        most_memory=size.most_memory,
        cpus=size.cpus,
        most_cpus=size.most_cpus,
        resume=kept.resume() if kept and not wanted.arrives else None,
        parts=parts.store(found),
        emulated=emulated,
        boot="uefi" if isinstance(boot, Firmware) else keys.DIRECT,
        secure_boot=isinstance(boot, Firmware) and boot.secure,
        functions=vfio.groups(passed.values()),
        arrives=wanted.arrives,
        virtual=words(wanted.links.virtual) if wanted.links.virtual else "",
        fixed=state.fixed_of(instance),
    )


def _without(instance: Instance, devices: Iterable[str]) -> Instance:
    """Of hardware, cloud-init would not know what it is called."""
    return replace(instance, devices={name: each for name, each in instance.devices.items() if name not in devices})


def host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cid_of(instance: Instance) -> int:
    """Its address on vsock: as nobody else's as its first id. 0 where the host has no vsock for guests."""
    return instance.id_base if os.path.exists(VHOST_VSOCK) else 0


def links_of(instance: Instance, links: container.Links) -> dict[str, parts.Link]:
    found = {}
    for name, mtu in links.mtus.items():
        own = links.macvtaps.get(name)
        tap, request = (own.name, own.request) if own else (host_interface_name(instance, name), "")
        found[name] = parts.Link(tap, hardware_address(instance, name), mtu, request)
    return found


def _boot(instance: Instance, image: Image, folder: Path) -> Firmware | Kernel:
    if SCHEMA.text(instance.config, "boot.mode") == keys.DIRECT:
        place = container.IMAGE_DIR / image.fingerprint
        if not image.kernel_command:
            hint = "boot.mode=uefi starts from its disk"
            raise InvalidError(f"boot.mode: the image of {instance.reference} has no kernel beside its disk", hint)
        initrd = place / "initrd"
        command = f"{image.kernel_command} {SCHEMA.text(instance.config, 'boot.kernel_command')}".strip()
        return Kernel(str(place / "kernel"), str(initrd) if initrd.exists() else "", command)
    secure = get_bool(instance.config, "security.secureboot")
    uefi, variables = firmware.find(secure=secure), firmware.variables(folder, secure=secure)
    firmware.make_variables(uefi, variables)
    return Firmware(str(uefi.code), str(variables), secure)


def credentials(instance: Instance, cid: int, wanted: Wanted, found: Mapping[str, Part]) -> list[bytes]:
    """Texts of SMBIOS type 11, from which the guest's systemd has its credentials (systemd.io VM_INTERFACE)."""
    given = {
        "system.hostname": instance.name.encode(),
        "system.machine_id": instance.uuid.replace("-", "").encode(),
    }
    if cid:
        given["vmm.notify_socket"] = notify.credential().encode()
    if wanted.key:
        given["ssh.authorized_keys.root"] = wanted.key.encode()
    given |= {name: bytes.fromhex(data) for name, data in container.credentials(instance.config).items()}
    if lines := mounts.table(found):
        given[mounts.CREDENTIAL] = given.get(mounts.CREDENTIAL, b"") + lines
    texts = [f"io.systemd.credential.binary:{name}={base64.b64encode(data).decode()}" for name, data in given.items()]
    if more := instance.config.get("boot.kernel_command"):
        texts += [f"io.systemd.{who}.kernel-cmdline-extra={more}" for who in ("stub", "boot")]
    return [text.encode() for text in texts]


def unit_properties(instance: Instance, spec: MachineSpec) -> Properties:
    """QEMU becomes its main process; see the launcher. It is asked to power its guest off before it is told to end."""
    argv = [LAUNCHER, str(spec.path)]
    found = parts.load(spec.parts)
    beside = list(helpers.of_instance(instance, found))
    timeout = max(1, get_int(instance.config, "boot.host_shutdown_timeout") * container.SECOND)
    return {
        "Description": Variant("s", f"Virtual machine {instance.name}"),
        "Slice": Variant("s", "syscont.slice"),
        "DefaultDependencies": Variant("b", False),
        "Requires": Variant("as", [container.TARGET]),
        "Wants": Variant("as", beside),
        "After": Variant("as", [container.TARGET, *beside]),
        "AddRef": Variant("b", True),
        "Type": Variant("s", "notify"),
        "NotifyAccess": Variant("s", "all"),
        "ExecStart": Variant("a(sasb)", [[LAUNCHER, argv, False]]),
        "ExecStop": Variant("a(sasb)", [[LAUNCHER, [LAUNCHER, "--stop", str(spec.path)], True]]),
        "ExecStopPost": Variant("a(sasb)", [[LAUNCHER, [LAUNCHER, "--give-back", instance.uuid], True]]),
        **_borrowing(instance, spec, found),
        "SyslogIdentifier": Variant("s", instance.name),
        "KeyringMode": Variant("s", "private"),
        "TimeoutStartUSec": Variant("t", container.INFINITY),
        "TimeoutStopUSec": Variant("t", timeout),
        "KillMode": Variant("s", "mixed"),
        "DevicePolicy": Variant("s", "closed"),
        **device_policy(found.values()),
        **io_properties(instance.devices),
        **limits.start_properties({}),
        **live_properties(instance.config),
    }


def _borrowing(instance: Instance, spec: MachineSpec, found: Mapping[str, Part]) -> Properties:
    """What the machine has of the host's hardware is lent to it before it starts."""
    if not parts.functions(found):
        return {}
    named = parts.functions({name: part for name, part in found.items() if not virtual.is_virtual(part)})
    commands = container.borrowing(instance, spec.virtual)
    if named:
        commands.append(lending.command("take", instance.uuid, instance.reference, *lending.pairs(named)))
    return container.first(commands) | {"LimitMEMLOCK": Variant("t", vfio.locked_memory(spec.most_memory))}


def live_properties(config: Mapping[str, str]) -> Properties:
    """What may be set on a running unit, too. Only chosen processors bind the whole of QEMU."""
    _, pins = processors_of(config)
    kept = {key: value for key, value in config.items() if key not in _ABSENT}
    return limits.live_properties(kept, frozenset(cpu for pin in pins for cpu in pin))


def device_policy(found: Iterable[Part]) -> Properties:
    found = list(found)
    allowed = [kvm.DEVICE, "/dev/net/tun", VHOST_NET, VHOST_VSOCK, *parts.device_nodes(found)]
    allowed += [f"char-{MACVTAP}"] if any("request" in part.netdev for part in found) else []
    allowed += vfio.allowed() if any(part.passed for part in found) else []
    return {"DeviceAllow": Variant("a(ss)", [[path, "rwm"] for path in allowed])}
