# SPDX-License-Identifier: Apache-2.0
"""VM hosts: QEMU in software emulation, a kernel of their own, everything a machine has."""

import base64
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from . import apt, disk, emulator, kernel, qmp, rootfs, ssh
from .command import HostError
from .host import Host, Wire

# Two threads of one core, for core scheduling; svm, so that the guest has a /dev/kvm that works. What is plugged in
# while it runs goes to the usb controller, and to port1 where no card is in it.
_HARDWARE = {
    "machine": ["q35"],
    "accel": ["tcg,thread=multi,tb-size=1024"],
    "cpu": ["max,+svm"],
    "smp": ["2,sockets=1,cores=1,threads=2"],
    "m": ["4096"],
    "display": ["none"],
    "netdev": ["hubport,id=spare,hubid=1"],
    "device": ["virtio-rng-pci", "pcie-root-port,id=port1"],
}
_SRIOV = {"device": ["igb,netdev=spare,bus=port1"]}
# Where a cable to another host can be plugged in.
_JOINED = ("vms", "incus-vms")
_SOCKET = {"netdev": ["hubport,id=socket,hubid=2"], "device": ["virtio-net-pci,netdev=socket,romfile=,mac={mac}"]}
# USB comes and goes; graphics cards can only be there from the beginning.
_DRIVEN_BY_DEBIAN = {"device": ["qemu-xhci,id=usb", "bochs-display", "virtio-gpu-pci"]}
# Whose functions can be lent to machines on them: behind an IOMMU, which tells those on an old bus not apart.
_LENDING = ("iommu", "hardware-vms", "ovn-cards")
_IOMMU = {
    "device": [
        "intel-iommu,intremap=on",
        "pcie-root-port,id=port2,chassis=2", "pcie-pci-bridge,id=old,bus=port2",
        "virtio-rng-pci,bus=old,addr=1", "virtio-rng-pci,bus=old,addr=2",
    ]
}  # fmt: skip
# Given by our own kernel, or by the initrd of Debian's.
_ADDRESS = "ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:off"


def _options(hardware: dict[str, list[str]]) -> list[str]:
    return [word for key, values in hardware.items() for one in values for word in (f"-{key}", one)]


