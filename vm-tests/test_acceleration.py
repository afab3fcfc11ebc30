# SPDX-License-Identifier: Apache-2.0
"""Interfaces of OVN networks that are virtual functions of a card. Functions are igb's, which QEMU has; representors
are netdevsim's, which the kernel simulates: what igb's card says of its switch is a file here that is put over the
kernel's, and so the two are one card. No packet goes from the one to the other. Containers are privileged, as the
kernel gives no others a /sys where something of the host's is covered."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch
from guests import Instance, empty_image, syscont, until
from hosts import Host, Recipe, VmHost
from test_ovn import READY, UPLINK
from test_sriov import CARD, COUNT, LENT, SMALL, device, facts, has, lent, link, of_card, refused

pytestmark = [pytest.mark.needs_sriov, pytest.mark.heavy]

SIMULATED = "netdevsim/netdevsim1"
MODE = "devlink dev eswitch set netdevsim/netdevsim1 mode"
CARDS = f"""
ip link set {CARD} up; echo {COUNT} >/sys/class/net/{CARD}/device/sriov_numvfs
echo "1 1" >/sys/bus/netdevsim/new_device
echo {COUNT} >/sys/bus/netdevsim/devices/netdevsim1/sriov_numvfs
udevadm settle
"""
ONE_SWITCH = f"""
cat /sys/bus/netdevsim/devices/netdevsim1/net/*/phys_switch_id | head -n 1 >/run/switch
mount --bind /run/switch /sys/class/net/{CARD}/phys_switch_id
"""
OFFLOAD = "ovs-vsctl set open_vswitch . other_config:hw-offload=true"


@pytest.fixture(scope="module")
def host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe(variant="ovn-cards")) as one:
        assert isinstance(one, VmHost)
        # Guests need not get far, which they do sooner when they are emulated.
        one.sh("rm -f /dev/kvm")
        one.sh(READY + CARDS)
        one.install_deb(deb)
        syscont(one, "network", "set", "syscontbr0", *UPLINK)
        addresses = ("ipv4.address=10.50.0.1/24", "ipv4.nat=true", "ipv6.address=none")
        syscont(one, "network", "create", "blue", "--type", "ovn", "network=syscontbr0", *addresses)
        yield one


@pytest.fixture(scope="module")
def busybox(host: Host) -> str:
    syscont(host, "image", "build", "busybox")
    return "busybox"


def cards(host: Host) -> dict[str, dict[str, Any]]:
    """As 'network info --acceleration' has them."""
    said = json.loads(syscont(host, "network", "info", "--acceleration", "--format", "json").stdout)
    return {one["device"] if one["driver"] == "netdevsim" else one["link"]: one for one in said["cards"]}


def lacks(host: Host, card: str) -> list[str]:
    return [said.split(":")[0] for said in cards(host)[card]["missing"]]


PRIVILEGED = ("-c", "security.privileged=true")


def nic(*options: str) -> tuple[str, ...]:
    return (*PRIVILEGED, "-d", ",".join(["lan,type=nic,network=blue,acceleration=sriov", *options]))


def test_what_is_missing_is_said_until_nothing_is(host: Host, launch: Launch) -> None:
    one = launch("", *nic(), verb="create")
    said = refused(one.do("start", check=False))
    assert "no network card of this host can carry an interface of an OVN network" in said
    assert "syscont network info --acceleration" in said
    missing = ["mode switchdev", "hw-offload", "a port in br-int"]
    assert lacks(host, CARD) == missing
    found = cards(host)[CARD]
    assert (found["driver"], found["mode"]) == ("igb", "legacy")
    assert (found["total"], found["enabled"], found["free"]) == (7, COUNT, COUNT)
    assert lacks(host, SIMULATED) == ["a virtual function that nobody has", *missing]
    host.sh(OFFLOAD)
    assert lacks(host, CARD) == ["mode switchdev", "a port in br-int"]
    host.sh(f"{MODE} switchdev; udevadm settle")
    host.sh(ONE_SWITCH)
    assert lacks(host, CARD) == ["a port in br-int"]
    # The simulated one is known by devlink, ours by what sysfs says.
    assert [cards(host)[name]["representors"] for name in (CARD, SIMULATED)] == [COUNT, COUNT]
    host.sh(f"{MODE} legacy; udevadm settle")
    assert lacks(host, SIMULATED)[1] == "mode switchdev"
    assert lacks(host, CARD) == ["representors", "a port in br-int"]
    host.sh(f"{MODE} switchdev; udevadm settle; ovs-vsctl add-port br-int {CARD}")
    assert lacks(host, CARD) == []
    assert cards(host)[CARD]["bridge"] == "br-int"
    said = syscont(host, "network", "info", "blue", "--acceleration", check=False).stderr
    assert "network info: it takes one of NETWORK and --acceleration" in said
    one.do("start")
    assert lent(host) == ["lan"]
    one.do("delete", "--force")


@pytest.fixture(scope="module")
def ready(host: Host) -> list[str]:
    """What there is to see of functions and representors; the test above has it so."""
    assert not lacks(host, CARD), "test_what_is_missing_is_said_until_nothing_is comes first"
    return seen(host)


def seen(host: Host) -> list[str]:
    return [*facts(host), *host.sh("grep -H . /sys/class/net/*/phys_port_name 2>/dev/null || true").splitlines()]


