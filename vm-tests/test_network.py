# SPDX-License-Identifier: Apache-2.0
"""The managed network: addresses, names, NAT, and keeping out of the way of others."""

import ipaddress
import json
from typing import Any

import pytest
from conftest import Launch
from guests import Instance, syscont, systemd_property, until
from hosts import Host

UNIT = "syscont-net@syscontbr0.service"


@pytest.fixture
def network(host: Host, guest: Instance) -> dict[str, Any]:
    (found,) = json.loads(syscont(host, "network", "list", "--format", "json").stdout)
    return dict(found)


def test_a_network_knows_who_uses_it(network: dict[str, Any], guest: Instance) -> None:
    assert guest.name in network["usedBy"]  # by its profile


def resolved(host: Host, name: str) -> set[str]:
    """What systemd-resolved, which all programs of the host ask, says of a name."""
    done = host.run(["resolvectl", "query", "--legend=no", name], check=False)
    return set(done.stdout.split())


def asked(host: Host, network: dict[str, Any], name: str, kind: str = "A") -> list[str]:
    """What the network's own dnsmasq says of a name."""
    gateway = network["ipv4"].split("/")[0]
    argv = ["dig", "+short", "+timeout=1", kind, f"{name}.{network['domain']}", f"@{gateway}"]
    return host.run(argv, check=False).stdout.split()


def reaches(instance: Instance, target: str, version: int = 4) -> bool:
    return not instance.exec("ping", f"-{version}", "-c1", "-W3", target, check=False).returncode


@pytest.mark.parametrize("kind", ["guest", "debian_guest"])
@pytest.mark.parametrize("version", [4, 6])
def test_addresses_come_by_themselves(
    host: Host, network: dict[str, Any], request: pytest.FixtureRequest, kind: str, version: int
) -> None:
    instance: Instance = request.getfixturevalue(kind)
    address = instance.address(version)
    subnet = ipaddress.ip_interface(network[f"ipv{version}"]).network
    assert ipaddress.ip_address(address) in subnet
    # One of IPv6 is the guest's only once nobody else has answered for it (RFC 4862, 5.4).
    until(host, lambda: not host.run(["ping", "-c1", "-W3", address], check=False).returncode)
    assert address in instance.exec("ip", "address", "show", "eth0").stdout


@pytest.mark.parametrize("kind", ["guest", "debian_guest"])
def test_the_host_knows_instances_by_name(
    host: Host, network: dict[str, Any], request: pytest.FixtureRequest, kind: str
) -> None:
    instance: Instance = request.getfixturevalue(kind)
    address, name = instance.address(), f"{instance.name}.{network['domain']}"
    until(host, lambda: address in resolved(host, name))
    assert asked(host, network, instance.name) == [address]
    host.run(["ping", "-c1", "-W3", name])
    # dnsmasq gives SLAAC addresses their names once they answer.
    six = instance.address(6)
    until(host, lambda: six in asked(host, network, instance.name, "AAAA"))


@pytest.mark.parametrize("domain", ["", ".syscont"])
def test_instances_know_each_other_by_name(
    guest: Instance, debian_guest: Instance, domain: str
) -> None:
    guest.address(), debian_guest.address()
    assert reaches(guest, debian_guest.name + domain)
    assert reaches(debian_guest, guest.name + domain)


@pytest.mark.parametrize("kind", ["guest", "debian_guest"])
@pytest.mark.parametrize("domain", ["", ".syscont"])
def test_instances_know_the_host_by_name(
    host: Host, request: pytest.FixtureRequest, kind: str, domain: str
) -> None:
    instance: Instance = request.getfixturevalue(kind)
    instance.address()
    assert reaches(instance, host.run(["hostname"]).stdout.strip() + domain)


@pytest.mark.parametrize("kind", ["guest", "debian_guest"])
def test_the_world_is_reached_by_nat(
    host: Host, request: pytest.FixtureRequest, kind: str
) -> None:
    """The machine's side of the uplink has no route to the instance: an answer means NAT."""
    instance: Instance = request.getfixturevalue(kind)
    instance.address()
    beyond = host.sh("ip -4 route show default").split()[2]
    assert reaches(instance, beyond)


def test_the_subnet_is_nobody_elses(host: Host, network: dict[str, Any]) -> None:
    ours = ipaddress.ip_interface(network["ipv4"]).network
    for route in json.loads(host.run(["ip", "-json", "-4", "route"]).stdout):
        if route["dev"] != network["name"] and route["dst"] != "default":
            assert not ours.overlaps(ipaddress.ip_network(route["dst"])), route


def tables(host: Host) -> set[str]:
    return {" ".join(line.split()[1:]) for line in host.run(["nft", "list", "tables"]).stdout.splitlines()}


def test_one_firewall_table_and_no_other_is_touched(
    host: Host, guest: Instance, launch: Launch
) -> None:
    ours = "inet syscont_syscontbr0"
    assert ours in tables(host)
    host.sh("nft add table inet mine; nft add chain inet mine c; nft add rule inet mine c drop")
    try:
        foreign = host.run(["nft", "list", "table", "inet", "mine"]).stdout
        before, rules = tables(host), host.sh(f"nft list table {ours}")
        launch().do("stop", "--force")
        host.run(["systemctl", "restart", "syscontd.service"])
        assert tables(host) == before
        assert host.sh(f"nft list table {ours}") == rules
        assert host.run(["nft", "list", "table", "inet", "mine"]).stdout == foreign
    finally:
        host.run(["nft", "delete", "table", "inet", "mine"])


