# SPDX-License-Identifier: Apache-2.0
"""The machine that a guest sees: q35 with virtio devices, as options of QEMU's (qemu(1), qemu-qmp-ref(7)).

What is there from the beginning has fixed places on the root bus. Disks and interfaces, which come and go, have a port
of PCI Express each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sysd.model.keys.machine import HOST
from sysd.runtime.vm import processors, vfio
from sysd.runtime.vm.board import Board, inherited
from sysd.runtime.vm.spec import sockets_of

PORTS = 24
"""Devices that can come and go, at most."""
SPARE = 4
"""Places for those that come, as LXD has them."""
_PORTS_AT = 0x10
USB = "usb0"
AGENT_PORT = "org.qemu.guest_agent.0"
_FIXED = ("serial0", "rng0", "balloon0", "vsock0", "mem0", USB)
_PLACES = {name: f"0x{number:x}" for number, name in enumerate(_FIXED, 4)}
_USB_PORTS = 8
"""Of each of the two speeds, as LXD has them."""
OF_LINK = ("ifname", "request")
"""Of a part's netdev what is not QEMU's: the name of a link, and the request that makes it if it is no tap."""
MIB = 1 << 20
MODEL = "q35"


@dataclass(frozen=True, slots=True)
class Firmware:
    """UEFI: code and variables are files, kept one beside the other; secure: it runs what is signed only."""

    code: str
    variables: str
    secure: bool


@dataclass(frozen=True, slots=True)
class Kernel:
    """A guest's kernel that is started without firmware."""

    kernel: str
    initrd: str
    command: str


@dataclass(frozen=True, slots=True)
class Machine:
    """memory is in bytes. cpus are there at the start, most_cpus at most. boot: how it starts. credentials: texts of
    SMBIOS type 11. cid: of vsock, 0 for none. accelerated: by KVM. extra: further options, by the administrator. model:
    QEMU's name of the machine; plugged: processors beyond cpus that one whose memory was kept had got. usb: it has a
    controller for such devices. iommufd: see sysd.runtime.vm.vfio; processor: see sysd.runtime.vm.processors."""

    uuid: str
    name: str
    memory: int
    most_memory: int
    hugepages: bool
    cpus: int
    most_cpus: int
    boot: Firmware | Kernel
    accelerated: bool
    credentials: Sequence[bytes] = ()
    cid: int = 0
    vhost_net: bool = False
    extra: Sequence[str] = ()
    model: str = MODEL
    plugged: Sequence[Mapping[str, Any]] = ()
    usb: bool = False
    iommufd: bool = False
    processor: str = HOST


@dataclass(frozen=True, slots=True)
class Part:
    """What one device of an instance's is made of, as QMP's blockdev-add, netdev_add and device_add take it. port: from
    PORTS on it is on none. files, by name of a node or of a property of the device's: what is opened for it, and
    whether to write; memory: the same of data, in hex, that only QEMU is to see. sockets are character devices and
    what they are connected to. tpm: the one of them behind a TPM. served: of what a unit beside the machine has for
    it (sysd.runtime.vm.helpers). passed: the PCI function of the host's that it is (sysd.runtime.vm.pci)."""

    port: int
    device: dict[str, Any]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    netdev: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)
    sockets: dict[str, str] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)
    tpm: str = ""
    served: dict[str, str] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)

    def same(self, other: Part | None) -> bool:
        """Whether both are of one device; when firmware tries it, and what is in memory, counts at the next start."""
        return other is not None and _lasting(self) == _lasting(other)

    def place(self) -> dict[str, Any]:
        """The device where it is."""
        return self.device | ({"bus": port(self.port)} if self.port < PORTS else {})


def _lasting(part: Part) -> Part:
    return replace(part, device={key: value for key, value in part.device.items() if key != "bootindex"}, memory={})


def build(machine: Machine, parts: Mapping[str, Part]) -> Board:
    board = Board()
    _basics(board, machine)
    _channels(board, machine)
    _boot(board, machine)
    _virtio(board, machine)
    _places(board, parts.values())
    if machine.iommufd and any(part.passed for part in parts.values()):
        board.add("object", vfio.backend(str(board.hold("file", path=vfio.IOMMU, write=True))))
    for part in parts.values():
        _part(board, part, vhost_net=machine.vhost_net, iommufd=machine.iommufd)
    for text in machine.credentials:
        number = board.hold("memory", data=text.hex())
        board.add("smbios", f"type=11,path={inherited(number)}")
    board.arguments += machine.extra
    return board


