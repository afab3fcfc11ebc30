# SPDX-License-Identifier: Apache-2.0
"""Networks of OVN, on a host with its databases, its controller and Open vSwitch: what guests and the world see of them
by their packets."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guests import Instance, syscont, until
from hosts import Host, Recipe, VmHost

pytestmark = pytest.mark.needs_ovn

READY = """
ovs-vsctl set open_vswitch . external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock external_ids:ovn-encap-type=geneve \
    external_ids:ovn-encap-ip=127.0.0.1
ovn-nbctl ls-add another; ovn-nbctl lsp-add another anothers-port; ovn-nbctl lr-add another-router
"""
UPLINK = (
    "ipv4.address=10.10.0.1/24", "ipv4.dhcp.ranges=10.10.0.10-10.10.0.99", "ipv4.ovn.ranges=10.10.0.100-10.10.0.110",
    "ipv6.address=fd00:10::1/64",
)  # fmt: skip
WAY_OUT, OUTSIDE = "10.10.0.1", "10.10.0.100"
SERVER = """
import socket
with socket.create_server(("10.10.0.1", 7777)) as server:
    connection, peer = server.accept()
    connection.sendall(peer[0].encode())
"""
WEB = "mkdir -p /tmp/www; echo it works >/tmp/www/page; httpd -h /tmp/www"


@pytest.fixture(scope="module")
def host(host_kind: type[Host], deb: Path) -> Iterator[Host]:
    with host_kind(recipe=Recipe(variant="ovn")) as one:
        assert isinstance(one, VmHost)
        one.sh(READY)
        one.install_deb(deb)
        syscont(one, "network", "set", "syscontbr0", *UPLINK)
        syscont(one, "image", "build", "busybox")
        yield one


@pytest.fixture(scope="module")
def blue(host: Host) -> Iterator[str]:
    addresses = ("ipv4.address=10.50.0.1/24", "ipv4.nat=true", "ipv6.address=fd00:50::1/64")
    syscont(host, "network", "create", "blue", "--type", "ovn", "network=syscontbr0", *addresses)
    yield "blue"
    syscont(host, "network", "delete", "blue")
    # Of ours nothing is left, of others all.
    assert sorted(host.sh("ovn-nbctl --bare --columns=name list Logical_Switch").split()) == ["another"]
    assert host.sh("ovn-nbctl --bare --columns=name list Logical_Router").split() == ["another-router"]
    assert host.sh("ovn-nbctl --bare --columns=name list Logical_Switch_Port").split() == ["anothers-port"]
    for table in ("Port_Group", "ACL", "DHCP_Options", "DNS", "NAT", "Load_Balancer", "HA_Chassis_Group"):
        assert host.sh(f"ovn-nbctl --bare --columns=_uuid list {table}").strip() == "", table
    assert host.sh("ovs-vsctl list-br").split() == ["br-int"]
    assert "syscont" not in host.sh("ovs-vsctl get open_vswitch . external_ids")
    assert not host.sh("ls /sys/class/net | grep ^vethsc || true")


def launched(host: Host, name: str, network: str) -> Instance:
    syscont(host, "launch", "busybox", name, "--network", network, "--no-profiles")
    one = Instance(host, name)
    one.address()
    return one


@pytest.fixture(scope="module")
def one(host: Host, blue: str) -> Iterator[Instance]:
    yield launched(host, "one", blue)
    syscont(host, "delete", "--force", "one")


@pytest.fixture(scope="module")
def two(host: Host, blue: str) -> Iterator[Instance]:
    made = launched(host, "two", blue)
    made.sh(WEB)
    yield made
    syscont(host, "delete", "--force", "two")


def reaches(one: Instance, where: str, *options: str) -> bool:
    return one.exec("ping", "-c", "2", "-W", "5", *options, where, check=False).returncode == 0


def page(one: Instance, where: str) -> str:
    return one.sh(f"wget -q -T 5 -O - http://{where}/page 2>&1 || true").strip()


def test_guests_reach_each_other(one: Instance, two: Instance) -> None:
    assert one.address() == "10.50.0.2"
    assert one.address(6).startswith("fd00:50:")
    assert reaches(one, two.address())
    assert reaches(one, two.address(6), "-6")
    assert one.sh("cat /sys/class/net/eth0/mtu") == "1442\n"


def test_guests_have_names(host: Host, one: Instance, two: Instance) -> None:
    until(host, lambda: reaches(one, "two.syscont", "-4"))
    assert two.address() in one.sh(f"nslookup two.syscont {WAY_OUT}")
    leases = json.loads(syscont(host, "network", "list-leases", "blue", "--format", "json").stdout)
    assert ("two", two.address(), "dynamic") in [(each["hostname"], each["address"], each["type"]) for each in leases]


def test_the_world_sees_the_router(host: Host, one: Instance) -> None:
    with host.spawn(["/usr/bin/python3", "-c", SERVER]):
        assert until(host, lambda: one.sh(f"nc -w 5 {WAY_OUT} 7777 </dev/null 2>/dev/null || true")) == OUTSIDE


def test_ovn_says_so_too(host: Host, one: Instance, two: Instance) -> None:
    ports = json.loads(host.sh("ovn-nbctl --format=json --columns=name,dynamic_addresses list Logical_Switch_Port"))
    by_address = {row[1].split()[1]: row[0] for row in ports["data"] if isinstance(row[1], str) and row[1]}
    mine, theirs = by_address[one.address()], by_address[two.address()]
    macs = [each.sh("cat /sys/class/net/eth0/address").strip() for each in (one, two)]
    flow = (
        f'inport == "{mine}" && eth.src == {macs[0]} && eth.dst == {macs[1]} && ip4.src == {one.address()} && '
        f"ip4.dst == {two.address()} && ip.ttl == 64 && icmp4.type == 8"
    )
    switch = host.sh("ovn-nbctl --bare --columns=name find Logical_Switch name!=another").split()
    inside = next(name for name in switch if name.endswith("-int"))
    assert f'output("{theirs}")' in host.run(["ovn-trace", "--minimal", inside, flow]).stdout
    lie = flow.replace(f"ip4.src == {one.address()}", "ip4.src == 10.50.0.99")
    assert f'output("{theirs}")' not in host.run(["ovn-trace", "--minimal", inside, lie]).stdout


def test_a_guest_has_the_addresses_that_it_was_given(one: Instance, two: Instance) -> None:
    one.sh("ip addr add 10.50.0.99/24 dev eth0")
    assert not reaches(one, two.address(), "-I", "10.50.0.99")
    assert reaches(one, two.address())
    one.sh("ip addr del 10.50.0.99/24 dev eth0")


def test_acls(host: Host, one: Instance, two: Instance) -> None:
    syscont(host, "network", "acl", "create", "pings")
    for rule in (("egress", "action=allow"), ("ingress", "action=allow", "protocol=icmp4")):
        syscont(host, "network", "acl", "rule", "add", "pings", *rule)
    assert page(one, two.address()) == "it works"
    syscont(host, "network", "set", "blue", "security.acls=pings")
    until(host, lambda: page(one, two.address()) != "it works")
    assert reaches(one, two.address())
    syscont(host, "network", "acl", "rule", "add", "pings", "ingress", "action=allow", "protocol=tcp",
            "destination_port=80")  # fmt: skip
    until(host, lambda: page(one, two.address()) == "it works")
    syscont(host, "network", "acl", "rule", "add", "pings", "ingress", "action=drop", f"source={one.address()}")
    until(host, lambda: not reaches(one, two.address()))
    assert "in use" in syscont(host, "network", "acl", "delete", "pings", check=False).stderr
    syscont(host, "network", "unset", "blue", "security.acls")
    syscont(host, "network", "acl", "delete", "pings")
    until(host, lambda: reaches(one, two.address()))


@pytest.mark.heavy
def test_acls_of_one_interface(host: Host, one: Instance, two: Instance) -> None:
    syscont(host, "network", "acl", "create", "closed")
    syscont(host, "device", "set", "two", "eth0", "security.acls=closed", "security.acls.default.ingress.action=drop",
            "security.acls.default.egress.action=allow")  # fmt: skip
    until(host, lambda: not reaches(one, two.address()))
    assert reaches(two, one.address())
    assert "two" in syscont(host, "network", "acl", "delete", "closed", check=False).stderr
    syscont(host, "network", "acl", "rule", "add", "closed", "ingress", "action=allow", f"source={one.address()}")
    until(host, lambda: reaches(one, two.address()))
    done = syscont(host, "device", "set", "two", "eth0", "security.acls=none-such", check=False)
    assert "no ACL 'none-such'" in done.stderr
    for key in ("", ".default.ingress.action", ".default.egress.action"):
        syscont(host, "device", "unset", "two", "eth0", f"security.acls{key}")
    syscont(host, "network", "acl", "delete", "closed")


def test_rules_that_name_guests_and_the_world(host: Host, one: Instance, two: Instance) -> None:
    look = ["/usr/bin/python3", "-c", "import urllib.request as u; "
            "print(u.urlopen('http://10.10.0.110/page', timeout=10).read().decode())"]  # fmt: skip
    syscont(host, "network", "forward", "create", "blue", "10.10.0.110", f"target_address={two.address()}")
    for acl in ("friends", "served"):
        syscont(host, "network", "acl", "create", acl)
    for rule in (("source=friends", "protocol=icmp4"), ("source=@external", "protocol=tcp", "destination_port=80")):
        syscont(host, "network", "acl", "rule", "add", "served", "ingress", "action=allow", *rule)
    open_out = "security.acls.default.egress.action=allow"
    syscont(host, "device", "set", "two", "eth0", "security.acls=served", open_out)
    until(host, lambda: not reaches(one, two.address()))
    assert host.run(look).stdout.strip() == "it works"
    assert page(one, two.address()) != "it works"
    syscont(host, "device", "set", "one", "eth0", "security.acls=friends", open_out)
    until(host, lambda: reaches(one, two.address()))
    for refused, why in (
        (("network", "acl", "delete", "friends"), "ACL served"),
        (("network", "set", "syscontbr0", "security.acls=served"), "of type bridge"),
        (("network", "acl", "rule", "add", "served", "ingress", "action=allow", "source=@blue/none"), "no peer 'none'"),
    ):
        assert why in syscont(host, *refused, check=False).stderr
    for name in ("one", "two"):
        for key in ("security.acls", "security.acls.default.egress.action"):
            syscont(host, "device", "unset", name, "eth0", key)
    syscont(host, "network", "acl", "delete", "served")
    syscont(host, "network", "acl", "delete", "friends")
    syscont(host, "network", "forward", "delete", "blue", "10.10.0.110")
    until(host, lambda: page(one, two.address()) == "it works")


def test_what_is_told_of_it(host: Host, one: Instance) -> None:
    state = json.loads(syscont(host, "network", "info", "blue", "--format", "json").stdout)
    assert (state["state"], state["mtu"]) == ("up", 1442)
    assert {"10.50.0.1/24", f"{OUTSIDE}/24", "fd00:50::1/64"} <= set(state["addresses"])
    assert set(state["ports"]) <= set(host.sh("ovs-vsctl list-ports br-int").split())
    assert state["ports"]
    syscont(host, "network", "zone", "create", "lab.example", "peers.me.address=127.0.0.1")
    syscont(host, "network", "set", "blue", "dns.zone.forward=lab.example")
    syscont(host, "config", "set", "core.dns_address=127.0.0.7")
    look = "dig +short +tcp one.lab.example @127.0.0.7"
    until(host, lambda: host.sh(look).split() == [one.address()])
    syscont(host, "config", "unset", "core.dns_address")
    syscont(host, "network", "unset", "blue", "dns.zone.forward")
    syscont(host, "network", "zone", "delete", "lab.example")


@pytest.mark.heavy
def test_forwards(host: Host, two: Instance) -> None:
    look = ["/usr/bin/python3", "-c", "import urllib.request as u; "
            "print(u.urlopen('http://10.10.0.110:8080/page', timeout=10).read().decode())"]  # fmt: skip
    assert host.run(look, check=False).returncode
    for wrong, why in ((OUTSIDE, "router's"), ("10.10.0.50", "does not set it apart"), ("10.50.0.9", "itself")):
        assert why in syscont(host, "network", "forward", "create", "blue", wrong, check=False).stderr
    syscont(host, "network", "forward", "create", "blue", "10.10.0.110")
    syscont(host, "network", "forward", "port", "add", "blue", "10.10.0.110", "tcp", "8080", two.address(), "80")
    until(host, lambda: host.run(look, check=False).stdout.strip() == "it works")
    syscont(host, "network", "forward", "delete", "blue", "10.10.0.110")
    until(host, lambda: host.run(look, check=False).returncode != 0)


def test_routes_on_the_uplink(host: Host, two: Instance) -> None:
    """What is behind a guest is reached from outside as it is, and seen there as it is."""
    look = ["/usr/bin/python3", "-c", "import urllib.request as u; "
            "print(u.urlopen('http://198.51.100.5/page', timeout=10).read().decode())"]  # fmt: skip
    wanted = ("device", "set", "two", "eth0", "ipv4.routes.external=198.51.100.4/31")
    assert "is not in ipv4.routes of network syscontbr0" in syscont(host, *wanted, check=False).stderr
    syscont(host, "network", "set", "syscontbr0", "ipv4.routes=198.51.100.0/24")
    syscont(host, *wanted)
    two.sh("ip addr add 198.51.100.5/32 dev eth0")
    until(host, lambda: host.run(look, check=False).stdout.strip() == "it works")
    with host.spawn(["/usr/bin/python3", "-c", SERVER]):
        two.sh(f"ip route add {WAY_OUT}/32 via 10.50.0.1 src 198.51.100.5")
        ask = f"nc -w 5 {WAY_OUT} 7777 </dev/null 2>/dev/null || true"
        assert until(host, lambda: two.sh(ask)) == "198.51.100.5"
    refused = syscont(host, "network", "unset", "syscontbr0", "ipv4.routes", check=False).stderr
    assert "device eth0 of two: ipv4.routes.external: 198.51.100.4/31" in refused
    syscont(host, "device", "unset", "two", "eth0", "ipv4.routes.external")
    until(host, lambda: host.run(look, check=False).returncode != 0)
    two.sh(f"ip route del {WAY_OUT}/32; ip addr del 198.51.100.5/32 dev eth0")
    syscont(host, "network", "unset", "syscontbr0", "ipv4.routes")


def peers(host: Host, network: str) -> dict[str, str]:
    found = json.loads(syscont(host, "network", "peer", "list", network, "--format", "json").stdout)
    return {one["targetNetwork"]: one["status"] for one in found}


def test_peers(host: Host, one: Instance) -> None:
    syscont(host, "network", "create", "red", "--type", "ovn", "network=none")
    other = launched(host, "other", "red")
    assert not reaches(other, WAY_OUT)
    syscont(host, "network", "peer", "create", "blue", "to-red", "red")
    assert peers(host, "blue") == {"red": "pending"}
    assert not reaches(one, other.address())
    syscont(host, "network", "peer", "create", "red", "to-blue", "blue")
    assert (peers(host, "blue"), peers(host, "red")) == ({"red": "created"}, {"blue": "created"})
    until(host, lambda: reaches(one, other.address()))
    assert not reaches(other, WAY_OUT)
    assert "network blue" in syscont(host, "network", "delete", "red", check=False).stderr
    syscont(host, "network", "peer", "delete", "blue", "to-red")
    assert peers(host, "red") == {"blue": "pending"}
    until(host, lambda: not reaches(one, other.address()))
    syscont(host, "delete", "--force", "other")
    syscont(host, "network", "delete", "red")


@pytest.mark.parametrize(
    "gone",
    [
        "ovn-nbctl lr-del $(ovn-nbctl --bare --columns=name find Logical_Router name!=another-router)",
        "ovn-nbctl lsp-del $(ovn-nbctl --bare --columns=name list Logical_Switch_Port | grep -- -nic- | head -n 1)",
        pytest.param("ovn-nbctl --all destroy DHCP_Options", marks=pytest.mark.heavy),
        "for port in $(ovs-vsctl list-ports br-int | grep ^vethsc); do ovs-vsctl del-port $port; done",
        pytest.param("ovs-vsctl remove open_vswitch . external_ids ovn-bridge-mappings", marks=pytest.mark.heavy),
    ],
)
def test_what_somebody_took_away_is_put_back(host: Host, one: Instance, two: Instance, gone: str) -> None:
    before = [host.sh(look) for look in LOOKS]
    host.sh(gone)
    until(host, lambda: [host.sh(look) for look in LOOKS] == before)
    until(host, lambda: reaches(one, two.address()) and reaches(one, WAY_OUT))


LOOKS = (
    "ovn-nbctl --bare --columns=name list Logical_Router | sort",
    "ovn-nbctl --bare --columns=name list Logical_Switch_Port | sort",
    "ovn-nbctl --bare --columns=cidr list DHCP_Options | sort",
    "ovs-vsctl list-ports br-int | grep ^vethsc | sort",
    "ovs-vsctl get open_vswitch . external_ids:ovn-bridge-mappings",
)


@pytest.mark.heavy
def test_the_controller_is_started_anew_under_traffic(host: Host, one: Instance, two: Instance) -> None:
    with host.spawn(["syscont", "exec", "one", "--", "ping", "-c", "20", "-W", "2", two.address()]) as pinging:
        time.sleep(4)
        host.sh("systemctl restart ovn-controller.service")
        said, _ = pinging.communicate(timeout=120)
    assert int(said.partition(" packets received")[0].rpartition(" ")[2]) >= 15, said
    assert reaches(one, two.address())


def test_the_database_is_away(host: Host, one: Instance, two: Instance) -> None:
    """Guests go on, others are served, and all is well when it comes back."""
    host.sh("systemctl stop ovn-ovsdb-server-nb.service")
    try:
        argv = ["network", "create", "green", "--type", "ovn", "network=syscontbr0", "ipv4.address=10.70.0.1/24"]
        with host.spawn(["syscont", *argv]) as creating:
            began = time.monotonic()
            syscont(host, "list")
            assert time.monotonic() - began < 5
            _, said = creating.communicate(timeout=60)
        assert creating.returncode == 1
        assert "northbound database" in said
        assert reaches(one, two.address())
        two.do("restart", "--force")
        two.address()
        two.sh(WEB)
        syscont(host, "network", "create", "brown", "--type", "ovn", "network=none", "ipv4.address=10.71.0.1/24",
                check=False)  # fmt: skip
        assert "brown" not in syscont(host, "network", "list").stdout
        # What is not in force yet is not said to be.
        syscont(host, "network", "acl", "create", "late")
        done = syscont(host, "device", "set", "two", "eth0", "security.acls=late", check=False)
        assert done.returncode == 1
        assert "two is changed, and network blue is told later" in done.stderr
        assert reaches(one, two.address())
    finally:
        host.sh("systemctl start ovn-ovsdb-server-nb.service")
    until(host, lambda: not reaches(one, two.address()))
    syscont(host, "device", "unset", "two", "eth0", "security.acls")
    assert reaches(one, two.address())
    syscont(host, "network", "acl", "delete", "late")
    until(host, lambda: syscont(host, *argv, check=False).returncode == 0)
    syscont(host, "network", "delete", "green")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["network=blue"], "an uplink is of type bridge or physical"),
        (["network=nothing"], "no network"),
        ([], "network is missing"),
        (["network=syscontbr0", "ipv4.address=10.50.0.129/25"], "overlaps"),
        (["network=none", "ipv4.nat=true", "ipv4.address=10.71.0.1/24"], "leads nowhere"),
        (["network=syscontbr0", "bridge.mtu=1000", "ipv6.address=fd00:71::1/64"], "too small for IPv6"),
    ],
)
def test_bad_networks(host: Host, blue: str, words: list[str], why: str) -> None:
    done = syscont(host, "network", "create", "bad", "--type", "ovn", *words, check=False)
    assert done.returncode
    assert why in done.stderr
    assert "bad" not in syscont(host, "network", "list").stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ipv4.ovn.ranges=10.10.0.105-10.10.0.110"], "has 10.10.0.100 of syscontbr0"),
        (["ipv4.ovn.ranges=10.10.0.90-10.10.0.110"], "leased"),
        (["ipv4.ovn.ranges=10.11.0.1-10.11.0.2"], "not in"),
    ],
)
def test_what_an_uplink_has_given_it_keeps(host: Host, blue: str, words: list[str], why: str) -> None:
    done = syscont(host, "network", "set", "syscontbr0", *words, check=False)
    assert done.returncode
    assert why in done.stderr
    assert "network blue" in syscont(host, "network", "delete", "syscontbr0", check=False).stderr


def test_an_interface_comes_and_goes(host: Host, two: Instance) -> None:
    syscont(host, "launch", "busybox", "late", "--no-profiles")
    late = Instance(host, "late")
    syscont(host, "network", "attach", "blue", "late", "eth0")
    late.sh("ip link set eth0 up; udhcpc -i eth0 -n -q -t 10 -T 2")
    assert reaches(late, two.address())
    port = host.sh("ovs-vsctl list-ports br-int | grep ^vethsc | wc -l")
    syscont(host, "network", "detach", "blue", "late")
    until(host, lambda: host.sh("ovs-vsctl list-ports br-int | grep ^vethsc | wc -l") != port)
    syscont(host, "delete", "--force", "late")
