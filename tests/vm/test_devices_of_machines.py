# SPDX-License-Identifier: Apache-2.0
"""Devices of virtual machines: what may be one, what QEMU gets of it, and what serves it from beside."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sysd.model import cloudinit, kinds
from sysd.model.devices.check import check_device, check_together
from sysd.model.errors import FailedError, InvalidError, SyscontError
from sysd.model.instance import Instance, Kind
from sysd.runtime import sysfs
from sysd.runtime.vm import helpers, mounts, parts, seed, usb
from sysd.runtime.vm.board import Board
from sysd.runtime.vm.hardware import PORTS, Part, _part

UUID = "b6e9a2f4-1111-4222-8333-444455556666"
ROOT = {"type": "disk", "path": "/"}
TPM = {"type": "tpm"}
SEED = {"type": "disk", "source": "cloud-init:config"}
NIC = {"type": "nic", "nictype": "p2p", "hwaddr": "02:00:00:00:00:01"}
Devices = Mapping[str, Mapping[str, str]]


def instance(devices: Devices, kind: Kind = Kind.VM) -> Instance:
    own = {name: dict(options) for name, options in devices.items()}
    return Instance(UUID, "vm1", "", 1 << 20, kind=kind, devices=own)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIRTIOFSD", "SWTPM"):
        (tmp_path / name).touch()
        monkeypatch.setattr(helpers, name, str(tmp_path / name))


@pytest.fixture
def mouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bus/usb/devices/1-2"
    folder.mkdir(parents=True)
    (folder / "idVendor").write_text("0403\n")
    (folder / "idProduct").write_text("6001\n")
    plug(folder, 6)
    monkeypatch.setattr(sysfs, "SYS", tmp_path)
    return folder


def plug(folder: Path, number: int) -> None:
    (folder / "uevent").write_text(f"MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/{number:03}\n")


def build(devices: Devices, data: bytes = b"", had: Mapping[str, Part] | None = None) -> dict[str, Part]:
    root = parts.Root("/image", "/overlay")
    return parts.build({"root": ROOT, **devices}, parts.Given(UUID, root, {}, data), had or {})


def folder(path: Path, **options: str) -> dict[str, str]:
    return {"type": "disk", "source": str(path), "path": "/mnt", **options}


def arguments(part: Part) -> list[str]:
    board = Board()
    _part(board, part)
    return board.arguments


# what may be one


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Kind.CONTAINER, TPM, "for virtual machines"),
        (Kind.CONTAINER, SEED, "for virtual machines"),
        (Kind.CONTAINER, {"type": "pci", "address": "01:00.0"}, "a PCI device is for virtual machines"),
        (Kind.VM, {"type": "gpu", "mode": "0600"}, "mode is not for virtual machines"),
        (Kind.VM, {"type": "unix-char", "path": "/dev/null"}, "one: type unix-char is not for virtual machines"),
        (Kind.VM, {"type": "unix-block", "path": "/dev/sda"}, "one: type unix-block is not for virtual machines"),
        (Kind.VM, {"type": "unix-hotplug", "vendorid": "0403"}, "one: type unix-hotplug is not for virtual machines"),
        (Kind.VM, {"type": "nic", "nictype": "ipvlan"}, "one: nictype ipvlan is not for virtual machines"),
        (Kind.VM, {"type": "nic", "nictype": "routed"}, "one: nictype routed is not for virtual machines"),
        (Kind.VM, {"type": "nic", "nictype": "physical", "mtu": "1400"}, "mtu is not for the hardware itself"),
        (Kind.VM, {"type": "nic", "nictype": "sriov", "mtu": "1400"}, "mtu is not for the hardware itself"),
        (Kind.VM, {"type": "proxy", "listen": "tcp:127.0.0.1:80"}, "one: only proxies with nat=true"),
        (Kind.VM, {"type": "usb", "uid": "5"}, "uid is not for virtual machines"),
        (Kind.VM, {"type": "disk", "source": "/srv", "path": "/x", "shift": "true"}, "shift is not for disks"),
    ],
)
def test_devices_of_the_other_kind(kind: Kind, options: dict[str, str], message: str) -> None:
    one = instance({"one": options}, kind)
    with pytest.raises(SyscontError, match=message):
        kinds.check(replace(one, devices={}), one)


@pytest.mark.parametrize("options", [TPM, SEED, {"type": "usb", "vendorid": "0403"}])
def test_devices_of_machines(options: dict[str, str]) -> None:
    one = instance({"one": options})
    kinds.check(one, one)
    check_together(one.devices)


def test_a_machine_has_one_tpm() -> None:
    with pytest.raises(InvalidError, match="one and two have the same type"):
        check_together({"one": TPM, "two": TPM})


def test_the_seed_is_no_second_root() -> None:
    check_together({"root": ROOT, "seed": SEED})


# folders


@pytest.mark.usefixtures("programs")
def test_a_folder_is_served_from_beside(tmp_path: Path) -> None:
    one = instance({"share": folder(tmp_path)})
    found = build(one.devices)
    assert found["share"].served == {"source": str(tmp_path), "path": "/mnt"}
    chardev, connected, option, device = arguments(found["share"])
    assert (chardev, option) == ("-chardev", "-device")
    assert connected == "socket,id=fs1,fd=10"
    assert json.loads(device) == {"driver": "vhost-user-fs-pci", "id": "dev-share", "chardev": "fs1", "tag": "share",
                                  "bus": "port1"}  # fmt: skip
    ((unit, properties),) = helpers.of_instance(one, found).items()
    assert unit == "syscont-virtiofs@vm1.share.service"
    assert properties["BindsTo"].value == properties["Before"].value == [one.unit]
    assert [str(tmp_path), "/srv/share", False, 0] in properties["BindPaths"].value
    assert properties["RuntimeDirectory"].value == [f"syscont/vm/{UUID}.share"]


@pytest.mark.usefixtures("programs")
def test_what_the_guest_may_not_write_to_the_kernel_keeps_so(tmp_path: Path) -> None:
    one = instance({"share": folder(tmp_path, readonly="true", recursive="true")})
    (properties,) = helpers.of_instance(one, build(one.devices)).values()
    shown = [str(tmp_path), "/srv/share", False, 0x4000]
    assert shown in properties["BindReadOnlyPaths"].value
    assert [row[0] for row in properties["BindPaths"].value] == [f"/run/syscont/vm/{UUID}.share"]


def test_a_machine_has_its_own_disk_anyhow() -> None:
    """First, and by no name that something else has."""
    given = parts.Given(UUID, parts.Root("/image", "/overlay"), {}, b"")
    said = parts.build({"root": ROOT}, given, {})
    assert parts.build({}, given, {}) == said
    found = parts.build({"root": {"type": "tpm"}, "root0": {"type": "tpm"}}, given, {})
    (own,) = [name for name, part in found.items() if parts.is_own_disk(part)]
    assert own == "root1"
    assert found[own].device["bootindex"] == 1
    assert found[own].nodes == said["root"].nodes


@pytest.mark.usefixtures("programs")
def test_names_that_are_no_tags(tmp_path: Path) -> None:
    assert "a" * 36 in build({"a" * 36: folder(tmp_path)})
    with pytest.raises(InvalidError, match="36 letters at most"):
        build({"a" * 37: folder(tmp_path)})


def test_without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "VIRTIOFSD", str(tmp_path / "none"))
    monkeypatch.setattr(helpers, "SWTPM", str(tmp_path / "none"))
    with pytest.raises(FailedError, match="no virtiofsd") as caught:
        build({"share": folder(tmp_path)})
    assert caught.value.hint == "apt install virtiofsd"
    with pytest.raises(FailedError, match="no swtpm"):
        build({"tpm": TPM})


@pytest.mark.usefixtures("programs")
def test_another_source_is_another_device(tmp_path: Path) -> None:
    one, same, other = (build({"share": folder(path)})["share"] for path in (tmp_path, tmp_path, tmp_path.parent))
    assert one.same(same)
    assert not one.same(other)
    (loaded,) = parts.load({"share": json.loads(json.dumps(asdict(one)))}.copy()).values()
    assert one.same(loaded)


@pytest.mark.usefixtures("programs")
def test_guests_find_folders_in_a_table(tmp_path: Path) -> None:
    deep = {**folder(tmp_path), "path": "/mnt/a b/c"}
    found = build({"a": deep, "b": {**folder(tmp_path, readonly="true"), "path": "/mnt"}})
    assert mounts.table(found) == b"b /mnt virtiofs ro,nofail 0 0\na /mnt/a\\040b/c virtiofs rw,nofail 0 0\n"
    assert mounts.table(build({})) == b""


@pytest.mark.parametrize("text", ["/a\tb", "/a\\040b", '/"a"', "/'", "/#", "/ä"])
def test_paths_are_one_word_of_the_table(text: str) -> None:
    word = mounts._word(text)
    assert not set(" \t\n#\"'") & set(word)
    assert word.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


# TPMs


@pytest.mark.usefixtures("programs")
def test_a_tpm_is_made_from_beside() -> None:
    one = instance({"tpm": folder(Path("/tmp")), "chip": TPM})
    found = build(one.devices)
    assert found["chip"].port >= PORTS
    assert found["chip"].sockets != found["tpm"].sockets  # whatever a folder is called
    assert arguments(found["chip"]) == [
        "-chardev", "socket,id=tpm0,fd=10", "-tpmdev", "emulator,id=tpm0,chardev=tpm0", "-device",
        '{"driver":"tpm-crb","id":"dev-chip","tpmdev":"tpm0"}',
    ]  # fmt: skip
    properties = helpers.of_instance(one, found)["syscont-tpm@vm1.chip.service"]
    ((program, argv, _),) = properties["ExecStart"].value
    assert program == "/usr/bin/setpriv"
    assert f"--reuid={one.id_base}" in argv
    _, (source, place, *_) = properties["BindPaths"].value
    assert (source, place) == (f"/var/lib/syscont/instances/{UUID}/upper/tpm", "/srv/tpm")


# USB


def test_usb_devices_are_opened_for_qemu(mouse: Path) -> None:
    found = build({"mouse": {"type": "usb", "vendorid": "0403"}})
    part = found["mouse:001.006"]
    assert part.files == {"hostdevice": ("/dev/bus/usb/001/006", True)}
    assert arguments(part) == ["-add-fd", "fd=10,set=10", "-device",
                               '{"driver":"usb-host","id":"dev-mouse-001.006","bus":"usb0.0",'
                               '"hostdevice":"/dev/fdset/10"}']  # fmt: skip
    assert usb.held(found) == {"mouse:001.006": "/dev/bus/usb/001/006"}


def test_a_usb_device_that_was_plugged_in_anew_is_another(mouse: Path) -> None:
    devices = {"mouse": {"type": "usb", "vendorid": "0403"}}
    had = build(devices)
    plug(mouse, 7)
    found = build(devices, had=had)
    assert set(found) - set(had) == {"mouse:001.007"}
    assert usb.present(devices) == usb.held(found) != usb.held(had)


def test_usb_devices_that_are_not_there(mouse: Path) -> None:
    absent = {"type": "usb", "vendorid": "ffff"}
    assert set(build({"mouse": absent})) == {"root"}
    required = {"mouse": {**absent, "required": "true"}}
    with pytest.raises(FailedError, match="no such device"):
        build(required)
    assert usb.present(required) == {}


# what cloud-init is told


def read_disk(disk: bytes) -> dict[str, bytes]:
    """Files of an image, as ECMA-119 says where they are."""
    volume = disk[16 * 2048 : 17 * 2048]
    assert volume[:7] == b"\1CD001\1"
    assert volume[40:72].strip() == b"cidata"
    assert disk[17 * 2048 : 17 * 2048 + 7] == b"\xffCD001\1"
    (sectors,) = struct.unpack_from("<I", volume, 80)
    assert sectors * 2048 == len(disk)
    at, size = (struct.unpack_from("<I", volume, 156 + offset)[0] for offset in (2, 10))
    entries, found = disk[at * 2048 : at * 2048 + size], {}
    while length := entries[0]:
        start, size = (struct.unpack_from("<I", entries, offset)[0] for offset in (2, 10))
        name = entries[33 : 33 + entries[32]]
        if name not in (b"\0", b"\1"):
            found[name.removesuffix(b";1").decode()] = disk[start * 2048 : start * 2048 + size]
        entries = entries[length:]
    return found


@pytest.mark.parametrize("sizes", [(0,), (1, 2048, 2049), (64 << 10, 0, 5)])
def test_files_come_back_from_the_disk(sizes: tuple[int, ...]) -> None:
    files = {f"file-{number}": bytes([number + 1]) * size for number, size in enumerate(sizes)}
    assert read_disk(seed.image(files)) == files


def test_the_disk_has_what_cloud_init_is_told() -> None:
    one = replace(instance({"eth0": NIC}), config={"cloud-init.user-data": "#cloud-config\n{}"})
    found = read_disk(seed.of_instance(one))
    assert found.keys() == {"meta-data", "user-data", "vendor-data", "network-config"}
    assert found["user-data"] == b"#cloud-config\n{}"
    (interface,) = json.loads(found["network-config"])["config"]
    assert (interface["name"], interface["mac_address"]) == ("eth0", NIC["hwaddr"])


def test_interfaces_of_containers_need_no_address() -> None:
    (interface,) = json.loads(cloudinit.network_config(instance({"eth0": NIC}, Kind.CONTAINER)))["config"]
    assert "mac_address" not in interface


@pytest.mark.parametrize(
    ("devices", "key", "wanted"),
    [({}, "", False), ({}, "user.note", False), ({}, "user.user-data", True), ({}, "cloud-init.vendor-data", True),
     ({"seed": SEED}, "", True)],
)  # fmt: skip
def test_who_is_told_nothing_has_no_disk(devices: Devices, key: str, wanted: bool) -> None:
    one = replace(instance(devices), config={key: "x"} if key else {})
    assert bool(seed.of_instance(one)) is wanted


def test_the_disk_is_there_once_and_nowhere_else() -> None:
    for devices, name in (({}, parts.SEED_NAME), ({"seed": SEED}, "seed")):
        found = build(devices, b"data")
        assert set(found) == {"root", name}
        assert found[name].memory == {"disk1-file": b"data".hex()}
        assert found[name].same(build(devices, b"other")[name])
        opened, disk, *_ = [json.loads(text) for text in arguments(found[name]) if text.startswith("{")]
        assert opened["filename"] == "/dev/fdset/10"
        assert opened["read-only"] is disk["read-only"] is True


@pytest.mark.parametrize("project", ["default", "lab"])
def test_units_beside_a_machine_name_it(programs: None, project: str) -> None:
    one = replace(instance({"chip": TPM, "x.y-1_2": {"type": "disk", "source": "/", "path": "/x"}}), project=project)
    units = [helpers.unit_of(one, name, part) for name, part in build(one.devices).items() if part.served]
    assert len(units) == 2
    for unit in units:
        assert helpers.reference_of(unit) == one.reference
    for other in (one.unit, "syscont-net@br0.service", "syscont-tpmx@vm1.a.service", "", "@", "syscont-tpm@"):
        assert helpers.reference_of(other) == ""


def test_helpers_see_programs_and_nothing_else_of_the_host(tmp_path: Path) -> None:
    for name in ("usr", "proc", "dev", "srv", "var", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "file").touch()
    assert helpers.hidden(str(tmp_path)) == ["/new", "/srv", "/var"]
    assert {"/etc", "/home", "/root", "/run", "/srv", "/var"} <= set(helpers.hidden())


def test_the_order_in_which_firmware_tries() -> None:
    """Highest first; changing it changes no device, so one that runs keeps what it has."""
    link = parts.Link("tap0", NIC["hwaddr"], 0)
    given = parts.Given(UUID, parts.Root("/image", "/overlay"), {"eth0": link})
    plain = parts.build({"root": ROOT, "eth0": NIC}, given, {})
    first = parts.build({"root": ROOT, "eth0": {**NIC, "boot.priority": "5"}}, given, {})
    assert (plain["root"].device["bootindex"], plain["eth0"].device.get("bootindex")) == (1, None)
    assert (first["root"].device["bootindex"], first["eth0"].device["bootindex"]) == (2, 1)
    assert all(first[name].same(plain[name]) for name in first)


@pytest.mark.parametrize("options", [NIC, ROOT])
def test_boot_priority_is_for_machines(options: Mapping[str, str]) -> None:
    checked = check_device("one", {**options, "boot.priority": "7"})
    kinds.check_device(Kind.VM, "one", checked)
    with pytest.raises(SyscontError, match="for virtual machines"):
        kinds.check_device(Kind.CONTAINER, "one", checked)
    for bad in ("-1", "x", "1.5", "9" * 12):
        with pytest.raises(InvalidError, match=r"boot\.priority"):
            check_device("one", {**options, "boot.priority": bad})
