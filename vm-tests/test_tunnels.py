# SPDX-License-Identifier: Apache-2.0
"""Tunnels that join a network to a bridge of another host: a network namespace that speaks VXLAN by hand."""

from collections.abc import Iterator

import pytest
from conftest import Launch
from far import HERE, THERE, Far
from guests import Instance, syscont, unique
from hosts import Host
from leftovers import nothing_happens

BEHIND, MAC = "10.81.0.99", "02:00:00:00:00:81"


@pytest.fixture(scope="module")
def far(host: Host) -> Iterator[Far]:
    made = Far(host)
    yield made
    made.close()


def speaks(far: Far, number: int, *, port: int = 8472, to: str = f"remote {HERE}") -> None:
    far.sh("ip link del vx0 2>/dev/null || true")
    far.sh(f"ip link add vx0 type vxlan id {number} dstport {port} local {THERE} {to} dev wan1")
    far.sh(f"ip link set vx0 mtu 1400 address {MAC} up; ip addr add {BEHIND}/24 dev vx0")


@pytest.fixture
def network(host: Host) -> Iterator[str]:
    name = unique("net")
    syscont(host, "network", "create", name, "ipv4.address=10.81.0.1/24", "ipv6.address=none")
    yield name
    syscont(host, "network", "delete", name)


def joined(host: Host, network: str, *words: str, check: bool = True) -> str:
    keys = [f"tunnel.a.{word}" for word in words]
    return syscont(host, "network", "set", network, *keys, check=check).stderr


def test_vxlan_to_another_host(far: Far, host: Host, network: str, launch: Launch, busybox: str) -> None:
    one = launch("", "-n", network)
    speaks(far, 7)
    assert one.exec("ping", "-c1", "-W1", BEHIND, check=False).returncode
    joined(host, network, "protocol=vxlan", "id=7", f"remote={THERE}", f"local={HERE}")
    one.exec("ping", "-c3", "-W2", BEHIND)
    # What the other answers to has crossed both ways whole.
    one.exec("ping", "-c1", "-W2", "-s", "1300", BEHIND)
    assert f"{network}-a" in host.sh(f"ip -o link show master {network}")
    joined(host, network, "id=8", "port=4789")
    assert one.exec("ping", "-c1", "-W1", BEHIND, check=False).returncode
    speaks(far, 8, port=4789)
    one.exec("ping", "-c3", "-W2", BEHIND)
    members = ("protocol", "id", "port", "remote", "local")
    syscont(host, "network", "unset", network, *(f"tunnel.a.{member}" for member in members))
    assert f"{network}-a" not in host.sh("ip -o link")
    one.do("delete", "--force")


def test_vxlan_to_a_group(far: Far, host: Host, network: str, launch: Launch) -> None:
    one = launch("", "-n", network)
    speaks(far, 9, to="group 239.0.0.1 ttl 1")
    joined(host, network, "protocol=vxlan", "id=9", "interface=wan0", f"local={HERE}")
    one.exec("ping", "-c3", "-W2", BEHIND)
    one.do("delete", "--force")


@pytest.mark.needs_hardware
@pytest.mark.heavy
def test_gre_to_another_host(hardware_host: Host) -> None:
    """Which takes a driver that smaller kernels lack."""
    host, network = hardware_host, unique("net")
    other = Far(host)
    other.sh(f"ip link add gt0 type gretap local {THERE} remote {HERE}")
    other.sh(f"ip link set gt0 mtu 1400 up; ip addr add {BEHIND}/24 dev gt0")
    syscont(host, "image", "build", "busybox")
    syscont(host, "network", "create", network, "ipv4.address=10.81.0.1/24", "ipv6.address=none")
    syscont(host, "launch", "busybox", "far1", "-n", network)
    joined(host, network, "protocol=gre", f"local={HERE}", f"remote={THERE}")
    Instance(host, "far1").exec("ping", "-c3", "-W5", BEHIND)
    syscont(host, "delete", "--force", "far1")
    syscont(host, "network", "delete", network)
    assert f"{network}-a" not in host.sh("ip -o link")
    other.close()