def _basics(board: Board, machine: Machine) -> None:
    secure = isinstance(machine.boot, Firmware) and machine.boot.secure
    board.add("name", f"guest={machine.name},debug-threads=on")
    board.add("uuid", machine.uuid)
    flash = ",pflash0=firmware,pflash1=variables" if isinstance(machine.boot, Firmware) else ""
    smm = "on" if secure else "off"
    board.add("machine", f"{machine.model},usb=off,sata=off,dump-guest-core=off,smm={smm},memory-backend=ram{flash}")
    board.add("accel", "kvm" if machine.accelerated else "tcg,thread=multi,tb-size=512")
    board.add("cpu", processors.option(machine.processor, accelerated=machine.accelerated))
    board.add("smp", f"{machine.cpus},maxcpus={machine.most_cpus},sockets=1,cores={machine.most_cpus},threads=1")
    for processor in machine.plugged:
        board.add("device", dict(processor))
    growth = machine.most_memory - machine.memory
    most = f",maxmem={machine.most_memory // MIB}M" if growth else ""
    board.add("m", f"{machine.memory // MIB}M{most}")
    board.add("object", _memory("ram", machine.memory, hugepages=machine.hugepages))
    board.add("nodefaults")
    board.add("no-user-config")
    board.add("display", "none")
    board.add("S")
    board.add("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
    board.add("rtc", "base=utc,driftfix=slew")
    board.add("global", "ICH9-LPC.disable_s3=1")
    board.add("global", "ICH9-LPC.disable_s4=1")


def _memory(name: str, size: int, *, hugepages: bool) -> dict[str, Any]:
    """Shared, so that what serves files to the guest can have it, too."""
    found: dict[str, Any] = {"qom-type": "memory-backend-memfd", "id": name, "size": size, "share": True}
    return found | ({"hugetlb": True} if hugepages else {})


def _channels(board: Board, machine: Machine) -> None:
    qmp, control, agent = map(str, sockets_of(machine.uuid))
    for name, path in (("qmp", qmp), ("control", control)):
        board.listen(name, path)
        board.add("mon", f"chardev={name},mode=control")
    board.add("chardev", f"socket,id=console,fd={board.hold('stream', hand='console')}")
    board.add("serial", "chardev:console")
    board.add("device", {**_fixed("virtio-serial-pci", "serial0"), "max_ports": 31})
    board.listen("agent", agent)
    board.add("device", {"driver": "virtserialport", "bus": "serial0.0", "chardev": "agent", "id": "agent0",
                         "name": AGENT_PORT})  # fmt: skip


def _boot(board: Board, machine: Machine) -> None:
    if isinstance(machine.boot, Kernel):
        for option, path in (("kernel", machine.boot.kernel), ("initrd", machine.boot.initrd)):
            if path:
                board.add(option, inherited(board.hold("file", path=path)))
        board.add("append", machine.boot.command)
        return
    _flash(board, "firmware", machine.boot.code, write=False)
    _flash(board, "variables", machine.boot.variables, write=True)
    if machine.boot.secure:
        board.add("global", "driver=cfi.pflash01,property=secure,value=on")


def _flash(board: Board, name: str, path: str, *, write: bool) -> None:
    file = {"driver": "file", "filename": board.file(path, write=write)}
    board.add("blockdev", {"driver": "raw", "node-name": name, "read-only": not write, "file": file})


def _virtio(board: Board, machine: Machine) -> None:
    board.add("object", {"qom-type": "rng-builtin", "id": "random"})
    board.add("device", {**_fixed("virtio-rng-pci", "rng0"), "rng": "random"})
    board.add("device", {**_fixed("virtio-balloon-pci", "balloon0"), "free-page-reporting": True})
    if machine.usb:
        board.add("device", _fixed("qemu-xhci", USB) | {"p2": _USB_PORTS, "p3": _USB_PORTS})
    if machine.cid:
        number = board.hold("file", path="/dev/vhost-vsock", write=True)
        board.add("device", {**_fixed("vhost-vsock-pci", "vsock0"), "guest-cid": machine.cid, "vhostfd": str(number)})
    if growth := machine.most_memory - machine.memory:
        board.add("object", _memory("more", growth, hugepages=machine.hugepages) | {"reserve": False})
        board.add("device", {**_fixed("virtio-mem-pci", "mem0"), "memdev": "more", "requested-size": 0})


def _places(board: Board, parts: Iterable[Part]) -> None:
    """Ports for what is there and some more, as each takes its time. They are beside the command line, which is long
    enough to read."""
    used = max((part.port + 1 for part in parts if part.port < PORTS), default=0)
    count = min(PORTS, used + SPARE)
    board.add("readconfig", inherited(board.hold("memory", data=_ports(count).encode().hex())))


def _ports(count: int) -> str:
    return "".join(
        f'[device "{port(number)}"]\n  driver = "pcie-root-port"\n  bus = "pcie.0"\n  chassis = "{number + 1}"\n'
        f'  addr = "0x{_PORTS_AT + number // 8:x}.0x{number % 8:x}"\n  multifunction = "on"\n'
        for number in range(count)
    )


def _fixed(driver: str, name: str) -> dict[str, Any]:
    return {"driver": driver, "id": name, "bus": "pcie.0", "addr": _PLACES[name]}


def port(number: int) -> str:
    return f"port{number}"


def _part(board: Board, part: Part, *, vhost_net: bool = False, iommufd: bool = False) -> None:
    opened = {name: board.file(path, write=write) for name, (path, write) in part.files.items()}
    opened |= {name: board.memory(data) for name, data in part.memory.items()}
    for node in part.nodes:
        file = opened.pop(node["node-name"], "")
        board.add("blockdev", node | ({"filename": file} if file else {}))
    if part.netdev:
        board.add("netdev", _netdev(board, part.netdev, vhost_net))
    for name, path in part.sockets.items():
        board.add("chardev", f"socket,id={name},fd={board.hold('connect', path=path)}")
    if part.tpm:
        board.add("tpmdev", f"emulator,id={part.tpm},chardev={part.tpm}")
    if part.passed:
        opened |= _function(board, part.passed["address"], iommufd)
    board.add("device", part.place() | opened)


def _function(board: Board, address: str, iommufd: bool) -> dict[str, Any]:
    return vfio.by_descriptors(str(board.hold("vfio", name=address))) if iommufd else vfio.by_group(address)


def _netdev(board: Board, netdev: Mapping[str, Any], vhost_net: bool) -> dict[str, Any]:
    """A link of the launcher's making."""
    found = {key: value for key, value in netdev.items() if key not in OF_LINK}
    kind, data = ("macvtap", netdev["request"]) if "request" in netdev else ("tap", "")
    found["fd"] = str(board.hold(kind, name=netdev["ifname"], data=data))
    if vhost_net:
        found |= {"vhost": True, "vhostfd": str(board.hold("file", path="/dev/vhost-net", write=True))}
    return found
