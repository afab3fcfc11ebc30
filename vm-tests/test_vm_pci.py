# SPDX-License-Identifier: Apache-2.0
"""PCI functions of the host's that virtual machines have: on a kernel of our own, where QEMU gets descriptors, and on
Debian's, where it opens groups. Guests' disks are empty: QEMU says what they have. One boots, and says so itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Launch, imported
from guests import Instance, empty_image, python, syscont, until
from hosts import Host, Recipe, VmHost, images

pytestmark = [pytest.mark.needs_iommu, pytest.mark.heavy]

PRODUCT, DRIVER = "0x10c9", "igb"
"""Of the network card that the host can do without."""
SMALL = ("--vm", "--config", "limits.memory=128MiB")
BOOT = 60.0
LENT = "/run/syscont/lent"
LENDING = ("/usr/bin/python3", "-I", "-m", "sysd.runtime.vm.lending")


@pytest.fixture(scope="module", params=["iommu", "hardware-vms"])
def machine_host(request: pytest.FixtureRequest, host_kind: type[Host], deb: Path) -> Iterator[VmHost]:
    with host_kind(recipe=Recipe(variant=request.param)) as one:
        assert isinstance(one, VmHost)
        # Most guests here need not get far, which they do sooner when they are emulated.
        one.sh("mv /dev/kvm /dev/kvm.off")
        one.install_deb(deb)
        yield one


@pytest.fixture(scope="module")
def host(machine_host: VmHost) -> Host:
    return machine_host


@pytest.fixture(scope="module")
def busybox(host: Host) -> str:
    """In its place, for launch."""
    return empty_image(host)


@pytest.fixture(scope="module")
def card(machine_host: VmHost) -> str:
    """The address of a card that nobody needs. Debian's kernel has another one plugged in."""
    if machine_host.sh(f"grep -l {PRODUCT} /sys/bus/pci/devices/*/device || true") == "":
        machine_host.plug("card", "igb", bus="port1")
    return until(machine_host, lambda: functions(machine_host, PRODUCT))[0]


@pytest.fixture(autouse=True)
def all_is_back(host: Host, card: str) -> Iterator[None]:
    """After each of these the host has its hardware."""
    assert driver(host, card) == DRIVER
    yield
    until(host, lambda: driver(host, card) == DRIVER)
    assert host.sh(f"ls {LENT} 2>/dev/null || true") == ""
    assert host.read_text(f"/sys/bus/pci/devices/{card}/driver_override") == "(null)\n"


def functions(host: Host, product: str) -> list[str]:
    found = host.sh(f"grep -l '^{product}$' /sys/bus/pci/devices/*/device || true")
    return [path.split("/")[-2] for path in found.split()]


def driver(host: Host, function: str) -> str:
    return host.sh(f"basename $(readlink /sys/bus/pci/devices/{function}/driver) 2>/dev/null || true").strip()


def interfaces(host: Host, function: str) -> list[str]:
    return host.sh(f"ls /sys/bus/pci/devices/{function}/net 2>/dev/null || true").split()


def has(one: Instance) -> list[str]:
    """Products of the PCI functions that QEMU has, as it says itself."""
    path = f"/run/syscont/vm/{one.seen()['uuid']}.control"
    buses = json.loads(python(one.host, "ask_qemu", path, "query-pci").stdout)
    ports = [port["pci_bridge"] for bus in buses for port in bus["devices"] if "pci_bridge" in port]
    return [f"0x{each['id']['device']:04x}" for port in ports for each in port.get("devices", [])]


def device(function: str, name: str = "lan") -> str:
    return f"{name},type=pci,address={function}"


def refused(one: Instance, verb: str = "start") -> str:
    done = one.do(verb, check=False)
    assert done.returncode != 0
    return done.stderr


def test_a_function_is_lent_while_a_machine_runs(host: Host, launch: Launch, card: str) -> None:
    (link,) = interfaces(host, card)
    one = launch("", *SMALL, "--device", device(card))
    assert driver(host, card) == "vfio-pci"
    assert interfaces(host, card) == []
    assert PRODUCT in has(one)
    assert int(one.systemd("LimitMEMLOCK")) > 1 << 30
    by_descriptor = host.run(["test", "-e", "/dev/iommu"], check=False).returncode == 0
    assert ("iommufd" in host.read_text(f"/proc/{one.leader}/cmdline")) is by_descriptor
    nodes = host.sh(f"ls /proc/{one.leader}/root/dev/vfio").split()
    assert (nodes == []) is by_descriptor
    one.do("stop", "--force")
    assert driver(host, card) == DRIVER
    assert until(host, lambda: interfaces(host, card)) == [link]


