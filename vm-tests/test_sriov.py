# SPDX-License-Identifier: Apache-2.0
"""Virtual functions of a network card (igb) in containers and virtual machines. The card has three here, and after each
of these tests all three are what they were: driver, name, addresses, and what the card says of them. Disks of machines
are empty: what QEMU has opened is what they have. What is heavy is on a kernel that lends functions by descriptors,
which takes minutes to build."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Launch
from guests import Done, Instance, empty_image, syscont, until
from hosts import Host, Recipe, VmHost

pytestmark = pytest.mark.needs_sriov

CARD, COUNT = "eth1", 3
SMALL = ("--vm", "--config", "limits.memory=128MiB")
LENT = "/run/syscont/functions"
LENDING = ("/usr/bin/python3", "-I", "-m", "sysd.runtime.sriov.lending")
FACTS = f"""
cd /sys/class/net/{CARD}/device
for one in virtfn*; do
    net=$(ls $one/net 2>/dev/null || true)
    echo $one $(basename $(readlink $one)) $(basename "$(readlink $one/driver)") ${{net:--}} \
        $(cat $one/net/*/address $one/net/*/mtu $one/net/*/flags 2>/dev/null)
done
ip link show {CARD} | grep ' vf '
"""


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe(variant="iommu" if request.config.getoption("--heavy") else "plain")) as one:
        assert isinstance(one, VmHost)
        # Guests need not get far, which they do sooner when they are emulated.
        one.sh("rm -f /dev/kvm")
        one.install_deb(deb)
        one.sh(f"ip link set {CARD} up; echo {COUNT} >/sys/class/net/{CARD}/device/sriov_numvfs; udevadm settle")
        yield one


@pytest.fixture(scope="module")
def busybox(host: Host) -> str:
    syscont(host, "image", "build", "busybox")
    return "busybox"


@pytest.fixture(scope="module")
def empty(host: Host) -> str:
    return empty_image(host)


def facts(host: Host) -> list[str]:
    """What there is to see of the card's functions."""
    return host.sh(FACTS).splitlines()


@pytest.fixture(scope="module")
def before(host: Host) -> list[str]:
    found = facts(host)
    assert len(found) == 2 * COUNT
    assert all(" igbvf eth" in line for line in found[:COUNT])
    return found


@pytest.fixture
def links(before: list[str]) -> list[str]:
    """Names of the functions' links."""
    return [line.split()[3] for line in before[:COUNT]]


@pytest.fixture
def functions(before: list[str]) -> list[str]:
    """Their addresses on the PCI bus."""
    return [line.split()[1] for line in before[:COUNT]]


@pytest.fixture(autouse=True)
def all_is_back(host: Host, before: list[str], launch: Launch) -> Iterator[None]:
    """launch is asked for so that its instances are there until after this."""
    yield
    host.sh("systemctl kill --signal=KILL --kill-whom=main 'syscont@*' || true; systemctl stop 'syscont@*'")
    assert host.sh(f"find {LENT} /run/syscont/lent -mindepth 1 2>/dev/null || true") == ""
    assert facts(host) == before


def nic(*options: str, name: str = "lan") -> tuple[str, str]:
    return ("--device", ",".join([f"{name},type=nic,nictype=sriov,parent={CARD}", *options]))


def device(instance: Instance, verb: str, *words: str, check: bool = True) -> Done:
    return syscont(instance.host, "device", verb, instance.name, *words, check=check, timeout=120)


def of_card(host: Host) -> list[str]:
    """What the card says of its functions."""
    return [line.strip() for line in facts(host)[COUNT:]]


def lent(host: Host) -> list[str]:
    return sorted(host.sh(f"find {LENT} -type f -printf '%f\\n' 2>/dev/null || true").split())


def link(instance: Instance, name: str = "lan0") -> str:
    return instance.exec("ip", "address", "show", name, check=False).stdout


def refused(done: Done) -> str:
    assert done.returncode != 0
    return done.stderr


def has(one: Instance) -> int:
    """How many functions QEMU has opened, by their own nodes or their groups'."""
    opened = one.host.sh(f"ls -l /proc/{one.leader}/fd")
    return opened.count("/dev/vfio/devices/") + opened.count("[vfio-device]")


def reach(one: Instance, number: int, *, ok: bool) -> None:
    done = one.exec("ping", "-c1", "-W5" if ok else "-W1", f"198.51.100.{number}", check=False)
    assert (done.returncode == 0) is ok, done.stdout


def address(one: Instance, number: int) -> None:
    one.sh(f"ip addr add 198.51.100.{number}/24 dev lan0; ip link set lan0 up")


def test_two_containers_have_functions(host: Host, launch: Launch) -> None:
    syscont(host, "network", "create", "card", "--type", "sriov", f"parent={CARD}", "vlan=12", "mtu=1400")
    try:
        one = launch("", "-d", "lan,type=nic,network=card,name=lan0,hwaddr=02:00:00:00:00:01")
        two = launch("", *nic("name=lan0", "vlan=12", "security.mac_filtering=true"))
        own = two.seen()["config"]["volatile.lan.hwaddr"]
        for said, mac, spoof in zip(of_card(host), ("02:00:00:00:00:01", own), ("off", "on"), strict=False):
            assert f"link/ether {mac} " in said
            assert f"vlan 12, spoof checking {spoof}," in said
        assert "mtu 1400" in link(one)
        assert "02:00:00:00:00:01" in link(one)
        assert own in link(two)
        address(one, 1)
        address(two, 2)
        reach(one, 2, ok=True)
        # A guest that runs goes to another VLAN, and on with its address.
        device(two, "set", "lan", "vlan=14")
        assert own in link(two)
        address(two, 2)
        reach(one, 2, ok=False)
        for each in (one, two):
            each.do("delete", "--force")
    finally:
        syscont(host, "network", "delete", "card")


@pytest.mark.heavy
@pytest.mark.needs_iommu
def test_a_machine_has_a_function(host: Host, launch: Launch, empty: str, functions: list[str]) -> None:
    one = launch("", *nic("name=lan0"))
    two = launch(empty, *SMALL, *nic("hwaddr=02:00:00:00:00:03", "vlan=13"))
    assert has(two) == 1
    assert "link/ether 02:00:00:00:00:03 " in of_card(host)[1]
    assert "vlan 13, spoof checking off," in of_card(host)[1]
    assert host.sh(f"basename $(readlink /sys/bus/pci/devices/{functions[1]}/driver)") == "vfio-pci\n"
    for each in (two, one):
        each.do("delete", "--force")


def test_the_only_one_goes_to_one_of_two(host: Host, launch: Launch, links: list[str]) -> None:
    """Which start at the same instant; the other is told who has what."""
    one, two = (launch("", *nic(), verb="create") for _ in range(2))
    host.sh(f"ip link set {links[0]} up; ip addr add 203.0.113.1/24 dev {links[2]}")
    try:
        with ThreadPoolExecutor() as at_once:
            done = list(at_once.map(lambda each: each.do("start", check=False), (one, two)))
        well, told = (one, two) if done[0].returncode == 0 else (two, one)
        said = refused(next(each for each in done if each.returncode))
        assert f"device lan: all {COUNT} virtual functions of {CARD} are taken: 0 ({links[0]}, which is up)" in said
        assert f"1 (device lan of {well.name}), 2 ({links[2]}, which has addresses)" in said
        assert lent(host) == ["lan"]
        well.do("stop", "--force")
        told.do("start")
    finally:
        host.sh(f"ip addr flush dev {links[2]}; ip link set {links[0]} down")


@pytest.mark.heavy
@pytest.mark.needs_iommu
def test_what_the_host_uses_is_not_free(
    host: Host, launch: Launch, links: list[str], functions: list[str]
) -> None:
    one = launch("", *nic(), verb="create")
    place = f"/sys/bus/pci/devices/{functions[2]}"
    host.sh(f"ip link add part0 type bridge; ip link set {links[0]} master part0; ip netns add else")
    host.sh(f"ip link set {links[1]} netns else; modprobe vfio-pci 2>/dev/null || true")
    host.sh(f"echo vfio-pci >{place}/driver_override; echo {functions[2]} >{place}/driver/unbind")
    host.sh(f"echo {functions[2]} >/sys/bus/pci/drivers_probe")
    try:
        said = refused(one.do("start", check=False))
        assert f"0 ({links[0]}, which is part of part0)" in said
        assert "1 (in another network namespace), 2 (bound to vfio-pci)" in said
    finally:
        host.sh(f"ip -n else link set {links[1]} netns 1; ip netns del else; ip link del part0")
        host.sh(f"echo >{place}/driver_override; echo {functions[2]} >{place}/driver/unbind")
        host.sh(f"echo {functions[2]} >/sys/bus/pci/drivers_probe; udevadm settle")


@pytest.mark.heavy
def test_it_comes_and_goes_while_a_container_runs(host: Host, launch: Launch, links: list[str]) -> None:
    one = launch()
    device(one, "add", "lan", "nic", "nictype=sriov", f"parent={CARD}", "name=lan0", "hwaddr=02:00:00:00:00:05")
    assert "02:00:00:00:00:05" in link(one)
    # What can't be made leaves it as it was: a name that the guest has taken, and a card that has none left.
    one.sh("ip link add taken0 type dummy")
    assert device(one, "set", "lan", "name=taken0", "vlan=9", check=False).returncode
    assert "02:00:00:00:00:05" in link(one)
    assert "vlan 9" not in of_card(host)[0]
    host.sh(f"ip link set {links[1]} up; ip link set {links[2]} up")
    said = refused(device(one, "add", "more", "nic", "nictype=sriov", f"parent={CARD}", check=False))
    host.sh(f"ip link set {links[1]} down; ip link set {links[2]} down")
    assert f"device more: all {COUNT} virtual functions of {CARD} are taken: 0 (device lan of {one.name})" in said
    assert lent(host) == ["lan"]
    # A guest may call it what it likes.
    one.sh("ip link set lan0 down; ip link set lan0 name mine0")
    device(one, "remove", "lan")
    assert not link(one, "mine0")
    assert lent(host) == []
    device(one, "add", "lan", "nic", "nictype=sriov", f"parent={CARD}", "name=lan0")
    assert link(one)
    one.do("stop", "--force")
    until(host, lambda: lent(host) == [])


@pytest.mark.heavy
def test_what_came_to_a_running_container_is_back_without_the_daemon(
    host: Host, launch: Launch, before: list[str]
) -> None:
    one = launch()
    device(one, "add", "lan", "nic", "nictype=sriov", f"parent={CARD}", "name=lan0", "vlan=8")
    assert "vlan 8," in of_card(host)[0]
    daemon = "syscontd.socket syscontd-handover.socket syscontd.service"
    host.sh(f"systemctl stop {daemon} || systemctl stop {daemon}")  # the kill may be having it started again
    try:
        host.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", one.unit])
        until(host, lambda: facts(host) == before)
        assert lent(host) == []
    finally:
        host.sh(f"systemctl start {daemon}")
    assert "syscont-functions-of@" not in host.sh("systemctl list-units --all --no-legend 'syscont-functions*'")


@pytest.mark.heavy
@pytest.mark.needs_iommu
def test_it_comes_while_a_machine_runs(host: Host, launch: Launch, empty: str) -> None:
    one = launch(empty, *SMALL)
    assert has(one) == 0
    device(one, "add", "lan", "nic", "nictype=sriov", f"parent={CARD}")
    assert has(one) == 1
    # It is known by what it was, when something else changes.
    device(one, "add", "more", "nic", "network=syscontbr0")
    assert has(one) == 1
    said = refused(device(one, "add", "bad", "nic", "nictype=sriov", "parent=eth0", check=False))
    assert "device bad: eth0 has no virtual functions (SR-IOV)" in said
    host.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", one.unit])
    until(host, lambda: lent(host) == [])
    one.do("start")
    assert has(one) == 1


@pytest.mark.heavy
@pytest.mark.needs_iommu
def test_groups_serve_where_there_is_no_iommufd(host: Host, launch: Launch, empty: str, functions: list[str]) -> None:
    host.sh("mv /dev/iommu /dev/iommu.off")
    try:
        one = launch(empty, *SMALL, *nic())
        assert has(one) == 1
        number = host.sh(f"basename $(readlink /sys/bus/pci/devices/{functions[0]}/iommu_group)").strip()
        assert sorted(host.sh(f"ls /proc/{one.leader}/root/dev/vfio").split()) == sorted([functions[0], number, "vfio"])
        device(one, "add", "more", "nic", "nictype=sriov", f"parent={CARD}")
        assert has(one) == 2
        one.do("stop", "--force")
        # Another may be the first that is free by now.
        other = launch("", *nic())
        one.do("start")
        assert has(one) == 2
        other.do("stop", "--force")
        one.do("stop", "--force")
    finally:
        host.sh("mv /dev/iommu.off /dev/iommu")


@pytest.mark.parametrize("kind", ["container", pytest.param("machine", marks=pytest.mark.heavy)])
def test_it_is_back_without_the_daemon(
    host: Host, launch: Launch, empty: str, before: list[str], kind: str
) -> None:
    """When systemctl has started it anew, and when it was killed."""
    one = launch(*((empty, *SMALL) if kind == "machine" else ("",)), *nic("vlan=7"))
    daemon = "syscontd.socket syscontd-handover.socket syscontd.service"
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    host.sh(f"systemctl stop {daemon} || systemctl stop {daemon}")  # the kill may be having it started again
    try:
        leader = one.systemd("MainPID")
        host.run(["systemctl", "restart", "--no-block", one.unit])
        host.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", one.unit])
        until(host, lambda: one.systemd("MainPID") not in ("0", leader) and "vlan 7," in of_card(host)[0])
        assert lent(host) == ["lan"]
        host.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", one.unit])
        until(host, lambda: facts(host) == before)
        assert lent(host) == []
    finally:
        host.sh(f"systemctl start {daemon}")


@pytest.mark.heavy
def test_what_was_left_goes_back(host: Host, launch: Launch) -> None:
    """Of an instance that does not run, and of one that was being given more when the daemon died; of one that is gone,
    when another starts."""
    one, two, three = launch("", verb="create"), launch(), launch("", *nic(), verb="create")

    def take(uuid: str, name: str) -> None:
        known = {"hwaddr": "02:00:00:00:00:08", "vlan": 8, "filtered": True, "machine": False}
        wanted = {"x": {"parent": CARD, "name": name, **known}}
        host.run([*LENDING, "take", uuid, "somebody", json.dumps(wanted)])

    take(one.seen()["uuid"], "scx1")
    take(two.seen()["uuid"], "scx2")
    take("b6e9a2f4-1111-4222-8333-444455556666", "scx3")
    assert lent(host) == ["x", "x", "x"]
    three.do("start")
    assert lent(host) == ["lan", "x"]
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    until(host, lambda: lent(host) == ["lan"])
    assert two.systemd("ActiveState") == "active"


@pytest.mark.heavy
def test_a_start_that_fails_leaves_nothing(host: Host, launch: Launch, before: list[str]) -> None:
    one = launch("", *nic(), "--device", "more,type=nic,nictype=physical,parent=nowhere0", verb="create")
    assert one.do("start", check=False).returncode
    until(host, lambda: facts(host) == before)
    assert lent(host) == []


@pytest.mark.heavy
def test_a_start_that_is_killed_leaves_nothing(host: Host, launch: Launch, before: list[str]) -> None:
    one = launch("", *nic("vlan=6"), verb="create")
    script = f"""
    systemctl start {one.unit} & sleep $1
    systemctl kill --signal=KILL {one.unit}; wait
    """
    for moment in ("0.5", "1.0", "1.4", "1.8", "2.2", "2.6", "3.0", "3.5"):
        host.run(["sh", "-c", script, "sh", moment], check=False)
        until(host, lambda: one.systemd("ActiveState") in ("failed", "inactive"))
        assert facts(host) == before
        assert lent(host) == []


@pytest.mark.heavy
def test_functions_are_switched_on_when_there_are_none(host: Host, launch: Launch) -> None:
    count = f"/sys/class/net/{CARD}/device/sriov_numvfs"
    host.sh(f"echo 0 >{count}; ip link set {CARD} down")
    try:
        one = launch("", *nic("name=lan0"))
        assert host.read_text(count) == "7\n"
        assert link(one)
        one.do("delete", "--force")
    finally:
        host.sh(f"ip link set {CARD} up; echo 0 >{count}; echo {COUNT} >{count}; udevadm settle")


def test_what_is_no_card_is_refused(host: Host, launch: Launch, links: list[str]) -> None:
    one = launch()
    for parent, why in (
        ("eth0", "eth0 has no virtual functions (SR-IOV)"),
        (links[0], f"{links[0]} is a virtual function itself (parent is its card: {CARD})"),
        ("nowhere0", "the host has no link nowhere0"),
    ):
        argv = ("add", "lan", "nic", "nictype=sriov", f"parent={parent}")
        assert f"device lan: {why}" in refused(device(one, *argv, check=False))
        if parent != "nowhere0":
            made = syscont(host, "network", "create", "bad", "--type", "sriov", f"parent={parent}", check=False)
            assert why in refused(made)
    assert "lan" not in one.seen()["devices"]
    syscont(host, "network", "create", "later", "--type", "sriov", "parent=nowhere0")
    said = refused(device(one, "add", "lan", "nic", "network=later", check=False))
    assert "device lan: the host has no link nowhere0" in said
    syscont(host, "network", "delete", "later")