def test_packets_leave_room_for_what_a_tunnel_adds(far: Far, host: Host, network: str, launch: Launch) -> None:
    joined(host, network, "protocol=vxlan", f"remote={THERE}")
    one = launch("", "-n", network)
    one.address()
    assert one.sh("cat /sys/class/net/eth0/mtu") == "1400\n"
    assert "mtu 1400" in host.sh(f"ip link show {network}")
    one.do("delete", "--force")


def test_a_tunnel_outlives_the_daemon_and_is_not_made_anew(far: Far, host: Host, network: str) -> None:
    joined(host, network, "protocol=vxlan", f"remote={THERE}")
    number = f"ip -o link show {network}-a | cut -d: -f1"
    before = host.sh(number)
    host.run(["systemctl", "restart", "syscontd.service"])
    assert host.sh(number) == before
    host.sh(f"ip link del {network}-a; systemctl restart syscontd.service")
    assert f"{network}-a" in host.sh(f"ip -o link show master {network}")


def test_nothing_is_left_of_tunnels(far: Far, host: Host) -> None:
    with nothing_happens(host):
        name = "averylongname"  # and with a tunnel's it would be longer than a link's may be
        keys = [f"tunnel.{each}.{member}" for each in ("first", "second") for member in (
            "protocol=vxlan", f"id={len(each)}", f"remote={THERE}")]  # fmt: skip
        syscont(host, "network", "create", name, *keys)
        assert host.sh(f"ip -o link show master {name}").count("sctun") == 2
        syscont(host, "network", "rename", name, "short0")
        assert "sctun" not in host.sh("ip -o link")
        assert host.sh("ip -o link show master short0").count("short0-") == 2
        syscont(host, "network", "delete", "short0")
        assert "short0" not in host.sh("ip -o link")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("id=7",), "tunnel.a.protocol is missing"),
        (("protocol=ipip",), "tunnel.a.protocol: not acceptable"),
        (("protocol=gre",), "tunnel.a.local is missing"),
        (("protocol=gre", "local=192.0.2.1", "remote=192.0.2.2", "id=4"), "tunnel.a.id is for vxlan"),
        (("protocol=gre", "local=fd00::1", "remote=fd00::2"), "gre is spoken over IPv4"),
        (("protocol=vxlan", "remote=239.0.0.1"), "tunnel.a.remote: not the address of a host"),
        (("protocol=vxlan", "group=10.0.0.1"), "tunnel.a.group: not a multicast address"),
        (("protocol=vxlan", "group=239.0.0.1", "remote=192.0.2.2"), "tunnel.a.group is for who has no remote"),
        (("protocol=vxlan", "remote=192.0.2.2", "local=fd00::1"), "two versions of IP"),
        (("protocol=vxlan", "id=16777216"), "tunnel.a.id: out of range"),
        (("protocol=vxlan", "remote=192.0.2.2", "interface=nosuch0"), "the host has no link nosuch0"),
        (("protocol=vxlan", "speed=1"), "unknown bridge network key 'tunnel.a.speed'"),
    ],
)
def test_bad_tunnels_change_nothing(host: Host, network: str, words: tuple[str, ...], message: str) -> None:
    before = host.sh("ip -o link"), syscont(host, "network", "show", network).stdout
    assert message in joined(host, network, *words, check=False)
    assert (host.sh("ip -o link"), syscont(host, "network", "show", network).stdout) == before


def test_a_link_that_is_somebodys_stays(host: Host, network: str) -> None:
    host.sh(f"ip link add {network}-a type veth peer name other0")
    said = joined(host, network, "protocol=vxlan", f"remote={THERE}", check=False)
    assert f"the host has a link {network}-a" in said
    assert "other0" in host.sh("ip -o link")
    host.sh(f"ip link del {network}-a")
