# SPDX-License-Identifier: Apache-2.0
"""Networks behind instances: the host's routes to them, which are nobody else's."""

import time
from collections.abc import Iterator

import pytest
from conftest import Launch
from guests import Instance, syscont, unique, until
from hosts import Host

OWN = "10.90.0.21"


@pytest.fixture(scope="module")
def network(host: Host) -> Iterator[str]:
    name = unique("net")
    config = ("ipv4.address=10.90.0.1/24", "ipv6.address=fd90::1/64", "ipv6.dhcp.stateful=true")
    syscont(host, "network", "create", name, *config, "ipv4.routes=10.90.128.0/24")
    yield name
    syscont(host, "network", "delete", name)


@pytest.fixture
def router(network: str, launch: Launch) -> Iterator[Instance]:
    options = (f"ipv4.address={OWN}", "ipv4.routes=10.91.1.0/24", "ipv6.routes=fd91::/64")
    one = launch("", "-d", ",".join((f"eth0,type=nic,network={network}", *options)))
    assert one.address() == OWN
    yield one
    one.do("delete", "--force")


def routes(host: Host) -> set[str]:
    shown = (host.sh("ip route") + host.sh("ip -6 route")).splitlines()
    return {line.split()[0] for line in shown if line.startswith(("10.91.", "10.90.128", "fd91:"))}


def test_networks_behind_a_port_of_a_bridge(host: Host, network: str, launch: Launch, router: Instance) -> None:
    """By way of its own address, or by asking for theirs."""
    asked = launch("", "-d", f"eth0,type=nic,network={network},ipv4.routes=10.91.3.0/24")
    wanted = {"10.90.128.0/24", "10.91.1.0/24", "fd91::/64", "10.91.3.0/24"}
    until(host, lambda: routes(host) == wanted)
    assert f"10.91.1.0/24 via {OWN} dev {network}" in host.sh("ip route")
    router.sh("ip addr add 10.91.1.1/24 dev lo")
    asked.address()
    asked.sh("ip addr add 10.91.3.1/24 dev eth0")
    for address in ("10.91.1.1", "10.91.3.1"):
        host.run(["ping", "-c1", "-W2", address])
    # As which it may send, too, if that is looked at.
    syscont(host, "device", "set", router.name, "eth0", "security.ipv4_filtering=true")
    host.run(["ping", "-c1", "-W2", "10.91.1.1"])
    host.run(["ping", "-c1", "-W2", OWN])

    leader = router.leader
    syscont(host, "device", "set", router.name, "eth0", "ipv4.routes=10.91.1.0/24,10.91.2.0/24")
    until(host, lambda: routes(host) == wanted | {"10.91.2.0/24"})
    asked.do("delete", "--force")
    syscont(host, "device", "set", router.name, "eth0", "ipv4.routes=10.91.2.0/24")
    until(host, lambda: routes(host) == {"10.90.128.0/24", "10.91.2.0/24", "fd91::/64"})
    assert router.leader == leader
    host.sh(f"ip link del {network}; systemctl restart syscontd.service")
    until(host, lambda: routes(host) == {"10.90.128.0/24", "10.91.2.0/24", "fd91::/64"})


BAD = [
    ("ipv4.routes=10.91.0.1/16", "ipv4.routes: not an IPv4 network"),
    ("ipv4.routes=0.0.0.0/0", "0.0.0.0/0 is everything"),
    ("ipv4.routes=10.90.0.128/25", "10.90.0.128/25 overlaps 10.90.0.0/24 (network net"),
    ("ipv4.routes=10.90.128.0/25", "10.90.128.0/25 overlaps 10.90.128.0/24 (network net"),
    ("ipv4.routes=10.91.0.0/16", "10.91.0.0/16 overlaps 10.91.1.0/24 (which is behind device eth0 of"),
    ("ipv4.routes=10.91.7.0/24,10.91.7.0/25", "10.91.7.0/25 overlaps 10.91.7.0/24 (which is behind device eth0 of"),
    ("ipv4.routes=198.51.100.0/25", "198.51.100.0/25 overlaps 198.51.100.0/24 (the host has it by wan0)"),
    ("ipv4.routes=203.0.113.0/24", "203.0.113.0/24 overlaps 203.0.113.0/24 (the host has it by wan0)"),
    ("ipv6.routes=fd90::/48", "fd90::/48 overlaps fd90::/64 (network net"),
]