@pytest.fixture(autouse=True)
def all_is_back(host: Host, request: pytest.FixtureRequest, launch: Launch) -> Iterator[None]:
    """launch is asked for so that its instances are there until after this."""
    before = request.getfixturevalue("ready") if "ready" in request.fixturenames else None
    yield
    if before:
        host.sh("systemctl kill --signal=KILL --kill-whom=main 'syscont@*' || true; systemctl stop 'syscont@*'")
        assert host.sh(f"find {LENT} /run/syscont/lent -mindepth 1 2>/dev/null || true") == ""
        assert seen(host) == before


def end_of(one: Instance) -> str:
    """The name of the host's end."""
    return str(one.seen()["config"]["volatile.lan.host_name"])


def port_of(host: Host, end: str) -> str:
    """What the port's link is of its card's."""
    return host.sh(f"cat /sys/class/net/{end}/phys_port_name 2>/dev/null || true").strip()


def works(host: Host, end: str) -> bool:
    """Whether Open vSwitch has the port, with its link, and OVN says that it is here."""
    script = f"""
    ovs-vsctl --if-exists get interface {end} ofport
    ovn-nbctl lsp-get-up $(ovs-vsctl --if-exists get interface {end} external_ids:iface-id | tr -d '"')
    """
    number, _, up = host.run(["sh", "-c", script], check=False).stdout.partition("\n")
    return number.isdigit() and number != "0" and up == "up\n"


def test_two_containers_have_functions_and_ports(host: Host, launch: Launch, ready: list[str]) -> None:
    one, two = launch("", *nic("name=lan0", "hwaddr=02:00:00:00:00:01")), launch("", *nic("name=lan0"))
    for number, each in enumerate((one, two)):
        end, mac = end_of(each), each.seen()["config"].get("volatile.lan.hwaddr", "02:00:00:00:00:01")
        assert mac in link(each)
        assert "mtu 1442" in link(each)
        assert f"link/ether {mac} " in of_card(host)[number]
        assert port_of(host, end) == f"pf0vf{number}"
        assert "UP" in host.sh(f"ip -o link show {end}")
        until(host, functools.partial(works, host, end))
    assert cards(host)[CARD]["free"] == 1
    for each in (two, one):
        end = end_of(each)
        each.do("stop", "--force")
        assert port_of(host, end) == ""
    assert seen(host) == ready