class VmHost(Host):
    kind: ClassVar[str] = "vm"
    serves: ClassVar[frozenset[str]] = frozenset(
        (
            "needs_apparmor needs_controllers needs_kvm needs_smt needs_sriov needs_quotas needs_hardware"
            " needs_power_cut needs_iommu needs_ovn"
        ).split()
    )
    slowness: ClassVar[float] = 10.0
    boot_limit: ClassVar[float] = 240.0

    _connection: ssh.Connection | None = None

    @classmethod
    def prepare(cls, recipe: rootfs.Recipe) -> None:
        apt.ensure("e2fsprogs", "openssh-client", "qemu-utils")
        emulator.command()
        disk.image(recipe)
        kernel.of(recipe)
        ssh.key()

    def _prepare(self) -> None:
        self.prepare(self.recipe)
        self._machine_id = uuid.uuid4().hex
        self._hardware_address = "02:" + uuid.uuid4().bytes[:5].hex(":")
        below = disk.image(self.recipe)
        if self.base:
            if not isinstance(self.base, VmHost) or self.base.running():
                raise HostError(f"{self.base.name} can't be the base of a VM host now")
            below = self.base.directory / "disk.qcow2"
        disk.on_top_of(below, self.directory / "disk.qcow2")

    def _start(self) -> None:
        port = ssh.free_port()
        with (self.directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._qemu(port), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=emulator.environment(), start_new_session=True,
            )  # fmt: skip
        self.record.watch(self._process.pid)
        self._connection = ssh.Connection(self.directory, port)
        self._wait_for_ssh(self._connection, time.monotonic() + self.boot_limit)
        for wire in self.wires:
            self._plug_in(wire)

    def _wait_for_ssh(self, connection: ssh.Connection, deadline: float) -> None:
        while not connection.is_open():
            if not self.running() or time.monotonic() > deadline:
                logs = (self.directory / name for name in ("qemu.log", "ssh.log"))
                said = "".join(log.read_text(errors="replace")[-1000:] for log in logs)
                raise HostError(f"{self.name} did not come up. QEMU and ssh said:\n{said}")
            connection.try_to_open()
            time.sleep(0.2)

    def _qemu(self, port: int) -> list[str]:
        restrict = "off" if self.uplink else "on"
        console = f"file,id=console,append=on,path={self.directory}/console"
        drive = f"file={self.directory}/disk.qcow2,if=virtio,format=qcow2,discard=unmap"
        network = f"user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"
        boot = kernel.of(self.recipe)
        return [
            *emulator.command(), "-nodefaults", "-no-user-config", "-name", self.name,
            *_options(_IOMMU if self.recipe.variant in _LENDING else {}),
            *_options(_HARDWARE), *_options(_DRIVEN_BY_DEBIAN if boot.initrd else _SRIOV),
            "-kernel", str(boot.kernel), "-append", self._kernel_command_line(),
            *(["-initrd", str(boot.initrd)] if boot.initrd else []),
            "-drive", drive, "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
            *self._socket(),
            "-chardev", console, "-serial", "chardev:console", "-qmp", f"unix:{self._qmp},server=on,wait=off",
        ]  # fmt: skip

    def _socket(self) -> list[str]:
        hardware = _SOCKET if self.recipe.variant in _JOINED else {}
        return [word.format(mac=self._hardware_address) for word in _options(hardware)]

    @property
    def _qmp(self) -> Path:
        return self.directory / "qmp"

    def machine(self, command: str, **arguments: Any) -> Any:
        """Have QEMU do something to the machine while it runs, in the words of its protocol."""
        return qmp.ask(self._qmp, command, **arguments)

    def plug(self, name: str, driver: str, **properties: Any) -> None:
        """Put a device into the running machine, such as usb-kbd."""
        self.machine("device_add", id=name, driver=driver, **properties)

    def unplug(self, name: str) -> None:
        """Pull a device out, and wait until it is gone."""
        self.machine("device_del", id=name, until="DEVICE_DELETED")

    def _lay(self, wire: Wire) -> None:
        for end in (wire.left, wire.right):
            if not isinstance(end, VmHost) or end.wires or not end._socket():
                raise HostError(f"{end.name} can't be joined: it has a cable already, or is no VM host of {_JOINED}")
            end._plug_in(wire)

    def _plug_in(self, wire: Wire) -> None:
        """This end of a cable. What is sent while nobody is at the other is lost."""
        other, address = (wire.right, wire.addresses[0]) if self is wire.left else (wire.left, wire.addresses[1])
        near, far = ({"type": "unix", "path": str(end.directory / wire.link)} for end in (self, other))
        self.machine("netdev_add", type="dgram", id=wire.link, local=near, remote=far)
        self.machine("netdev_add", type="hubport", id="plug", hubid=2, netdev=wire.link)
        self.sh(
            f"cd /sys/class/net; grep -l {self._hardware_address} */address | cut -d/ -f1 |"
            f" xargs -I{{}} ip link set {{}} name {wire.link}; "
            f"ip address add {address} dev {wire.link}; ip link set {wire.link} up"
        )

    def _kernel_command_line(self) -> str:
        public = base64.b64encode(ssh.public_key().encode()).decode()
        words = [
            "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1",
            _ADDRESS,
            f"systemd.hostname={self.name}",
            f"systemd.machine_id={self._machine_id}",
            f"systemd.set_credential_binary=ssh.authorized_keys.root:{public}",
        ]
        if self.uplink:
            words.append("systemd.set_credential=network.dns:10.0.2.3")
        return " ".join(words)

    def _command(self, argv: Sequence[str], user: str | None, tty: bool) -> list[str]:
        if not self._connection:
            raise HostError(f"{self.name} is off")
        return self._connection.command(self._environment(argv, user), tty)

    def console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")

    def power_cut(self) -> None:
        super().power_cut()
        if self._connection:
            self._connection.close()
            self._connection = None
