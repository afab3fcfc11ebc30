# SPDX-License-Identifier: Apache-2.0
"""VLANs of a bridge's ports: who reaches whom, with a tag and without one."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import Launch
from guests import Instance, syscont, unique, until
from hosts import Host

# Kernels of container hosts may know no VLANs; that of VM hosts does.
pytestmark = pytest.mark.needs_controllers


@dataclass(frozen=True)
class Member:
    """An instance with an address that it has by itself, and one in each VLAN whose tag it speaks with."""

    instance: Instance
    number: int

    def reaches(self, other: "Member", tag: int = 0) -> bool:
        words = ("ping", "-c1", "-W2", f"10.94.{tag}.{other.number}")
        return not self.instance.exec(*words, check=False).returncode

    def speaks(self, tag: int) -> None:
        link = f"eth0.{tag}"
        self.instance.sh(f"ip link add link eth0 name {link} type vlan id {tag}; ip link set {link} up")
        self.instance.sh(f"ip addr add 10.94.{tag}.{self.number}/24 dev {link}")


@pytest.fixture
def network(host: Host) -> Iterator[str]:
    name = unique("net")
    syscont(host, "network", "create", name, "ipv4.address=10.93.0.1/24", "ipv6.address=none")
    yield name
    syscont(host, "network", "delete", name)


def member(launch: Launch, nic: str, number: int, *options: str) -> Member:
    made = Member(launch("", "-d", ",".join(("eth0,type=nic", nic, *options))), number)
    made.instance.sh(f"ip addr add 10.94.0.{number}/24 dev eth0; ip link set eth0 up")
    return made


def test_who_reaches_whom(host: Host, network: str, launch: Launch) -> None:
    nic = f"network={network}"
    plain = member(launch, nic, 1)
    one, two = (member(launch, nic, number, "vlan=10") for number in (2, 3))
    trunk = member(launch, nic, 4, "vlan=none", "vlan.tagged=10,20-22")
    for tag in (10, 21, 23):
        trunk.speaks(tag)
    assert plain.instance.address().startswith("10.93.0."), "the bridge is in VLAN 1"

    def apart() -> bool:
        assert two.reaches(one)
        return not plain.reaches(one) and not one.reaches(plain) and not trunk.reaches(plain)

    assert apart()
    one.instance.sh("ip addr add 10.94.10.2/24 dev eth0")
    assert trunk.reaches(one, 10)
    other = member(launch, nic, 5, "vlan.tagged=21,23")
    for tag in (21, 23):
        other.speaks(tag)
    assert other.reaches(plain), "untagged, as before"
    assert trunk.reaches(other, 21)
    assert not trunk.reaches(other, 23)

    syscont(host, "device", "set", two.instance.name, "eth0", "vlan=1")
    two.instance.sh("ip addr add 10.94.0.3/24 dev eth0; ip link set eth0 up")
    assert two.reaches(plain)
    assert not two.reaches(one)
    syscont(host, "device", "set", two.instance.name, "eth0", "vlan=10")
    two.instance.sh("ip addr add 10.94.0.3/24 dev eth0; ip link set eth0 up")
    assert apart()
    host.sh(f"ip link del {network}; systemctl restart syscontd.service")
    until(host, lambda: two.reaches(one))
    assert apart(), "on a bridge that was made anew"
    for each in (plain, one, two, trunk, other):
        each.instance.do("delete", "--force")


def test_a_bridge_of_the_hosts(host: Host, launch: Launch) -> None:
    host.sh("ip link add plain0 type bridge; ip link set plain0 up")
    nic = "nictype=bridged,parent=plain0"
    one = member(launch, nic, 1)
    refused = syscont(host, "device", "set", one.instance.name, "eth0", "vlan=10", check=False).stderr
    assert "device eth0: bridge plain0 does not tell VLANs apart" in refused
    assert "ip link set plain0 type bridge vlan_filtering 1" in refused
    host.sh("ip link set plain0 type bridge vlan_filtering 1 vlan_default_pvid 7")
    two = member(launch, nic, 2, "vlan=10")
    three = member(launch, nic, 3, "vlan=7")
    assert not one.reaches(two)
    assert one.reaches(three)
    for each in (one, two, three):
        each.instance.do("delete", "--force")
    host.sh("ip link del plain0")
