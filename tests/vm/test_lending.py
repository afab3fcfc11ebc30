# SPDX-License-Identifier: Apache-2.0
"""PCI functions of the host's that machines have: which are meant, which can't be had, and what is noted of them. The
host's /sys is a tree of files here; a kernel's is in vm-tests/test_vm_pci.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sysd.model import kinds
from sysd.model.devices.check import check_together
from sysd.model.errors import FailedError, InvalidError
from sysd.model.instance import Instance, Kind
from sysd.runtime import sysfs
from sysd.runtime.vm import hardware, in_use, lending, parts, pci, vfio
from sysd.runtime.vm.board import Board
from sysd.runtime.vm.hardware import Part

UUID, OTHER = "b6e9a2f4-1111-4222-8333-444455556666", "b6e9a2f4-1111-4222-8333-444455557777"
NIC, CARD, SOUND, DISK, BRIDGE = "0000:02:00.0", "0000:01:00.0", "0000:01:00.1", "0000:03:00.0", "0000:00:01.0"
Devices = Mapping[str, Mapping[str, str]]


class Host:
    """Functions are below sys/devices, as kernels have them."""

    def __init__(self, root: Path) -> None:
        self.sys, self.proc = root / "sys", root / "proc"
        for name in ("bus/pci/devices", "bus/pci/drivers/vfio-pci", "class/net", "class/block", "class/drm"):
            (self.sys / name).mkdir(parents=True)
        (self.proc / "net").mkdir(parents=True)
        (self.proc / "self").mkdir()

    def function(
        self, address: str, driver: str, group: int | None, kind: str = "0x020000", product: str = "0x10c9"
    ) -> Path:
        place = self.sys / "devices/pci0000:00" / address
        place.mkdir(parents=True)
        for name, text in (("class", kind), ("vendor", "0x8086"), ("device", product), ("driver_override", "(null)")):
            (place / name).write_text(f"{text}\n")
        (self.sys / "bus/pci/devices" / address).symlink_to(place)
        if driver:
            (self.sys / "bus/pci/drivers" / driver).mkdir(exist_ok=True)
            (place / "driver").symlink_to(self.sys / "bus/pci/drivers" / driver)
        if group is not None:
            members = self.sys / f"kernel/iommu_groups/{group}"
            (members / "devices").mkdir(parents=True, exist_ok=True)
            (members / "devices" / address).symlink_to(place)
            (place / "iommu_group").symlink_to(members)
        return place

    def child(self, function: Path, kind: str, name: str) -> Path:
        """A device of a class that a function has."""
        place = function / kind / name
        place.mkdir(parents=True)
        (self.sys / "class" / kind / name).symlink_to(place)
        return place


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(sysfs, "SYS", found.sys)
    monkeypatch.setattr(in_use, "PROC", found.proc)
    monkeypatch.setattr(lending, "LENT_DIR", tmp_path / "lent")
    found.function(BRIDGE, "pcieport", 1, "0x060400")
    found.function(CARD, "amdgpu", 1, "0x030000", "0x7480")
    found.function(SOUND, "snd_hda_intel", 1, "0x040300", "0xab30")
    found.function(NIC, "igb", 2)
    found.function(DISK, "nvme", 3, "0x010802", "0x5845")
    return found


def functions(
    devices: Devices, links: Mapping[str, str] | None = None, had: Devices | None = None
) -> dict[str, dict[str, str]]:
    return pci.functions(devices, links or {}, had or {})


# which are meant


def test_a_function_is_named_by_its_address(host: Host) -> None:
    assert functions({"lan": {"type": "pci", "address": "02:00.0"}}) == {"lan": {"address": NIC}}
    with pytest.raises(FailedError, match=r"device lan: the host has no PCI function 0000:07:00.0"):
        functions({"lan": {"type": "pci", "address": "07:00.0"}})


def test_without_an_iommu_nothing_is_lent(host: Host) -> None:
    host.function("0000:04:00.0", "igb", None)
    with pytest.raises(FailedError, match="behind no IOMMU that is in use") as caught:
        functions({"lan": {"type": "pci", "address": "04:00.0"}})
    assert "intel_iommu=on" in caught.value.hint


@pytest.mark.parametrize(
    "options", [{}, {"pci": "01:00.0"}, {"vendorid": "8086"}, {"productid": "7480"}, {"id": "0"}], ids=str
)
def test_a_card_comes_with_its_sound(host: Host, options: dict[str, str]) -> None:
    host.child(pci.folder(CARD).resolve(), "drm", "card0").joinpath("device").symlink_to(pci.folder(CARD).resolve())
    found = functions({"gpu": {"type": "gpu", **options}})
    assert {name: one["address"] for name, one in found.items()} == {"gpu": CARD, "gpu:1": SOUND}


def test_one_card_is_meant(host: Host) -> None:
    host.function("0000:05:00.0", "i915", 5, "0x030000", "0x0001")
    with pytest.raises(FailedError, match=r"it may be any of 0000:01:00.0, 0000:05:00.0") as caught:
        functions({"gpu": {"type": "gpu"}})
    assert "pci names it" in caught.value.hint
    for options in ({"vendorid": "ffff"}, {"pci": "02:00.0"}, {"id": "7"}):
        with pytest.raises(FailedError, match=r"no such graphics card|no graphics card of that number"):
            functions({"gpu": {"type": "gpu", **options}})


def test_what_is_named_by_what_goes_with_it_stays_what_it_was(host: Host) -> None:
    """A card has no number, and an interface no name, while a machine has them."""
    link = host.child(pci.folder(NIC).resolve(), "net", "eth7")
    (link / "device").symlink_to(pci.folder(NIC).resolve())
    devices, links = {"lan": {"type": "nic", "nictype": "physical"}}, {"lan": "eth7"}
    had = functions(devices, links)
    assert had["lan"]["address"] == NIC
    (host.sys / "class/net/eth7").unlink()
    assert functions(devices, links, had) == had
    with pytest.raises(FailedError, match="device lan: the host has no link eth8"):
        functions(devices, {"lan": "eth8"}, had)
    with pytest.raises(FailedError, match="device lan: the host has no link eth7"):
        functions(devices, links)


def test_a_link_of_no_hardware_is_no_function(host: Host) -> None:
    place = host.sys / "devices/virtual/net/br0/device"
    place.mkdir(parents=True)
    (host.sys / "class/net/br0").symlink_to(place.parent)
    with pytest.raises(FailedError, match="device lan: link br0 is no PCI function"):
        functions({"lan": {"type": "nic", "nictype": "physical"}}, {"lan": "br0"})


def test_one_address_is_of_one_device() -> None:
    card, function = {"type": "gpu", "pci": "01:00.0"}, {"type": "pci", "address": "0000:01:00.0"}
    with pytest.raises(InvalidError, match=r"devices a and b have the same PCI address, 0000:01:00.0"):
        check_together({"a": card, "b": function})


@pytest.mark.parametrize(
    "options",
    [{"type": "pci", "address": NIC}, {"type": "gpu"}, {"type": "nic", "nictype": "physical", "parent": "eth7"}],
)
def test_hardware_has_no_memory_that_is_kept(options: dict[str, str]) -> None:
    one = Instance(UUID, "vm1", "", 1 << 20, kind=Kind.VM, devices={"one": options})
    kinds.check(one, one)
    stateful = replace(one, config={"migration.stateful": "true"})
    with pytest.raises(InvalidError, match="device one: the state of hardware can't be kept"):
        kinds.check(stateful, stateful)


# what can't be had


def test_what_the_host_is_reached_by_is_in_use(host: Host) -> None:
    host.child(pci.folder(NIC).resolve(), "net", "eth7")
    assert in_use.why(NIC) == ""
    route = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n{} {} 010200C0 3 0 0 0 {} 0 0 0\n"
    (host.proc / "net/route").write_text(route.format("eth7", "000200C0", "00FFFFFF"))
    assert in_use.why(NIC) == ""
    (host.proc / "net/route").write_text(route.format("eth7", "00000000", "00000000"))
    assert in_use.why(NIC) == "the host's default route is by its interface eth7"
    (host.proc / "net/route").write_text(route.format("eth0", "00000000", "00000000"))
    assert in_use.why(NIC) == ""
    none = "0" * 32
    (host.proc / "net/ipv6_route").write_text(f"{none} 00 {none} 00 fe80{'0' * 27}1 00000400 1 0 00000003 eth7\n")
    assert "default route" in in_use.why(NIC)


def test_a_port_of_a_bridge_is_in_use(host: Host) -> None:
    (host.child(pci.folder(NIC).resolve(), "net", "eth7") / "upper_br0").touch()
    assert in_use.why(NIC) == "its interface eth7 is part of br0"


def test_what_is_mounted_is_in_use(host: Host) -> None:
    disk = host.child(pci.folder(DISK).resolve(), "block", "nvme0n1")
    (disk / "dev").write_text("259:0\n")
    part = disk / "nvme0n1p1"
    part.mkdir()
    (part / "dev").write_text("259:1\n")
    (part / "partition").write_text("1\n")
    line = "22 1 {} / {} rw,relatime shared:1 - ext4 {} rw\n"
    (host.proc / "self/mountinfo").write_text(line.format("8:1", "/", "/dev/none"))
    assert in_use.why(DISK) == ""
    (host.proc / "self/mountinfo").write_text(line.format("259:1", "/srv", "/dev/none"))
    assert in_use.why(DISK) == "disk nvme0n1p1 is mounted at /srv"
    (host.proc / "self/mountinfo").write_text("")
    (part / "holders/dm-0").mkdir(parents=True)
    assert in_use.why(DISK) == "disk nvme0n1p1 is part of dm-0"


def test_a_disk_that_has_several_ways_to_it_is_in_use(host: Host) -> None:
    """None of them is above the disk itself."""
    host.child(pci.folder(DISK).resolve(), "block", "nvme2c0n3")
    head = host.sys / "devices/virtual/nvme-subsystem/nvme2n3"
    head.mkdir(parents=True)
    (head / "dev").write_text("259:7\n")
    (host.sys / "class/block/nvme2n3").symlink_to(head)
    (host.proc / "self/mountinfo").write_text("22 1 259:7 / /srv rw shared:1 - ext4 /dev/none rw\n")
    assert in_use.why(DISK) == "disk nvme2n3 is mounted at /srv"


def test_a_bridge_and_what_has_others_below_it_stay(host: Host) -> None:
    assert "it is a bridge" in in_use.why(BRIDGE)
    (pci.folder(NIC) / "sriov_numvfs").write_text("7\n")
    assert in_use.why(NIC) == "it has 7 virtual functions, which would go with it"


def test_a_group_goes_as_a_whole(host: Host) -> None:
    """But for bridges, and what nobody drives."""
    with pytest.raises(FailedError, match=r"IOMMU group 1: 0000:01:00.1 .8086:ab30, snd_hda_intel.") as caught:
        lending._claim(UUID, "vm1", {"gpu": CARD})
    assert "give the machine these, too" in caught.value.hint
    assert not lending.loans(UUID)
    (pci.folder(SOUND) / "driver").unlink()
    claim(UUID, "vm1", {"gpu": CARD})


def claim(uuid: str, reference: str, wanted: dict[str, str]) -> None:
    (lending.LENT_DIR / uuid).mkdir(parents=True, exist_ok=True)
    lending._claim(uuid, reference, wanted)


def test_one_machine_has_a_function_and_what_is_in_its_group(host: Host) -> None:
    claim(UUID, "vm1", {"lan": NIC})
    with pytest.raises(FailedError, match=r"device net: vm1 has PCI function 0000:02:00.0") as caught:
        claim(OTHER, "vm2", {"net": NIC})
    assert caught.value.hint == "by its device lan"
    claim(UUID, "vm1", {"sound": SOUND, "gpu": CARD})
    (pci.folder(SOUND) / "driver").unlink()
    (lending.LENT_DIR / UUID / CARD).unlink()
    with pytest.raises(FailedError, match=r"vm1 has PCI function 0000:01:00.1, of the same IOMMU group 1"):
        claim(OTHER, "vm2", {"gpu": CARD})
    assert not lending.loans(OTHER)


def test_what_a_function_was_at_first_is_noted(host: Host) -> None:
    (pci.folder(NIC) / "driver_override").write_text("mine\n")
    claim(UUID, "vm1", {"lan": NIC})
    first = lending.loans(UUID)
    assert first == {NIC: lending.Loan("vm1", "lan", "igb", "mine")}
    (pci.folder(NIC) / "driver").unlink()
    (pci.folder(NIC) / "driver").symlink_to(host.sys / "bus/pci/drivers/vfio-pci")
    claim(UUID, "vm1", {"lan": NIC})
    assert lending.loans(UUID) == first


def test_without_the_kernels_driver(host: Host) -> None:
    (host.sys / "bus/pci/drivers/vfio-pci").rmdir()
    with pytest.raises(FailedError, match="no vfio-pci") as caught:
        claim(UUID, "vm1", {"lan": NIC})
    assert caught.value.hint == "modprobe vfio-pci"


# what QEMU gets


def built(host: Host, *, iommufd: bool) -> Board:
    given = parts.Given(UUID, parts.Root("/image", "/overlay"), {})
    found = parts.build({"root": {"type": "disk", "path": "/"}, "gpu": {"type": "gpu"}}, given, {})
    machine = hardware.Machine(
        UUID, "vm1", 1 << 29, 1 << 29, False, 1, 1, hardware.Kernel("/k", "", ""), False, iommufd=iommufd
    )
    return hardware.build(machine, found)


def options(board: Board, driver: str) -> list[dict[str, object]]:
    objects = [json.loads(text) for text in board.arguments if text.startswith("{")]
    return [one for one in objects if driver in (one.get("driver"), one.get("qom-type"))]


def test_qemu_gets_descriptors(host: Host) -> None:
    board = built(host, iommufd=True)
    held = {one.fd: (one.kind, one.path or one.name) for one in board.descriptors}
    (backend,) = options(board, "iommufd")
    assert held[int(str(backend["fd"]))] == ("file", "/dev/iommu")
    card, sound = options(board, "vfio-pci")
    assert held[int(str(card["fd"]))] == ("vfio", CARD)
    assert held[int(str(sound["fd"]))] == ("vfio", SOUND)
    assert (card["id"], card["bus"], sound["id"], sound["bus"]) == ("dev-gpu", "port1", "dev1-gpu", "port2")
    assert card["iommufd"] == backend["id"]


def test_qemu_looks_groups_up(host: Host) -> None:
    board = built(host, iommufd=False)
    assert not options(board, "iommufd")
    assert [one["sysfsdev"] for one in options(board, "vfio-pci")] == [f"/dev/vfio/{CARD}", f"/dev/vfio/{SOUND}"]
    assert "vfio" not in {one.kind for one in board.descriptors}


def test_another_function_is_another_device(host: Host) -> None:
    def made(address: str) -> Part:
        given = parts.Given(UUID, parts.Root("/image", "/overlay"), {})
        return parts.build({"one": {"type": "pci", "address": address}}, given, {})["one"]

    assert made(NIC).same(made("02:00.0"))
    assert not made(NIC).same(made(DISK))


def test_memory_that_may_be_locked_is_all_there_can_be() -> None:
    assert vfio.locked_memory(1 << 32) == (1 << 32) + (1 << 30)