def test_none_is_left(host: Host, launch: Launch, ready: list[str]) -> None:
    """For a fourth; what others have a representor for counts as well."""
    representor = host.sh("dirname $(grep -l pf0vf1 /sys/class/net/*/phys_port_name)").strip().rpartition("/")[2]
    host.sh(f"ip link add part0 type bridge; ip link set {representor} master part0")
    try:
        one, _ = launch("", *nic()), launch("", *nic())
        three = launch("", *nic(), verb="create")
        said = refused(three.do("start", check=False))
        assert f"device lan: all {COUNT} virtual functions of {CARD} are taken: 0 (device lan of {one.name})" in said
        assert f"1 (its representor {representor} is part of part0)" in said
    finally:
        host.sh("ip link del part0")


def test_it_is_back_without_the_daemon(host: Host, launch: Launch, ready: list[str]) -> None:
    one = launch("", *nic())
    end = end_of(one)
    daemon = "syscontd.socket syscontd-handover.socket syscontd.service"
    host.run(["systemctl", "kill", "--signal=KILL", "syscontd"])
    host.sh(f"systemctl stop {daemon} || systemctl stop {daemon}")  # the kill may be having it started again
    try:
        host.run(["systemctl", "restart", one.unit])
        assert port_of(host, end) == "pf0vf0"
        until(host, lambda: works(host, end))
        host.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", one.unit])
        until(host, lambda: seen(host) == ready)
        assert lent(host) == []
    finally:
        host.sh(f"systemctl start {daemon}")


def test_it_comes_and_goes_while_a_container_runs(host: Host, launch: Launch, ready: list[str]) -> None:
    one = launch("", *PRIVILEGED)
    device(one, "add", "lan", "nic", "network=blue", "acceleration=sriov", "name=lan0")
    end = end_of(one)
    assert link(one)
    until(host, lambda: works(host, end))
    # What else changes leaves it alone, and the host's end can't be two at once.
    device(one, "add", "more", "nic", "network=syscontbr0")
    assert link(one)
    said = refused(device(one, "set", "lan", "acceleration=none", check=False))
    assert "stop it before acceleration is changed" in said
    assert link(one)
    assert port_of(host, end) == "pf0vf0"
    device(one, "remove", "lan")
    assert seen(host) == ready
    device(one, "add", "lan", "nic", "network=blue", "name=lan0")
    end = end_of(one)
    said = refused(device(one, "set", "lan", "acceleration=sriov", check=False))
    assert f"the host has a link {end}" in said
    assert link(one)
    until(host, lambda: works(host, end))
    assert seen(host) == ready


def test_the_mode_changes_under_it(host: Host, launch: Launch, ready: list[str]) -> None:
    one = launch("", *nic("name=lan0"))
    end = end_of(one)
    host.sh(f"{MODE} legacy; udevadm settle")
    assert port_of(host, end) == ""
    assert link(one)
    two = launch("", *nic(), verb="create")
    assert f"no representor: {CARD} is in mode" in refused(two.do("start", check=False))
    one.do("stop", "--force")
    assert lent(host) == []
    host.sh(f"{MODE} switchdev; udevadm settle")
    one.do("start")
    assert port_of(host, end) == "pf0vf0"
    until(host, lambda: works(host, end))


def test_a_port_that_is_taken_away_comes_back(host: Host, launch: Launch, ready: list[str]) -> None:
    one = launch("", *nic())
    end = end_of(one)
    until(host, lambda: works(host, end))
    host.sh(f"ovs-vsctl del-port {end}")
    until(host, lambda: works(host, end))
    host.run(["systemctl", "restart", "ovn-controller", "openvswitch-switch"])
    until(host, lambda: works(host, end))


@pytest.mark.needs_iommu
def test_a_machine_has_one(host: Host, launch: Launch, ready: list[str]) -> None:
    empty = empty_image(host)
    one = launch(empty, *SMALL, *nic()[len(PRIVILEGED) :])
    end = end_of(one)
    assert has(one) == 1
    assert port_of(host, end) == "pf0vf0"
    until(host, lambda: works(host, end))
    one.do("stop", "--force")
    assert seen(host) == ready
