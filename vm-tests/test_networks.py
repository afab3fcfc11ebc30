# SPDX-License-Identifier: Apache-2.0
"""Networks made, changed and deleted while guests run in them: what packets, names and leases say of it."""

import ipaddress
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Launch
from guests import Done, Instance, renew, syscont, systemd_property, until
from hosts import Host
from leftovers import expect_same, nothing_happens, settled

MakeNetwork = Callable[..., str]
_numbers = itertools.count(1)


@pytest.fixture
def network(host: Host) -> Iterator[MakeNetwork]:
    """Makes networks of the test's own; they go at its end, and whoever is in them."""
    made: list[str] = []

    def one(*options: str, name: str = "") -> str:
        made.append(name or f"net{next(_numbers)}")
        syscont(host, "network", "create", made[-1], *options)
        return made[-1]

    yield one
    for name in made:
        for user in seen(host, name).get("usedBy", []):
            syscont(host, "delete", "--force", user)
        syscont(host, "network", "delete", name, check=False)


def seen(host: Host, name: str) -> dict[str, Any]:
    found = syscont(host, "network", "show", name, "--format", "json", check=False)
    return json.loads(found.stdout) if found.stdout else {}


def config(host: Host, name: str) -> dict[str, str]:
    found: dict[str, str] = seen(host, name)["config"]
    return found


def leases(host: Host, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        syscont(host, "network", "list-leases", name, "--format", "json").stdout
    )
    return found


def asked(host: Host, name: str, what: str, kind: str = "A") -> list[str]:
    """What a network's dnsmasq says of a name in its domain."""
    shown = seen(host, name)
    gateway = shown["ipv4"].split("/")[0]
    argv = ["dig", "+short", "+timeout=1", kind, f"{what}.{shown['domain']}", f"@{gateway}"]
    return host.run(argv, check=False).stdout.split()


def reaches(instance: Instance, target: str, version: int = 4) -> bool:
    return not instance.exec("ping", f"-{version}", "-c1", "-W2", target, check=False).returncode


def address_in(instance: Instance, subnet: str) -> str:
    wanted = ipaddress.ip_network(subnet)

    def look() -> str:
        found = [one for one in instance.seen()["addresses"] if ipaddress.ip_address(one) in wanted]
        return found[0] if found else ""

    return until(instance.host, look, patience=30)


def refused(host: Host, *argv: str) -> str:
    done = syscont(host, *argv, check=False)
    assert done.returncode in (1, 2, 3), done
    return str(done.stderr)