@pytest.mark.parametrize(("option", "message"), BAD)
def test_what_is_somewhere_else_is_refused(
    host: Host, network: str, launch: Launch, router: Instance, option: str, message: str
) -> None:
    host.sh("ip link add wan0 type veth peer name wan1; ip addr add 198.51.100.7/24 dev wan0; ip link set wan0 up;"
            "ip route add 203.0.113.0/24 dev wan0 metric 100")  # fmt: skip
    one = launch("", "-n", network)
    before = routes(host), syscont(host, "device", "show", one.name).stdout
    refused = syscont(host, "device", "set", one.name, "eth0", option, check=False)
    assert refused.returncode
    assert message in refused.stderr
    assert (routes(host), syscont(host, "device", "show", one.name).stdout) == before
    one.do("delete", "--force")
    host.sh("ip link del wan0")


def test_every_way_into_it(host: Host, network: str, launch: Launch) -> None:
    """A copy, a backup, another network and one that changes."""
    router = launch("", "-d", f"eth0,type=nic,network={network},ipv4.routes=10.91.1.0/24")

    def refused(*words: str) -> str:
        return syscont(host, *words, check=False).stderr

    assert "which is behind device eth0 of" in refused("copy", router.name, "twin")
    router.do("stop", "--force")
    syscont(host, "export", router.name, "/var/tmp/router.tar.gz")
    assert "behind device eth0 of" in refused("import", "/var/tmp/router.tar.gz", "twin")
    host.sh("rm /var/tmp/router.tar.gz")
    made = ("network", "create", "other0", "ipv4.address=10.91.1.1/25", "ipv6.address=none")
    assert f"device eth0 of {router.name}: ipv4.routes: 10.91.1.0/24 overlaps 10.91.1.0/25" in refused(*made)
    assert "10.91.1.0/24 overlaps 10.91.0.0/16" in refused("network", "set", network, "ipv4.routes=10.91.0.0/16")
    names = syscont(host, "list", "--format", "csv").stdout + syscont(host, "network", "list", "--format", "csv").stdout
    assert "twin" not in names
    assert "other0" not in names
    router.do("delete")


def test_the_hosts_own_routes_stay(host: Host, network: str, launch: Launch) -> None:
    one = launch("", "-d", f"eth0,type=nic,network={network},ipv4.routes=10.91.9.0/24")
    until(host, lambda: "10.91.9.0/24" in routes(host))
    host.sh("systemctl stop syscontd.service; ip route del 10.91.9.0/24")
    host.sh("ip link add wan0 type veth peer name wan1; ip link set wan0 up; ip route add 10.91.9.0/24 dev wan0")
    host.sh("systemctl start syscontd.service")
    said = "the host has a route to 10.91.9.0/24 already"
    until(host, lambda: said in host.journal(unit="syscontd.service"))
    assert "10.91.9.0/24 dev wan0" in host.sh("ip route")
    one.do("delete", "--force")
    host.sh("ip link del wan0")


def test_a_start_that_fails_gives_back_what_was_lent(host: Host, busybox: str) -> None:
    """A link, and an address that the host answers for."""
    host.sh("ip link add wan0 type veth peer name wan1; ip link set wan0 up")
    for first in ("nictype=routed,parent=wan0,ipv4.address=10.91.8.1", "nictype=physical,parent=wan1"):
        devices = ("-d", f"eth0,type=nic,{first}", "-d", "eth1,type=nic,nictype=p2p,ipv4.routes=10.91.9.0/24")
        syscont(host, "create", *devices, busybox, "none")
        host.sh("ip route add 10.91.9.0/24 dev wan0")
        refused = syscont(host, "start", "none", check=False)
        assert "File exists" in refused.stderr
        assert "10.91.8.1" not in host.sh("ip neigh show proxy; ip route")
        assert "wan1@wan0" in host.sh("ip link show wan1")
        assert "10.91.9.0/24 dev wan0" in host.sh("ip route")
        syscont(host, "delete", "none")
        host.sh("ip route del 10.91.9.0/24 dev wan0")
    host.sh("ip link del wan0")