def test_qemu_that_is_killed_has_it_no_more(host: Host, launch: Launch, card: str) -> None:
    one = launch("", *SMALL, "--device", device(card))
    host.run(["kill", "-KILL", str(one.leader)])
    until(host, lambda: one.systemd("ActiveState") == "failed")
    assert driver(host, card) == DRIVER


def test_the_daemon_is_not_needed_to_give_it_back(host: Host, launch: Launch, card: str) -> None:
    one = launch("", *SMALL, "--device", device(card))
    leader = one.leader
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(host, lambda: one.leader == leader)
    assert driver(host, card) == "vfio-pci"
    host.run(["systemctl", "stop", "syscontd.socket", "syscontd"])
    try:
        host.run(["kill", "-KILL", str(leader)])
        until(host, lambda: driver(host, card) == DRIVER)
    finally:
        host.run(["systemctl", "start", "syscontd"])


def test_one_of_two_that_start_at_once_gets_it(host: Host, launch: Launch, card: str) -> None:
    both = [launch("", *SMALL, "--device", device(card), verb="create") for _ in range(2)]
    script = "; ".join(f"syscont start {one.name} 2>/tmp/{one.name} & {one.name}=$!" for one in both)
    waits = "; ".join(f"wait ${one.name} && echo {one.name}" for one in both)
    (winner,) = host.sh(f"set +e; {script}; {waits}; true", timeout=120).split()
    (loser,) = [one.name for one in both if one.name != winner]
    assert f"device lan: {winner} has PCI function {card}" in host.read_text(f"/tmp/{loser}")
    assert PRODUCT in has(Instance(host, winner))
    assert Instance(host, loser).state in ("failed", "stopped")
    Instance(host, winner).do("stop", "--force")
    Instance(host, loser).do("start")
    assert PRODUCT in has(Instance(host, loser))


def test_a_group_is_named_with_what_is_in_it(host: Host, launch: Launch) -> None:
    first, second = sorted(one for one in functions(host, "0x1005") if driver(host, one) and shares(host, one))
    one = launch("", *SMALL, "--device", device(first), verb="create")
    why = refused(one)
    assert f"PCI function {first} can't be apart from others of its IOMMU group" in why
    assert f"{second} (1af4:1005, virtio-pci)" in why
    assert driver(host, first) == "virtio-pci"
    syscont(host, "device", "add", one.name, "other", "pci", f"address={second}")
    one.do("start")
    assert driver(host, first) == driver(host, second) == "vfio-pci"
    assert has(one).count("0x1005") == 2
    one.do("stop", "--force")
    assert driver(host, first) == driver(host, second) == "virtio-pci"


def shares(host: Host, function: str) -> bool:
    """Whether others are in its IOMMU group, but for bridges."""
    script = f"cat /sys/bus/pci/devices/{function}/iommu_group/devices/*/class"
    return len([kind for kind in host.sh(script).split() if not kind.startswith("0x06")]) > 1


def test_what_the_host_needs_is_not_lent(host: Host, launch: Launch) -> None:
    def behind(path: str) -> str:
        parts = host.sh(f"readlink -f {path}").strip().split("/")
        return [part for part in parts if part.count(":") == 2][-1]

    root = host.sh("findmnt -n -o MAJ:MIN /").strip()
    bridge = host.sh("grep -l '^0x0604' /sys/bus/pci/devices/*/class | head -1").split("/")[-2]
    for function, why in (
        (behind(f"/sys/dev/block/{root}"), "is mounted at /"),
        (behind("/sys/class/net/eth0"), "default route is by its interface eth0"),
        (bridge, "it is a bridge"),
    ):
        before = driver(host, function)
        one = launch("", *SMALL, "--device", device(function), verb="create")
        assert why in refused(one)
        assert driver(host, function) == before


def test_what_is_not_there_is_told(host: Host, launch: Launch) -> None:
    one = launch("", *SMALL, "--device", device("0000:7f:1f.7"), verb="create")
    assert "device lan: the host has no PCI function 0000:7f:1f.7" in refused(one)


def test_it_comes_while_the_machine_runs(host: Host, launch: Launch, card: str) -> None:
    one = launch("", *SMALL)
    assert PRODUCT not in has(one)
    syscont(host, "device", "add", one.name, "lan", "pci", f"address={card}")
    assert driver(host, card) == "vfio-pci"
    assert PRODUCT in has(one)
    other = launch("", *SMALL)
    argv = ["device", "add", other.name, "lan", "pci", f"address={card}"]
    assert f"{one.name} has PCI function {card}" in syscont(host, *argv, check=False).stderr
    assert "lan" not in other.seen()["devices"]
    one.do("stop", "--force")
    assert driver(host, card) == DRIVER
    syscont(host, *argv)
    assert PRODUCT in has(other)


