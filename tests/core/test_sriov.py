# SPDX-License-Identifier: Apache-2.0
"""Virtual functions of cards as interfaces. The host's /sys is a tree of files here, in which a driver that is bound
makes a link, and the card is told by calls that are noted; a kernel's are in vm-tests/test_sriov.py."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sysd.model.errors import FailedError, InvalidError
from sysd.runtime import sysfs
from sysd.runtime.sriov import cards, devlink, lending, loans, netlink, representors
from sysd.runtime.sriov.loans import Wanted
from sysd.runtime.sriov.netlink import NO_MAC, Settings
from sysd.runtime.vm import lending as vfio
from sysd.runtime.vm import virtual
from sysd.runtime.vm.hardware import Part

UUID, OTHER = "b6e9a2f4-1111-4222-8333-444455556666", "b6e9a2f4-1111-4222-8333-444455557777"
CARD, FIRST, SECOND = "0000:03:00.0", "0000:03:10.0", "0000:03:10.2"
WANTED = Wanted("eno1", "02:00:00:00:00:01", 12, True, "sc1", False)


class Kernel:
    """Two functions of a card, which igbvf drives; an address that ends by its link's number is its own."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.told: dict[int, Settings] = {}
        self.addresses: set[int] = set()
        self.broken = ""
        """A driver that makes no links any more."""
        for name in ("bus/pci/devices", "bus/pci/drivers/igbvf", "class/net"):
            (self.sys / name).mkdir(parents=True)
        card = self._function(CARD)
        self.link(card, "eno1", "02:00:00:00:00:aa")
        (card / "sriov_totalvfs").write_text("2\n")
        (card / "sriov_numvfs").write_text("0\n")

    def _function(self, address: str) -> Path:
        place = self.sys / "devices" / address
        (place / "net").mkdir(parents=True)
        (self.sys / "bus/pci/devices" / address).symlink_to(place)
        return place

    def link(self, function: Path, name: str, address: str) -> None:
        place = function / "net" / name
        place.mkdir()
        index = 1 + max((int((one / "ifindex").read_text()) for one in self._links() if (one / "ifindex").exists()),
                        default=0)  # fmt: skip
        values = {"address": address, "mtu": "1500", "flags": "0x1002", "ifindex": str(index), "addr_assign_type": "3"}
        for key, value in values.items():
            (place / key).write_text(f"{value}\n")
        (place / "device").symlink_to(function)
        (self.sys / "class/net" / name).symlink_to(place)

    def _links(self) -> list[Path]:
        return list((self.sys / "class/net").iterdir())

    def place(self, index: int) -> Path:
        return next(one for one in self._links() if (one / "ifindex").read_text() == f"{index}\n")

    # what is written to the kernel

    def write(self, path: Path, text: str) -> None:
        if path.name == "sriov_numvfs":
            for number, address in enumerate((FIRST, SECOND)):
                place = self._function(address)
                (place / "physfn").symlink_to(self.sys / "devices" / CARD)
                (self.sys / "devices" / CARD / f"virtfn{number}").symlink_to(place)
                self.told[number] = Settings(NO_MAC, spoof=True)
                self.bind(address)
        elif path.name == "unbind":
            function = path.parent.parent.resolve()
            (function / "driver").unlink()
            for link in (function / "net").iterdir():
                (self.sys / "class/net" / link.name).unlink()
                link.rename(self.sys.parent / f"gone{len(list(self.sys.parent.iterdir()))}")
        else:
            self.bind(text)

    def bind(self, address: str) -> None:
        place = self.sys / "devices" / address
        (place / "driver").symlink_to(self.sys / "bus/pci/drivers/igbvf")
        if self.broken != address:
            said = self.told[self.number(address)].mac
            free = next(f"eth{n}" for n in range(9) if not (self.sys / "class/net" / f"eth{n}").exists())
            self.link(place, free, said if said != NO_MAC else f"02:00:00:00:00:f{address[-1]}")

    @staticmethod
    def number(address: str) -> int:
        return (FIRST, SECOND).index(address)

    # netlink

    def change(self, card: int, number: int, before: Settings, after: Settings) -> None:
        assert before == self.told[number]
        self.told[number] = replace(after, spoof=before.spoof if after.spoof is None else after.spoof)

    def rename(self, index: int, name: str) -> None:
        place = self.place(index)
        target = place.resolve()
        place.unlink()
        (self.sys / "class/net" / name).symlink_to(target.rename(target.with_name(name)))

    def set(self, index: int, key: str, value: str) -> None:
        (self.place(index) / key).write_text(f"{value}\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel(tmp_path)
    monkeypatch.setattr(sysfs, "SYS", found.sys)
    monkeypatch.setattr(cards, "UDEV", tmp_path / "udev")
    monkeypatch.setattr(cards, "_PATIENCE", 0.02)
    monkeypatch.setattr(cards, "write", found.write)
    monkeypatch.setattr(loans, "FUNCTIONS_DIR", tmp_path / "functions")
    monkeypatch.setattr(vfio, "LENT_DIR", tmp_path / "lent")
    monkeypatch.setattr(virtual, "fill", lambda uuid, found: None)
    monkeypatch.setattr(netlink, "settings", lambda card: dict(found.told))
    monkeypatch.setattr(netlink, "change", found.change)
    monkeypatch.setattr(netlink, "rename", found.rename)
    monkeypatch.setattr(netlink, "bring_up", lambda index: found.set(index, "flags", "0x1003"))
    monkeypatch.setattr(netlink, "bring_down", lambda index: found.set(index, "flags", "0x1002"))
    monkeypatch.setattr(netlink, "has_addresses", lambda index: index in found.addresses)
    monkeypatch.setattr(netlink, "set_hwaddr", lambda index, value: found.set(index, "address", value))
    monkeypatch.setattr(netlink, "set_mtu", lambda index, value: found.set(index, "mtu", str(value)))
    return found


@pytest.fixture
def on(kernel: Kernel) -> Kernel:
    """With its functions switched on."""
    kernel.write(Path("sriov_numvfs"), "2")
    return kernel


def state(kernel: Kernel) -> dict[str, Any]:
    found: dict[str, Any] = {str(number): asdict(said) for number, said in kernel.told.items()}
    for address in (FIRST, SECOND):
        link = cards.link_of(address)
        place = kernel.sys / "class/net" / link
        found[address] = (link, *((place / key).read_text() for key in ("address", "mtu", "flags") if link))
    return found


def lent(uuid: str = UUID) -> list[str]:
    return [f"{device}={loan.function}" for device, loan in loans.of(uuid).items()]


# taking and giving back


def test_it_is_lent_and_put_back(on: Kernel) -> None:
    on.set(cards.index_of("eth0"), "mtu", "1400")
    before = state(on)
    lending.take(UUID, "c1", {"lan": WANTED})
    assert on.told[0] == Settings("02:00:00:00:00:01", 12, 0, True)
    assert cards.link_of(FIRST) == "sc1"
    assert lent() == [f"lan={FIRST}"]
    lending.give_back(UUID)
    assert state(on) == before
    assert not list(loans.FUNCTIONS_DIR.iterdir())


def test_what_the_card_was_told_is_told_again(on: Kernel) -> None:
    """An address that came from the card, and one that was chosen on the function's side."""
    on.told[0] = Settings("02:00:00:00:00:f0", 5, 3, False)
    on.set(cards.index_of("eth0"), "addr_assign_type", "0")
    on.told[1] = replace(on.told[1], mac="02:00:00:00:00:f2")
    before = state(on)
    lending.take(UUID, "c1", {"a": WANTED, "b": replace(WANTED, name="sc2", filtered=False, vlan=0)})
    assert on.told[1] == Settings("02:00:00:00:00:01", 0, 0, False)
    lending.give_back(UUID, ["b"])
    assert lent() == [f"a={FIRST}"]
    lending.give_back(UUID)
    # It is the function that tells its card of an address of its own.
    assert state(on) == {**before, "1": asdict(replace(on.told[1], mac=NO_MAC))}


def test_they_are_switched_on_when_there_are_none(kernel: Kernel) -> None:
    lending.take(UUID, "c1", {"lan": WANTED})
    assert lent() == [f"lan={FIRST}"]
    assert (kernel.sys / "class/net/eno1/flags").read_text() == "0x1003\n"


def test_nobody_gets_what_another_has(on: Kernel) -> None:
    lending.take(UUID, "c1", {"lan": WANTED})
    lending.take(OTHER, "p:c2", {"lan": replace(WANTED, name="sc2")})
    assert lent(OTHER) == [f"lan={SECOND}"]
    with pytest.raises(FailedError) as raised:
        lending.take("u3", "c3", {"more": replace(WANTED, name="sc3")})
    assert raised.value.message == (
        "device more: all 2 virtual functions of eno1 are taken: 0 (device lan of c1), 1 (device lan of p:c2)"
    )
    assert "stop an instance" in raised.value.hint


def test_what_a_machine_has_by_its_address_is_not_free(on: Kernel) -> None:
    (vfio.LENT_DIR / OTHER).mkdir(parents=True)
    (vfio.LENT_DIR / OTHER / FIRST).write_text(json.dumps(asdict(vfio.Loan("v1", "pci0", "igbvf", ""))))
    lending.take(UUID, "c1", {"lan": WANTED})
    assert lent() == [f"lan={SECOND}"]


def test_what_it_has_is_set_up_as_it_is_wanted_now(on: Kernel) -> None:
    before = state(on)
    lending.take(UUID, "c1", {"lan": WANTED})
    lending.take(UUID, "c1", {"lan": replace(WANTED, name="sc9", vlan=13)})
    assert lent() == [f"lan={FIRST}"]
    assert (cards.link_of(FIRST), on.told[0].vlan) == ("sc9", 13)
    lending.give_back(UUID)
    assert state(on) == before


def test_what_fails_half_way_is_noted(on: Kernel) -> None:
    before = state(on)
    on.broken = SECOND
    with pytest.raises(FailedError, match="device b: the host has no driver that makes an interface"):
        lending.take(UUID, "c1", {"a": WANTED, "b": replace(WANTED, name="sc2")})
    assert lent() == [f"a={FIRST}", f"b={SECOND}"]
    # That which does not come back is nobody else's.
    with pytest.raises(FailedError, match="igbvf makes no link of virtual function 1 of eno1"):
        lending.give_back(UUID)
    assert lent() == [f"b={SECOND}"]
    on.broken = ""
    lending.give_back(UUID)
    assert state(on) == before


def test_a_name_that_is_taken_meanwhile_is_left(on: Kernel) -> None:
    lending.take(UUID, "c1", {"lan": WANTED})
    on.link(on.sys / "devices" / CARD, "eth0", "02:00:00:00:00:77")
    lending.give_back(UUID)
    assert cards.link_of(FIRST) == "eth2"
    assert lent() == []


def test_a_card_that_is_gone_is_no_hindrance(on: Kernel) -> None:
    lending.take(UUID, "c1", {"lan": WANTED})
    (on.sys / "bus/pci/devices" / FIRST).unlink()
    lending.give_back(UUID)
    assert lent() == []


def test_only_what_has_ended_is_given_back(on: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    lending.take(UUID, "c1", {"lan": WANTED})
    monkeypatch.setattr(vfio, "has_ended", lambda unit: False)
    lending.give_back_left(UUID, "syscont@c1.service")
    assert lent() == [f"lan={FIRST}"]
    monkeypatch.setattr(vfio, "has_ended", lambda unit: True)
    lending.give_back_left(UUID, "syscont@c1.service")
    assert lent() == []


# what is not free, and what is no card


def _up(kernel: Kernel) -> None:
    kernel.set(cards.index_of("eth0"), "flags", "0x1003")


def _with_address(kernel: Kernel) -> None:
    kernel.addresses.add(cards.index_of("eth0"))


def _part(kernel: Kernel) -> None:
    (kernel.sys / "class/net/eth0/upper_br0").mkdir()


def _foreign(kernel: Kernel) -> None:
    place = kernel.sys / "devices" / FIRST / "driver"
    place.unlink()
    place.symlink_to(kernel.sys / "bus/pci/drivers/vfio-pci")


def _elsewhere(kernel: Kernel) -> None:
    (kernel.sys / "class/net/eth0").resolve().rename(kernel.sys / "eth0")


def _undriven(kernel: Kernel) -> None:
    (kernel.sys / "devices" / FIRST / "driver").unlink()


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (lambda kernel: None, ""),
        (_up, "eth0, which is up"),
        (_with_address, "eth0, which has addresses"),
        (_part, "eth0, which is part of br0"),
        (_foreign, "bound to vfio-pci"),
        (_elsewhere, "in another network namespace"),
        (_undriven, ""),
    ],
)
def test_what_the_host_has(on: Kernel, do: Any, why: str) -> None:
    do(on)
    assert cards.why_not(FIRST) == why