def test_two_networks_at_once(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one, two = network("ipv4.address=10.231.1.1/24", "ipv4.nat=true"), network("dns.domain=two.example")
    assert config(host, two)["ipv4.nat"] == "true"  # with addresses that were made up
    first, beside, other = launch("", "-n", one), launch("", "-n", one), launch("", "-n", two)
    addresses = [each.address() for each in (first, beside, other)]
    for address, name in zip(addresses, (one, one, two), strict=True):
        assert ipaddress.ip_address(address) in ipaddress.ip_interface(seen(host, name)["ipv4"]).network
    assert reaches(first, beside.name)
    assert reaches(first, addresses[1])
    until(host, lambda: reaches(first, beside.address(6), 6))  # not before duplicates were looked for
    assert reaches(first, addresses[2])  # the host routes between them
    beyond = host.sh("ip -4 route show default").split()[2]
    assert reaches(first, beyond)
    assert reaches(other, beyond)
    assert asked(host, one, first.name) == [addresses[0]]
    assert asked(host, one, other.name) == []
    assert asked(host, two, other.name) == [addresses[2]]
    until(host, lambda: addresses[2] in host.run(
        ["resolvectl", "query", "--legend=no", f"{other.name}.two.example"], check=False).stdout)


def test_used_networks_stay(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network()
    instance = launch("", "-n", one, verb="create")
    for verb in (("delete", one), ("rename", one, "other0")):
        assert f"network {one} is in use by {instance.name}" in refused(host, "network", *verb)
    syscont(host, "profile", "create", "onnet")
    syscont(host, "profile", "device", "add", "onnet", "eth1", "nic", f"network={one}")
    instance.do("delete")
    assert "in use by profile onnet" in refused(host, "network", "delete", one)
    assert seen(host, one)["profiles"] == ["onnet"]
    syscont(host, "profile", "delete", "onnet")
    assert "is in use by" in refused(host, "network", "delete", "syscontbr0")


def test_nothing_is_left_of_a_network(host: Host, busybox: str) -> None:
    with nothing_happens(host):
        rules = host.sh("nft list ruleset")
        syscont(host, "network", "create", "gone0", "ipv4.routes=10.250.0.0/16")
        assert "10.250.0.0/16" in host.sh("ip route")
        syscont(host, "network", "rename", "gone0", "gone1")
        assert "gone0" not in host.sh("ip link; nft list tables; ls /var/lib/syscont/networks")
        assert config(host, "gone1")["ipv4.routes"] == "10.250.0.0/16"
        syscont(host, "launch", busybox, "visitor", "-n", "gone1")
        Instance(host, "visitor").address()
        syscont(host, "delete", "--force", "visitor")
        syscont(host, "network", "delete", "gone1")
        assert "gone1" not in host.sh("ip link; nft list tables; resolvectl; ip route; ls /var/lib/syscont/networks")
        assert host.sh("nft list ruleset") == rules


def test_addresses_change_while_guests_run(
    host: Host, network: MakeNetwork, launch: Launch, debian: str
) -> None:
    one = network("ipv4.address=10.231.2.1/24", "ipv4.nat=true")
    small, large = launch("", "-n", one), launch(debian, "--wait", "-n", one)
    before = [small.address(), large.address()]
    leaders = [small.leader, large.leader]
    syscont(host, "network", "set", one, "ipv4.address=10.232.2.1/24")
    # A guest that watches its carrier asks anew at once, others when they renew.
    moved = address_in(large, "10.232.2.0/24")
    renew(small)
    small_moved = address_in(small, "10.232.2.0/24")
    assert [small.leader, large.leader] == leaders
    assert reaches(large, small_moved)
    assert reaches(large, host.sh("ip -4 route show default").split()[2])
    assert asked(host, one, large.name) == [moved]
    assert "10.231.2" not in host.sh(f"ip addr show {one}; nft list table inet syscont_{one}")
    assert not {lease["address"] for lease in leases(host, one)} & set(before)


def test_a_change_that_fails_changes_nothing(host: Host, network: MakeNetwork) -> None:
    one = network("ipv4.address=10.231.3.1/24")
    unit = f"syscont-net@{one}.service"
    was, pid = seen(host, one), systemd_property(host, unit, "MainPID")
    missing = "bridge.external_interfaces=nosuch0"
    assert "no link nosuch0" in refused(host, "network", "set", one, missing, "dns.domain=x")
    uplink = host.sh("ip -4 route show default").split()[4]
    assert f"{uplink} has addresses" in refused(host, "network", "set", one, f"bridge.external_interfaces={uplink}")
    assert "dnsmasq does not take it" in refused(host, "network", "set", one, "raw.dnsmasq=dhcp-option=1,2,3,4,x")
    taken = seen(host, "syscontbr0")["ipv4"]
    assert "network syscontbr0 has it" in refused(host, "network", "set", one, f"ipv4.address={taken}")
    assert "10.231.3.9 is not in" not in refused(host, "network", "set", one, "ipv4.dhcp.ranges=10.9.9.9-10.9.9.1")
    assert (seen(host, one), systemd_property(host, unit, "MainPID")) == (was, pid)


HOSTILE = [
    ("ipv4.address", "10.1.2.3/24\n--dhcp-script=/bin/sh"), ("dns.domain", "a,b"), ("dns.domain", "x/y"),
    ("dns.domain", "x\ny"), ("dns.search", "a b"), ("ipv4.dhcp.ranges", "10.1.1.1-10.1.1.9,set:x"),
    ("ipv4.dhcp.expiry", "1h,2h"), ("ipv4.nat.address", "1.2.3.4; flush ruleset"), ("ipv4.routes", "0.0.0.0/0 dev lo"),
    ("bridge.hwaddr", "$(id)"), ("bridge.external_interfaces", "../../etc"), ("bridge.mtu", "1e9"),
    ("raw.dnsmasq", "conf-file=/etc/shadow"), ("raw.dnsmasq", "address=/x/1.2.3.4\ndhcp-script=/bin/sh"),
    ("ipv6.address", "fe80::1/64"), ("ipv4.address", "10.1.2.0/24"), ("volatile.link.created", "true"),
]  # fmt: skip


def test_bad_values_name_their_key(host: Host) -> None:
    with nothing_happens(host):
        for key, value in HOSTILE:
            assert key in refused(host, "network", "set", "syscontbr0", f"{key}={value}"), value
            assert key in refused(host, "network", "create", "bad0", f"{key}={value}"), value
        for name in ("all", "lo", "a b", "../x", "x" * 16, "a;b"):
            assert "network" in refused(host, "network", "create", name)
        link = host.sh("ip -4 route show default").split()[4]
        assert "already" in refused(host, "network", "create", link)
        assert "already" in refused(host, "network", "create", "syscontbr0")
        assert "not offered" in refused(host, "network", "create", "x0", "-c", "bridge.driver=openvswitch")


def test_kept_addresses(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network("ipv4.address=10.231.4.1/24", "ipv6.address=fd42:231:4::1/64", "ipv6.dhcp.stateful=true")

    def device(address: str) -> str:
        return f"eth0,type=nic,network={one},ipv4.address={address}"

    instance = launch("", "-d", device("10.231.4.77"))
    assert instance.address() == "10.231.4.77"
    assert asked(host, one, instance.name) == ["10.231.4.77"]
    for address, why in (("10.231.4.77", "kept for another"), ("10.9.9.9", "is not in network"),
                         ("10.231.4.1", "not for guests"), ("10.231.4.x", "not addresses")):  # fmt: skip
        assert why in refused(host, "create", "busybox", "nobody", "-d", device(address))
    two = "ipv4.address=10.231.4.7,10.231.4.8"
    assert "one address only" in refused(host, "device", "set", instance.name, "eth0", two)
    assert "not in network" in refused(host, "network", "set", one, "ipv4.address=10.235.0.1/24")
    assert "leases no addresses" in refused(host, "network", "set", one, "ipv4.dhcp=false")
    syscont(host, "device", "set", instance.name, "eth0", "ipv4.address=10.231.4.78")
    renew(instance)
    assert address_in(instance, "10.231.4.78/32")
    instance.do("stop", "--force")
    found = {(lease["hostname"], lease["address"], lease["type"]) for lease in leases(host, one)}
    assert (instance.name, "10.231.4.78", "static") in found
    assert ("_gateway.syscont", "10.231.4.1", "gateway") in found


def test_leases_of_stopped_instances(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network("ipv4.address=10.231.5.1/24")
    instance = launch("", "-n", one)
    address, six = instance.address(), instance.address(6)
    assert {address, six} <= {lease["address"] for lease in leases(host, one)}
    instance.do("stop", "--force")
    (lease,) = [each for each in leases(host, one) if each["address"] == address]
    assert (lease["hostname"], lease["type"], lease["project"]) == (instance.name, "dynamic", "default")
    assert lease["expires"] > 1_600_000_000
    instance.do("delete")
    until(host, lambda: address not in {each["address"] for each in leases(host, one)})


def test_what_dhcp_tells_is_what_the_network_says(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network("ipv4.address=10.231.6.1/24", "ipv4.dhcp.ranges=10.231.6.40-10.231.6.41", "bridge.mtu=1400",
                  "ipv6.address=none", "raw.dnsmasq=address=/answer.example/192.0.2.9")  # fmt: skip
    instance = launch("", "-n", one)
    assert instance.address() in ("10.231.6.40", "10.231.6.41")
    assert instance.exec("cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"
    gateway = "10.231.6.1"
    assert host.run(["dig", "+short", "answer.example", f"@{gateway}"]).stdout == "192.0.2.9\n"
    syscont(host, "network", "set", one, "dns.mode=none")
    assert host.run(["dig", "+short", f"{instance.name}.syscont", f"@{gateway}"]).stdout == ""
    syscont(host, "network", "set", one, "dns.mode=managed", "dns.domain=lab.example")
    until(host, lambda: asked(host, one, instance.name) == [instance.address()])


def test_nat_and_routing_go_and_come(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network("ipv4.address=10.231.7.1/24", "ipv4.nat=true", "ipv6.address=none")
    instance = launch("", "-n", one)
    instance.address()
    beyond = host.sh("ip -4 route show default").split()[2]
    assert reaches(instance, beyond)
    for key in ("ipv4.nat", "ipv4.routing"):
        syscont(host, "network", "set", one, f"{key}=false")
        assert not reaches(instance, beyond), key
        assert reaches(instance, "10.231.7.1"), key
        syscont(host, "network", "set", one, f"{key}=true")
        assert reaches(instance, beyond), key
    ours = host.sh("ip -4 -brief address show").split()
    address = next(word.split("/")[0] for word in ours if "/" in word and not word.startswith(("127.", "10.231.7.")))
    syscont(host, "network", "set", one, f"ipv4.nat.address={address}", "ipv4.nat.order=after")
    assert f"snat ip to {address}" in host.sh(f"nft list table inet syscont_{one}")


def test_networks_of_the_hosts_links(host: Host, network: MakeNetwork, launch: Launch) -> None:
    host.sh("ip link add wire0 type veth peer name wire1; ip addr add 10.231.8.1/24 dev wire0; ip link set wire0 up;"
            "ip link set wire1 up")  # fmt: skip
    try:
        lan = network("--type", "macvlan", "parent=wire1", "mtu=1400")
        instance = launch("", "-n", lan)
        instance.sh("ip addr add 10.231.8.2/24 dev eth0; ip link set eth0 up")
        assert instance.exec("cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"
        assert reaches(instance, "10.231.8.1")
        assert "not for networks of type" in refused(
            host, "create", "busybox", "nobody", "-d", f"eth0,type=nic,network={lan},ipv4.address=10.231.8.9")
        instance.do("delete", "--force")
        own = network("--type", "physical", "parent=wire1")
        owner = launch("", "-n", own)
        assert "wire1" not in host.sh("ip -o link show | cut -d: -f2")
        owner.sh("ip addr add 10.231.8.2/24 dev eth0; ip link set eth0 up")
        until(host, lambda: reaches(owner, "10.231.8.1"))
        owner.do("delete", "--force")
        until(host, lambda: "wire1" in host.sh("ip -o link show"))
    finally:
        host.sh("ip link delete wire0")


def test_isolated_ports(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one = network("ipv4.address=10.231.13.1/24", "ipv6.address=none")
    device = f"eth0,type=nic,network={one},security.port_isolation=true"
    first, second, open_one = launch("", "-d", device), launch("", "-d", device), launch("", "-n", one)
    first.address(), second.address()
    assert not reaches(first, second.address())
    assert reaches(first, open_one.address())
    assert reaches(first, "10.231.13.1")
    # Also after a reboot, for which the daemon is not needed.
    leader = second.leader
    second.sh("reboot")
    until(host, lambda: second.leader not in (0, leader))
    assert not reaches(second, first.address())
    syscont(host, "device", "unset", second.name, "eth0", "security.port_isolation")
    renew(second)
    until(host, lambda: reaches(first, second.address()))


@pytest.mark.needs_controllers
def test_networks_in_vlans(host: Host, network: MakeNetwork, launch: Launch) -> None:
    host.sh("ip link add wire0 type veth peer name wire1; ip link set wire0 up; ip link set wire1 up;"
            "ip link add link wire0 name wire0.20 type vlan id 20; ip addr add 10.231.8.1/24 dev wire0.20;"
            "ip link set wire0.20 up")  # fmt: skip
    try:
        plain = network("--type", "macvlan", "parent=wire1")
        tagged = network("--type", "macvlan", "parent=wire1", "vlan=20")
        inside, outside = launch("", "-n", tagged), launch("", "-n", plain)
        for number, each in enumerate((inside, outside), 2):
            each.sh(f"ip addr add 10.231.8.{number}/24 dev eth0; ip link set eth0 up")
        assert reaches(inside, "10.231.8.1")
        assert not reaches(outside, "10.231.8.1")
        assert "in use" in refused(host, "network", "set", tagged, "vlan=21")
        inside.do("delete", "--force")
        syscont(host, "network", "set", tagged, "vlan=21")
        assert "wire1.21@wire1" in host.sh("ip link")
        assert "wire1.20@" not in host.sh("ip link")
        syscont(host, "network", "delete", tagged)
        assert "wire1.21" not in host.sh("ip link")
    finally:
        host.sh("ip link delete wire0")


def test_external_interfaces(host: Host, network: MakeNetwork, launch: Launch) -> None:
    """Somebody at the other end of a wire is in the network."""
    host.sh("ip link add wire0 type veth peer name wire1; ip netns add far; ip link set wire0 netns far;"
            "ip -n far addr add 10.231.9.9/24 dev wire0; ip -n far link set wire0 up")  # fmt: skip
    try:
        one = network("ipv4.address=10.231.9.1/24", "bridge.external_interfaces=wire1")
        instance = launch("", "-n", one)
        instance.address()
        assert reaches(instance, "10.231.9.9")
        syscont(host, "network", "unset", one, "bridge.external_interfaces")
        assert not reaches(instance, "10.231.9.9")
        assert "master" not in host.sh("ip -o link show wire1")
    finally:
        host.sh("ip netns delete far; ip link delete wire1", check=False)


def test_attach_and_detach(host: Host, network: MakeNetwork, launch: Launch) -> None:
    one, instance = network("ipv4.address=10.231.10.1/24"), launch()
    syscont(host, "network", "attach", one, instance.name, "lan", "lan0")
    instance.sh("ip link set lan0 up; udhcpc -i lan0 -n -q -s /etc/udhcpc/default.script", check=False)
    assert instance.name in seen(host, one)["usedBy"]
    syscont(host, "network", "detach", one, instance.name)
    assert "lan0" not in instance.sh("ip link")
    assert "no such device" in refused(host, "network", "detach", one, instance.name)
    assert "no network" in refused(host, "network", "attach", "nosuch", instance.name)
    assert "no network 'nosuch'" in refused(host, "device", "add", instance.name, "x", "nic", "network=nosuch")


APPLY = """
networks:
- name: applied0
  config: {ipv4.address: 10.231.11.1/24, ipv6.address: none, dns.domain: lab.example}
instances:
- name: applied-one
  image: busybox
  devices: {eth0: {type: nic, network: applied0, ipv4.address: 10.231.11.5}}
  state: running
"""


def test_apply_makes_networks(host: Host, busybox: str) -> None:
    def apply(text: str, *options: str) -> Done:
        return syscont(host, "apply", "-", "--yes", "--exit-code", *options, input=text, check=False)

    with nothing_happens(host):
        try:
            assert apply(APPLY, "--dry-run").returncode == 10
            assert seen(host, "applied0") == {}
            assert apply(APPLY).returncode == 10
            assert apply(APPLY).returncode == 0
            assert Instance(host, "applied-one").address() == "10.231.11.5"
            changed = apply(APPLY.replace("lab.example", "other.example"))
            assert "dns.domain: lab.example -> other.example" in changed.stdout
            assert asked(host, "applied0", "applied-one") == ["10.231.11.5"]
            edited = syscont(host, "network", "edit", "applied0", input="description: Ours\n")
            assert "Ours" in edited.stdout
            assert seen(host, "applied0")["description"] == "Ours"
        finally:
            syscont(host, "delete", "--force", "applied-one", check=False)
            syscont(host, "network", "delete", "applied0", check=False)


def test_networks_on_the_bus(host: Host, network: MakeNetwork) -> None:
    one = network("ipv4.address=10.231.12.1/24")
    path = f"/org/syscont/Manager/network/{one}"
    call = ["busctl", "call", "org.syscont.Manager"]

    def get(name: str) -> str:
        argv = ["busctl", "get-property", "org.syscont.Manager", path, "org.syscont.Network", name]
        return host.run(argv).stdout.strip()

    assert (get("Type"), get("IPv4")) == ('s "bridge"', 's "10.231.12.1/24"')
    host.run([*call, path, "org.syscont.Network", "ChangeConfig", "a{ss}as", "1", "dns.domain", "bus.example", "0"])
    assert get("Domain") == 's "bus.example"'
    made = host.run([*call, "/org/syscont/Manager", "org.syscont.Manager", "CreateNetwork", "sa{sv}", "bus0", "1",
                     "config", "a{ss}", "1", "ipv4.address", "none"])  # fmt: skip
    assert made.stdout == 'o "/org/syscont/Manager/network/bus0"\n'
    assert "10.231.12.1" in host.run([*call, path, "org.syscont.Network", "GetLeases"]).stdout
    assert '"10.231.12.1/24"' in host.run([*call, path, "org.syscont.Network", "GetState"]).stdout
    assert host.run([*call, path, "org.syscont.Network", "GetUsers"]).stdout == "asas 0 0\n"
    host.run([*call, "/org/syscont/Manager/network/bus0", "org.syscont.Network", "Delete"])
    assert seen(host, "bus0") == {}
    mine = ["runuser", "-u", "nobody", "--", *call, path, "org.syscont.Network", "Delete"]
    denied = host.run(mine, check=False)
    assert denied.returncode, denied
    assert seen(host, one)


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1])
def test_a_daemon_that_dies_makes_no_half_networks(host: Host, moment: float) -> None:
    before = settled(host)
    die = f"sleep {moment}; systemctl kill -s KILL syscontd.service; wait"
    host.sh(f"syscont network create half0 & {die}", check=False)
    until(host, lambda: host.run(["syscont", "network", "list"], check=False).returncode == 0)
    names = {network["name"] for network in json.loads(syscont(host, "network", "list", "--format", "json").stdout)}
    if "half0" in names:
        assert host.run(["systemctl", "is-active", "syscont-net@half0.service"]).stdout == "active\n"
        host.sh(f"syscont network delete half0 & {die}", check=False)
        until(host, lambda: host.run(["syscont", "network", "list"], check=False).returncode == 0)
        syscont(host, "network", "delete", "half0", check=False)
    expect_same(host, before)


ROUTES = "(ip route; ip -6 route) | sed 's/ linkdown//'"


@pytest.mark.heavy
def test_networks_at_random_leave_nothing(host: Host) -> None:
    """200 of them, made, changed, renamed and deleted, some of it refused."""
    choice = random.Random(7)
    changes = ["ipv4.nat=false", "ipv4.routing=false", "dns.mode=none", "dns.domain=x.example", "bridge.mtu=9000",
               "ipv6.dhcp.stateful=true", "ipv4.address=none", "ipv4.address=auto", "ipv4.routes=10.251.0.0/16",
               "ipv6.address=none", "ipv4.nat.order=after", "ipv4.dhcp.ranges=10.0.0.9-10.0.0.1"]  # fmt: skip
    with nothing_happens(host):
        rules, routes = host.sh("nft list ruleset"), host.sh(ROUTES)
        there: list[str] = []
        for number in range(200):
            there.append(f"rnd{number}")
            syscont(host, "network", "create", there[-1], *choice.sample(changes[:7], 2), check=False)
            syscont(host, "network", "set", choice.choice(there), choice.choice(changes), check=False)
            if choice.random() < 0.2:
                gone = there.pop(choice.randrange(len(there)))
                there.append(f"{gone}r")
                syscont(host, "network", "rename", gone, there[-1], check=False)
            if len(there) > 5:
                syscont(host, "network", "delete", there.pop(0), check=False)
        left = json.loads(syscont(host, "network", "list", "--format", "json").stdout)
        syscont(host, "network", "delete", *[one["name"] for one in left if one["name"].startswith("rnd")])
        assert host.sh("nft list ruleset") == rules
        assert host.sh(ROUTES) == routes
        assert "rnd" not in host.sh("resolvectl status")


def test_the_default_network_is_made_once(host: Host, make_host: Callable[..., Host]) -> None:
    fresh = make_host()
    shown = seen(fresh, "syscontbr0")
    assert shown["ipv4"]
    assert "syscontbr0" in fresh.sh("ip link")
    syscont(fresh, "profile", "device", "remove", "default", "eth0")
    syscont(fresh, "network", "delete", "syscontbr0")
    fresh.run(["systemctl", "restart", "syscontd.service"])
    assert seen(fresh, "syscontbr0") == {}
    assert "syscontbr0" not in fresh.sh("ip link; nft list tables")