def test_what_was_being_plugged_when_the_daemon_died_goes_back(host: Host, launch: Launch, card: str) -> None:
    one = launch("", *SMALL)
    host.run([*LENDING, "take", one.seen()["uuid"], one.name, f"x={card}"])
    assert driver(host, card) == "vfio-pci"
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(host, lambda: driver(host, card) == DRIVER)
    assert one.systemd("ActiveState") in ("active", "activating")


def test_what_nobody_gave_back_is_no_hindrance(host: Host, launch: Launch, card: str) -> None:
    """Of a machine that has ended, while what gives back was killed."""
    ended, one = launch("", *SMALL, verb="create"), launch("", *SMALL, "--device", device(card), verb="create")
    host.run([*LENDING, "take", ended.seen()["uuid"], ended.name, f"x={card}"])
    one.do("start")
    assert PRODUCT in has(one)


def test_a_physical_interface_is_its_card(host: Host, launch: Launch, card: str) -> None:
    (link,) = interfaces(host, card)
    one = launch("", *SMALL, "--device", f"lan,type=nic,nictype=physical,parent={link}")
    assert driver(host, card) == "vfio-pci"
    assert PRODUCT in has(one)
    # It is known by what it was, when something else changes.
    syscont(host, "device", "add", one.name, "more", "nic", "network=syscontbr0")
    assert PRODUCT in has(one)
    one.do("stop", "--force")
    assert until(host, lambda: interfaces(host, card)) == [link]


def test_groups_serve_where_there_is_no_iommufd(host: Host, launch: Launch, card: str) -> None:
    host.sh("test ! -e /dev/iommu || mv /dev/iommu /dev/iommu.off")
    try:
        one = launch("", *SMALL, "--device", device(card))
        assert PRODUCT in has(one)
        number = host.sh(f"basename $(readlink /sys/bus/pci/devices/{card}/iommu_group)").strip()
        shown = host.sh(f"ls -n /proc/{one.leader}/root/dev/vfio").splitlines()[1:]
        owners = {line.split()[-1]: line.split()[2] for line in shown}
        owner = str(one.seen()["idBase"])
        assert (owners[number], owners["vfio"]) == (owner, owner)
        one.do("stop", "--force")
        other = launch("", *SMALL)
        syscont(host, "device", "add", other.name, "lan", "pci", f"address={card}")
        assert PRODUCT in has(other)
        other.do("stop", "--force")
    finally:
        host.sh("test ! -e /dev/iommu.off || mv /dev/iommu.off /dev/iommu")


def test_a_graphics_card_is_given_as_a_whole(host: Host, launch: Launch) -> None:
    cards = host.sh("grep -l '^0x03' /sys/bus/pci/devices/*/class || true").split()
    if not cards:
        one = launch("", *SMALL, "--device", "gpu,type=gpu", verb="create")
        assert "device gpu: no such graphics card is there" in refused(one)
        return
    one = launch("", *SMALL, "--device", "gpu,type=gpu", verb="create")
    assert "device gpu: it may be any of" in refused(one)
    (bochs,) = functions(host, "0x1111")
    before = driver(host, bochs)
    syscont(host, "device", "set", one.name, "gpu", f"pci={bochs}")
    one.do("start")
    assert driver(host, bochs) == "vfio-pci"
    assert "0x1111" in has(one)
    one.do("stop", "--force")
    assert driver(host, bochs) == before


@pytest.fixture(scope="module")
def debian_vm(host: Host) -> str:
    return imported(host, "vm", *images.debian_vm(), "--vm")


def test_a_guest_has_the_card(host: Host, launch: Launch, card: str, debian_vm: str) -> None:
    """In one that boots it is driven, and it is let go of when it is to go."""
    options = ("--vm", "-c", "boot.mode=direct", "-c", "limits.memory=512MiB", "-c", "raw.qemu=-cpu qemu64")
    one = launch(debian_vm, *options, "--device", device(card))
    until(host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)
    assert PRODUCT in one.sh("cat /sys/bus/pci/devices/*/device").split()
    syscont(host, "device", "remove", one.name, "lan", timeout=120)
    assert PRODUCT not in one.sh("cat /sys/bus/pci/devices/*/device").split()
    assert driver(host, card) == DRIVER
    syscont(host, "device", "add", one.name, "lan", "pci", f"address={card}", timeout=120)
    until(host, lambda: PRODUCT in one.sh("cat /sys/bus/pci/devices/*/device").split())