@pytest.mark.parametrize("option", ["ipv4.routes=10.91.1.0/24", "vlan=5", "vlan.tagged=5"])
def test_not_where_only_networks_are_allowed(host: Host, network: str, launch: Launch, option: str) -> None:
    one = launch("", "-n", network)
    config = ("restricted=true", "features.images=false", "features.profiles=false")
    options = [word for key in config for word in ("-c", key)]
    syscont(host, "project", "create", "tight", *options)
    one.do("stop", "--force")
    syscont(host, "move", one.name, f"tight:{one.name}")
    refused = syscont(host, "device", "set", f"tight:{one.name}", "eth0", option, check=False).stderr
    assert f"restricted.devices.nic is managed, and {option.partition('=')[0]} is beyond the network" in refused
    syscont(host, "delete", f"tight:{one.name}")
    syscont(host, "project", "delete", "tight")


BAD_LINKS = [
    ("host_name=syscontbr0", "host_name: the host has a link syscontbr0 already"),
    ("host_name=lan7", "host_name: lan7 is taken (by device eth0 of"),
    ("vlan.tagged=1-5", "vlan.tagged: it is in VLAN 1 without a tag"),
]


@pytest.mark.parametrize(("option", "message"), BAD_LINKS)
def test_links_are_nobody_elses(host: Host, network: str, launch: Launch, option: str, message: str) -> None:
    """An instance's link is deleted before it is made, so it must not have the name of one that is the host's."""
    first = launch("", "-d", f"eth0,type=nic,network={network},host_name=lan7")
    one = launch("", "-n", network)
    assert message in syscont(host, "device", "set", one.name, "eth0", option, check=False).stderr
    assert "lan7 is taken" in syscont(host, "copy", first.name, "twin", check=False).stderr
    first.do("restart", "--force")
    first.do("stop", "--force")
    # The kernel takes a guest's links away some time after it.
    until(host, lambda: "lan7" not in host.sh("ip -o link"))
    host.sh("ip link add lan7 type bridge")
    refused = syscont(host, "start", first.name, check=False).stderr
    assert "host_name: the host has a link lan7 that is another's" in refused
    assert "lan7" in host.sh("ip link show type bridge")
    host.sh("ip link del lan7")
    for each in (first, one):
        each.do("delete", "--force")


def test_frames_for_the_bridge_itself(host: Host, network: str, launch: Launch) -> None:
    """Bridges hand what is sent to them in person (IEEE 802.1D) to the port it came by, past all rules of theirs."""
    one = launch("", "-n", network)
    before = host.sh("ip -6 route show default")
    router = "bytes([134, 0, 0, 0, 64, 8, 7, 8, *bytes(8)])"
    script = f"""
import socket, struct, os
fd = os.open("/proc/{one.leader}/ns/net", os.O_RDONLY)
os.setns(fd, os.CLONE_NEWNET)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
to, mac = bytes.fromhex("0180c200000e"), bytes.fromhex("027363999999")
from ipaddress import IPv6Address as A
source, dest, body = A("fe80::bad").packed, A("ff02::1").packed, bytearray({router})
total = sum(struct.unpack(f">{{(32 + 8 + len(body)) // 2}}H", source + dest + struct.pack(">II", len(body), 58) + body))
while total >> 16: total = (total & 0xffff) + (total >> 16)
body[2:4] = struct.pack(">H", ~total & 0xffff)
s.send(to + mac + b"\\x86\\xdd" + struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + source + dest + body)
"""
    host.run(["python3", "-c", script.replace("\\\\", "\\")])
    time.sleep(1)
    assert host.sh("ip -6 route show default") == before
    assert "02:73:63:99:99:99" not in host.sh(f"bridge fdb show br {network}")
    one.do("delete", "--force")