@pytest.mark.parametrize(
    ("parent", "why", "hint"),
    [
        ("nowhere0", "the host has no link nowhere0", "SR-IOV"),
        ("eth1", "eth1 is a virtual function itself", "parent is its card: eno1"),
        ("veth1", r"veth1 has no virtual functions \(SR-IOV\)", "sriov_totalvfs"),
        ("eth9", r"eth9 has no virtual functions \(SR-IOV\)", "sriov_totalvfs"),
        ("sim0", "sim0 is no PCI card", ""),
    ],
)
def test_what_is_no_card(on: Kernel, parent: str, why: str, hint: str) -> None:
    (on.sys / "class/net/veth1").mkdir()
    off = on.sys / "devices/0000:04:00.0"
    for folder, name, total in ((off, "eth9", "0"), (on.sys / "devices/netdevsim1", "sim0", "4")):
        (folder / "net").mkdir(parents=True)
        on.link(folder, name, "02:00:00:00:00:bb")
        (folder / "sriov_totalvfs").write_text(f"{total}\n")
    with pytest.raises(FailedError, match=why) as raised:
        cards.find(parent)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"parent": "../eno1"}, "name of a link"),
        ({"name": "a/b"}, "name of a link"),
        ({"hwaddr": "02:00"}, "hardware address"),
        ({"hwaddr": "01:00:00:00:00:01"}, "hardware address"),
        ({"vlan": 4095}, "out of range"),
        ({"vlan": -1}, "not|out of range"),
    ],
)
def test_what_is_wrong_is_not_begun(on: Kernel, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        lending.take(UUID, "c1", {"lan": replace(WANTED, **changed)})
    with pytest.raises(InvalidError, match="device name"):
        lending.take(UUID, "c1", {"../lan": WANTED})
    assert lent() == []


# representors

PORT = "vethsc01"
FAST = Wanted("eno0,eno1", "02:00:00:00:00:01", 0, False, "sc1", False, PORT)


@pytest.fixture
def switch(on: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """In mode switchdev, by what sysfs says alone, on a host with another card of which it says the same."""
    monkeypatch.setattr(devlink, "_family", lambda: 0)
    (on.sys / "class/net/eno1/phys_switch_id").write_text("c0ffee\n")
    (on.sys / "class/net/eno1/phys_port_name").write_text("p0\n")
    for name, port, switch in (("rep0", "pf0vf0", "c0ffee"), ("rep1", "pf0vf1", "c0ffee"), ("x0", "pf0vf0", "dec0de"),
                               ("x1", "pf1vf0", "c0ffee"), ("x2", "c1pf0vf1", "c0ffee")):  # fmt: skip
        on.link(on.sys / "devices" / CARD, name, "02:00:00:00:00:bb")
        (on.sys / "class/net" / name / "phys_port_name").write_text(f"{port}\n")
        (on.sys / "class/net" / name / "phys_switch_id").write_text(f"{switch}\n")
    return on


def links(kernel: Kernel) -> set[str]:
    return {path.name for path in (kernel.sys / "class/net").iterdir()}


def is_up(kernel: Kernel, link: str) -> bool:
    return (kernel.sys / "class/net" / link / "flags").read_text() == "0x1003\n"


def test_a_card_is_told_from_its_representors(switch: Kernel) -> None:
    assert cards.link_of(CARD) == "eno1"
    assert (representors.mode("eno1"), representors.mode("rep0")) == ("switchdev", "switchdev")
    assert representors.of("eno1") == {0: "rep0", 1: "rep1"}
    (switch.sys / "class/net/eno1/phys_port_name").unlink()
    # Of which of two cards with one switch it is, nobody says.
    assert representors.of("eno1") == {1: "rep1"}
    (switch.sys / "class/net/eno1/phys_switch_id").unlink()
    assert (representors.mode("eno1"), representors.of("eno1")) == ("legacy", {})


def test_a_representor_is_the_port_meanwhile(switch: Kernel) -> None:
    before = links(switch)
    lending.take(UUID, "c1", {"lan": FAST})
    lending.take(UUID, "c1", {"lan": FAST})
    assert {"rep0"} == before - links(switch) - {"eth0"}
    assert is_up(switch, PORT)
    # What its card says of where it may send from is left alone.
    assert switch.told[0] == Settings(FAST.hwaddr, 0, 0, True)
    lending.take(OTHER, "c2", {"lan": replace(FAST, port="vethsc02", name="sc2")})
    assert {"rep0", "rep1"}.isdisjoint(links(switch))
    with pytest.raises(FailedError, match=r"all 2 .* of eno1 are taken: 0 \(device lan of c1\)"):
        lending.take("b6e9a2f4-1111-4222-8333-444455558888", "c3", {"lan": replace(FAST, port="vethsc03", name="sc3")})
    lending.give_back(UUID)
    lending.give_back(OTHER)
    assert links(switch) == before
    assert not is_up(switch, "rep0")
    assert lent() == []


def test_a_representor_that_others_have_is_not_taken(switch: Kernel) -> None:
    (switch.sys / "class/net/rep0/upper_br0").mkdir()
    lending.take(UUID, "c1", {"lan": FAST})
    assert "rep1" not in links(switch)
    lending.give_back(UUID)
    (switch.sys / "class/net/rep1/phys_switch_id").unlink()
    why = r"taken: 0 \(its representor rep0 is part of br0\), 1 \(no representor: eno1 is in mode switchdev\)"
    with pytest.raises(FailedError, match=why):
        lending.take(UUID, "c1", {"lan": FAST})


def test_a_port_that_is_there_already_is_not_taken(switch: Kernel) -> None:
    before = links(switch)
    switch.link(switch.sys / "devices" / CARD, PORT, "02:00:00:00:00:cc")
    with pytest.raises(FailedError, match=f"device lan: the host has a link {PORT}"):
        lending.take(UUID, "c1", {"lan": FAST})
    lending.give_back(UUID)
    assert links(switch) == before | {PORT}
    assert lent() == []


def test_a_mode_that_changes_takes_no_function_along(switch: Kernel) -> None:
    """The representor is gone then; the function is given back all the same."""
    lending.take(UUID, "c1", {"lan": FAST})
    (switch.sys / "class/net" / PORT).unlink()
    (switch.sys / "class/net/eno1/phys_switch_id").unlink()
    with pytest.raises(FailedError, match="virtual function 0 of eno0,eno1 has no representor any more"):
        lending.take(UUID, "c1", {"lan": FAST})
    lending.give_back(UUID)
    assert lent() == []


# messages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, bytes]]]:
    """What is sent, in place of the kernel's answer."""
    found: list[tuple[int, bytes]] = []

    def ask(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        found.append((kind, body))
        return iter(())

    monkeypatch.setattr(netlink, "ask", ask)
    return iter([found])


def test_a_card_is_told_what_is_other(asked: Iterator[list[tuple[int, bytes]]]) -> None:
    before = Settings(NO_MAC, 0, 0, True)
    after = Settings("02:00:00:00:00:01", 12, 3, False)
    netlink.change(7, 5, before, after)
    netlink.change(7, 5, after, after)
    netlink.change(7, 5, after, replace(after, spoof=None))
    sent = next(asked)
    mac = struct.pack("=HHI", 40, 1, 5) + bytes.fromhex("020000000001") + bytes(26)
    values = (mac, struct.pack("=HHIII", 16, 2, 5, 12, 3), struct.pack("=HHII", 12, 4, 5, 0))
    for (kind, body), value in zip(sent, values, strict=True):
        nested = struct.pack("=HHHH", 8 + len(value), 22 | 0x8000, 4 + len(value), 1 | 0x8000)
        assert kind == 16
        assert body == struct.pack("=BxHiII", 0, 0, 7, 0, 0) + nested + value


def test_what_a_card_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    def function(number: int, mac: str, vlan: int, spoof: int) -> bytes:
        return attribute(1, b"".join((
            attribute(1, struct.pack("=I", number) + bytes.fromhex(mac.replace(":", "")) + bytes(26)),
            attribute(2, struct.pack("=III", number, vlan, 1)),
            attribute(4, struct.pack("=II", number, spoof)),
            attribute(9, b"\1\2\3"),
        )))  # fmt: skip

    said = function(0, NO_MAC, 0, 0xFFFFFFFF) + function(6, "02:00:00:00:00:01", 12, 1)
    answer = struct.pack("=BxHiII", 0, 0, 7, 0, 0) + attribute(3, b"eno1\0") + attribute(22 | 0x8000, said)
    monkeypatch.setattr(netlink, "ask", lambda *_: iter([answer]))
    assert netlink.settings(7) == {0: Settings(NO_MAC, 0, 1, None), 6: Settings("02:00:00:00:00:01", 12, 1, True)}


def test_what_devlink_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ports: another card's, another computer's, a subfunction's, one that is not of a network, and ours."""

    def said(*values: tuple[int, bytes]) -> bytes:
        return struct.pack("=BBxx", 0, 1) + b"".join(netlink.attribute(kind, value) for kind, value in values)

    def port(device: bytes, flavour: int, number: int, link: bytes, external: bytes = b"\0") -> bytes:
        short = [(kind, struct.pack("=H", value)) for kind, value in ((77, flavour), (128, number))]
        name = [(7, link)] if link else []
        return said((1, b"pci\0"), (2, device + b"\0"), *short, (149, external), *name)

    ours, theirs = b"0000:03:00.0", b"0000:04:00.0"
    ports = [
        port(theirs, 4, 1, b"a0\0"), port(ours, 4, 1, b"a1\0", b"\1"), port(ours, 7, 1, b"a2\0"),
        port(ours, 4, 2, b"a3\0"), port(ours, 4, 3, b""), said((1, b"pci\0"), (77, b"\4")), port(ours, 4, 1, b"a4\0"),
    ]  # fmt: skip
    asked: list[tuple[int, bytes]] = []

    def ask(kind: int, flags: int, body: bytes, protocol: int) -> Iterator[bytes]:
        asked.append((kind, body))
        if kind == 0x10:
            return iter([said((1, struct.pack("=H", 0x1B)))])
        if body[0] == 29 and theirs in body:
            raise OSError(95, "Operation not supported")
        return iter([said((25, b"\1\0"))] if body[0] == 29 else ports)

    monkeypatch.setattr(devlink, "ask", ask)
    card = ("pci", ours.decode())
    assert devlink.representors(card) == {1: "a4", 2: "a3"}
    assert devlink.mode(card) == "switchdev"
    assert devlink.mode(("pci", theirs.decode())) == ""
    assert {kind for kind, _ in asked} == {0x10, 0x1B}


# machines


def spec_of(address: str, group: str) -> dict[str, Any]:
    asked = virtual.options("lan", "sc1", {})["asked"]
    part = Part(2, {"driver": "vfio-pci", "id": "dev-lan"}, passed={"address": address, "asked": asked})
    other = Part(3, {"driver": "vfio-pci", "id": "dev-x"}, passed={"address": CARD})
    device = '{"driver":"vfio-pci","sysfsdev":"/dev/vfio/%s"}'
    return {
        "parts": {"lan": asdict(part), "x": asdict(other)},
        "descriptors": [{"kind": k, "name": name} for k, name in (("vfio", address), ("file", ""), ("vfio", CARD))],
        "functions": {address: group, CARD: "4"},
        "arguments": ["-device", device % address, "-device", device % CARD],
        "cpus": 1,
    }


@pytest.mark.parametrize(("before", "group"), [("of:lan", ""), (SECOND, "9"), (FIRST, "7")])
def test_a_machine_is_told_its_function(on: Kernel, before: str, group: str) -> None:
    (on.sys / "devices" / FIRST / "iommu_group").symlink_to(on.sys / "7")
    made = virtual.filled(spec_of(before, group), {"lan": FIRST})
    assert made == spec_of(FIRST, "7")
    assert virtual.filled(made, {}) == made


def test_it_is_the_same_part_while_nothing_else_is_wanted() -> None:
    made = virtual.options("lan", "sc1", {})
    assert made["address"] == "of:lan"
    had = {"lan": Part(2, {}, passed={"address": FIRST, "asked": made["asked"]})}
    assert virtual.is_virtual(had["lan"])
    assert virtual.options("lan", "sc1", had)["address"] == FIRST
    assert virtual.options("lan", "sc2", had)["address"] == "of:lan"