def test_a_lost_table_and_bridge_come_back(host: Host, guest: Instance) -> None:
    host.run(["nft", "delete", "table", "inet", "syscont_syscontbr0"])
    host.run(["systemctl", "restart", "syscontd.service"])
    assert "inet syscont_syscontbr0" in tables(host)


def test_a_guest_cannot_claim_anothers_name(
    host: Host, guest: Instance, network: dict[str, Any], launch: Launch
) -> None:
    instance = launch()
    address, victim = instance.address(), guest.address()
    for claimed in (guest.name, "gateway", "invented"):
        argv = ["udhcpc", "-i", "eth0", "-n", "-q", "-x", f"hostname:{claimed}", "-F", claimed]
        instance.exec(*argv, "-s", "/etc/udhcpc/default.script", check=False)
        wanted = [victim] if claimed == guest.name else []
        assert asked(host, network, claimed) == wanted
    assert asked(host, network, instance.name) == [address]


def test_a_deleted_instance_has_no_name(
    host: Host, network: dict[str, Any], launch: Launch
) -> None:
    """Also when it had no chance to give its lease back."""
    instance = launch()
    assert until(host, lambda: asked(host, network, instance.name)) == [instance.address()]
    instance.do("delete", "--force")
    until(host, lambda: not asked(host, network, instance.name))


def test_links_go_with_their_instance(host: Host, launch: Launch) -> None:
    def ports() -> set[str]:
        links = json.loads(host.run(["ip", "-json", "link", "show", "master", "syscontbr0"]).stdout)
        return {link["ifname"] for link in links}

    before = ports()
    instance = launch()
    assert len(ports() - before) == 1
    instance.do("restart", "--force")
    assert len(ports() - before) == 1
    instance.do("stop", "--force")
    until(host, lambda: ports() == before)


def test_dnsmasq_comes_back(host: Host, guest: Instance, network: dict[str, Any]) -> None:
    first = systemd_property(host, UNIT, "MainPID")
    address = guest.address()
    host.run(["kill", "-KILL", first])
    until(host, lambda: systemd_property(host, UNIT, "MainPID") not in ("0", first))
    until(host, lambda: address in asked(host, network, guest.name))


@pytest.mark.parametrize(
    "harm",
    [
        f"systemctl stop {UNIT}",
        f"kill $(systemctl show --property=MainPID --value {UNIT})",
        f"for i in 1 2 3 4 5 6 7 8; do systemctl kill --signal=KILL {UNIT}; sleep 0.7; done",
        "nft delete table inet syscont_syscontbr0",
        "nft flush chain inet syscont_syscontbr0 postrouting",
    ],
    ids=["stopped", "ended", "killed often", "no firewall table", "no firewall rules"],
)
def test_the_next_start_heals_the_network(
    host: Host, guest: Instance, network: dict[str, Any], launch: Launch, harm: str
) -> None:
    rules = host.sh("nft list table inet syscont_syscontbr0")
    host.sh(harm)
    instance = launch()
    address = instance.address()
    assert asked(host, network, instance.name) == [address]
    assert asked(host, network, guest.name) == [guest.address()]
    assert host.sh("nft list table inet syscont_syscontbr0") == rules


def test_a_bridge_made_anew_is_served(fresh_host: Host) -> None:
    syscont(fresh_host, "image", "build", "busybox")
    syscont(fresh_host, "launch", "busybox", "one")
    Instance(fresh_host, "one").address()
    fresh_host.run(["ip", "link", "delete", "syscontbr0"])
    fresh_host.run(["ip", "link", "add", "syscontbr0", "type", "bridge"])
    syscont(fresh_host, "launch", "busybox", "two")
    one, two = Instance(fresh_host, "one"), Instance(fresh_host, "two")
    assert two.address()
    assert reaches(two, one.address()), "who was there before is on it again"


def test_dnsmasq_reaches_no_bus(host: Host, guest: Instance) -> None:
    pid = systemd_property(host, UNIT, "MainPID")
    seen = host.sh(f"ls /proc/{pid}/root/run/dbus /proc/{pid}/root/var/lib/syscont")
    assert "socket" not in seen
    assert "syscont.db" not in seen
    assert "AF_UNIX" not in systemd_property(host, UNIT, "RestrictAddressFamilies").split()
    assert systemd_property(host, UNIT, "SystemCallFilter")


def test_the_host_takes_no_address_or_route_from_guests(host: Host, network: dict[str, Any]) -> None:
    """A guest that advertises itself as a router must not become the host's."""
    name = network["name"]
    assert host.read_text(f"/proc/sys/net/ipv6/conf/{name}/accept_ra") == "0\n"
    (link,) = json.loads(host.run(["ip", "-json", "address", "show", "dev", name]).stdout)
    found = {one["local"] for one in link["addr_info"] if one["scope"] == "global"}
    assert found == {network[f"ipv{version}"].split("/")[0] for version in (4, 6)}


def test_the_outside_cannot_ask_our_dns(host: Host, guest: Instance) -> None:
    """dnsmasq listens on the bridge alone: it is no open resolver, no foreign DHCP server."""
    lines = [line for line in host.run(["ss", "-lnpuH"]).stdout.splitlines() if "dnsmasq" in line]
    assert lines
    for line in lines:
        local = line.split()[3]
        assert "%syscontbr0" in local or local.startswith(("10.", "[fd42", "[fe80")), line
