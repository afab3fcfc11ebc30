# SPDX-License-Identifier: Apache-2.0
"""Forwards of networks: what comes for an address of the host's, from near and far, and who answers."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Launch
from far import HERE, THERE, Far
from guests import Instance, program, syscont, unique, until
from hosts import Host
from leftovers import nothing_happens

LISTEN, LISTEN6 = "198.51.100.7", "2001:db8:7::7"
MANAGER = ("org.syscont.Manager", "/org/syscont/Manager")


@pytest.fixture(scope="module")
def far(host: Host) -> Iterator[Far]:
    made = Far(host)
    made.sh(f"ip route add {LISTEN} via {HERE}")
    host.sh(f"ip addr add {LISTEN}/32 dev lo; ip addr add {LISTEN6}/128 dev lo")
    yield made
    host.sh(f"ip addr del {LISTEN}/32 dev lo; ip addr del {LISTEN6}/128 dev lo")
    made.close()


@pytest.fixture(scope="module")
def network(host: Host) -> Iterator[str]:
    name = unique("net")
    syscont(host, "network", "create", name, "ipv4.address=10.82.0.1/24", "ipv6.address=fd82::1/64")
    yield name
    syscont(host, "network", "delete", name)


@pytest.fixture(autouse=True)
def no_forwards(host: Host, network: str) -> Iterator[None]:
    yield
    for each in forwards(host, network):
        syscont(host, "network", "forward", "delete", network, each["listenAddress"])


def forwards(host: Host, network: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        syscont(host, "network", "forward", "list", network, "--format", "json").stdout
    )
    return found


def forward(host: Host, *words: str, check: bool = True) -> str:
    return syscont(host, "network", "forward", *words, check=check).stderr


def serving(launch: Launch, network: str, address: str, *ports: int) -> Instance:
    """Says its name to whoever connects."""
    one = launch("", "-d", f"eth0,type=nic,network={network},ipv4.address={address}")
    one.address()
    for port in ports:
        one.sh(f"while :; do echo $(hostname) {port} | nc -l -p {port}; done >/dev/null 2>&1 </dev/null &")
    return one


def asked(port: int, address: str = LISTEN) -> str:
    """What to run to learn who answers."""
    return f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}; cat <&3' 2>/dev/null || true"


def test_ports_go_to_guests(host: Host, far: Far, network: str, launch: Launch) -> None:
    web, other = (serving(launch, network, f"10.82.0.{end}", 80, 81, 8080) for end in (5, 6))
    forward(host, "create", network, LISTEN, "--description", "the world's")
    assert far.sh(asked(80)) == ""
    forward(host, "port", "add", network, LISTEN, "tcp", "80-81", "10.82.0.5")
    forward(host, "port", "add", network, LISTEN, "tcp", "2222", "10.82.0.6", "8080")
    until(host, lambda: far.sh(asked(80)) == f"{web.name} 80\n")
    until(host, lambda: far.sh(asked(81)) == f"{web.name} 81\n")
    until(host, lambda: far.sh(asked(2222)) == f"{other.name} 8080\n")
    assert far.sh(asked(8080)) == ""
    # The host itself, and a neighbour, whose packets would else be answered past the host.
    until(host, lambda: host.sh(asked(80)) == f"{web.name} 80\n")
    until(host, lambda: other.sh(f"nc -w 2 {LISTEN} 80 </dev/null") == f"{web.name} 80\n")
    forward(host, "port", "remove", network, LISTEN, "tcp", "80-81")
    assert far.sh(asked(80)) == ""
    until(host, lambda: far.sh(asked(2222)) == f"{other.name} 8080\n")
    (seen,) = forwards(host, network)
    assert (seen["description"], [port["listenPorts"] for port in seen["ports"]]) == ("the world's", ["2222"])
    for one in (web, other):
        one.do("delete", "--force")


def test_many_ports_become_others(host: Host, far: Far, network: str, launch: Launch) -> None:
    one = serving(launch, network, "10.82.0.5", 7001, 7002)
    forward(host, "create", network, LISTEN)
    forward(host, "port", "add", network, LISTEN, "tcp", "90,81", "10.82.0.5", "7001-7002")
    until(host, lambda: far.sh(asked(90)) == f"{one.name} 7001\n")
    until(host, lambda: far.sh(asked(81)) == f"{one.name} 7002\n")
    one.do("delete", "--force")


def test_all_goes_to_one_guest(host: Host, far: Far, network: str, launch: Launch) -> None:
    """But for ports that have a target of their own."""
    main, other = (serving(launch, network, f"10.82.0.{end}", 80, 81) for end in (5, 6))
    forward(host, "create", network, LISTEN, "target_address=10.82.0.5")
    forward(host, "port", "add", network, LISTEN, "tcp", "81", "10.82.0.6")
    until(host, lambda: far.sh(asked(80)) == f"{main.name} 80\n")
    until(host, lambda: far.sh(asked(81)) == f"{other.name} 81\n")
    namespace = f"--net=/proc/{main.leader}/ns/net"
    with host.spawn(["nsenter", namespace, *program("datagram", "53", "20")]) as listener:
        while listener.poll() is None:
            far.sh(f"bash -c 'echo -n word >/dev/udp/{LISTEN}/53'")
            time.sleep(0.2)
        assert listener.stdout is not None
        assert listener.stdout.read() == f"{THERE} word\n", "with the sender's own address"
    forward(host, "set", network, LISTEN, "target_address=10.82.0.6")
    until(host, lambda: far.sh(asked(80)) == f"{other.name} 80\n")
    forward(host, "set", network, LISTEN, "target_address=")
    assert far.sh(asked(80)) == ""
    for one in (main, other):
        one.do("delete", "--force")


def test_ipv6(host: Host, far: Far, network: str, launch: Launch) -> None:
    one = serving(launch, network, "10.82.0.5", 80)
    address = one.address(6)
    forward(host, "create", network, LISTEN6.upper().replace("::", ":0:0::"))
    forward(host, "port", "add", network, LISTEN6, "tcp", "80", address)
    until(host, lambda: host.sh(asked(80, LISTEN6)) == f"{one.name} 80\n")
    shown = syscont(host, "network", "forward", "show", network, LISTEN6.upper()).stdout
    assert f'listenAddress: "{LISTEN6}"' in shown
    forward(host, "delete", network, LISTEN6)
    assert "has no forward of" in forward(host, "show", network, LISTEN6, check=False)
    one.do("delete", "--force")


def test_forwards_outlive_what_may_end_them(host: Host, far: Far, network: str, launch: Launch) -> None:
    one = serving(launch, network, "10.82.0.5", 80)
    forward(host, "create", network, LISTEN, "target_address=10.82.0.5")

    def answers() -> bool:
        return far.sh(asked(80)) == f"{one.name} 80\n"

    until(host, answers)
    host.run(["systemctl", "restart", "syscontd.service"])
    until(host, answers)
    host.sh("nft flush ruleset")
    until(host, answers)
    syscont(host, "network", "set", network, "ipv4.nat=true")
    until(host, answers)
    refused = syscont(host, "network", "set", network, "ipv4.address=10.83.0.1/24", check=False).stderr
    assert f"the forward of {LISTEN}: 10.82.0.5 is no guest's" in refused
    until(host, answers)
    one.do("delete", "--force")


def test_over_the_bus(host: Host, network: str) -> None:
    path = host.sh(f"busctl --json=short call {' '.join(MANAGER)} org.syscont.Manager GetNetwork s {network}")
    where = f"{MANAGER[0]} {json.loads(path)['data'][0]} org.syscont.Network"
    host.sh(f"busctl call {where} CreateForward 'sa{{sv}}' {LISTEN} 1 description s said")
    options = "2 target_ports s 443 description s x"
    host.sh(f"busctl call {where} AddForwardPort 'ssssa{{sv}}' {LISTEN} tcp 8443 10.82.0.9 {options}")
    host.sh(f"busctl call {where} ChangeForward 'sa{{sv}}' {LISTEN} 1 target_address s 10.82.0.8")
    seen = json.loads(host.sh(f"busctl --json=short get-property {where} Forwards"))["data"]
    assert seen == [[LISTEN, "10.82.0.8", "said", [["tcp", "8443", "10.82.0.9", "443", "x"]]]]
    host.sh(f"busctl call {where} RemoveForwardPort sss {LISTEN} tcp 8443")
    host.sh(f"busctl call {where} DeleteForward s {LISTEN}")
    assert forwards(host, network) == []


def test_nothing_is_left_of_forwards(host: Host, busybox: str) -> None:
    with nothing_happens(host):
        rules = host.sh("nft list ruleset")
        syscont(host, "network", "create", "gone0", "ipv4.address=10.84.0.1/24", "ipv6.address=none")
        forward(host, "create", "gone0", LISTEN, "target_address=10.84.0.5")
        syscont(host, "network", "rename", "gone0", "gone1")
        assert [each["listenAddress"] for each in forwards(host, "gone1")] == [LISTEN]
        syscont(host, "network", "delete", "gone1")
        assert host.sh("nft list ruleset") == rules


def test_one_address_is_one_networks(host: Host, network: str) -> None:
    forward(host, "create", network, LISTEN)
    syscont(host, "network", "create", "second0", "ipv4.address=10.85.0.1/24", "ipv6.address=none")
    assert f"network {network} has a forward of {LISTEN}" in forward(host, "create", "second0", LISTEN, check=False)
    syscont(host, "network", "delete", "second0")


BAD = [
    (("create", "192.0.2.300"), "listen address: not the address of a host"),
    (("create", "0.0.0.0"), "listen address: not the address of a host"),
    (("create", "10.82.0.77"), "that is in network"),
    (("create", "198.51.100.9", "target_address=10.99.0.1"), "10.99.0.1 is no guest's"),
    (("create", "198.51.100.9", "target_address=10.82.0.1"), "10.82.0.1 is no guest's"),
    (("create", "198.51.100.9", "target_address=fd82::5"), "fd82::5 is no guest's"),
    (("create", "198.51.100.9", "speed=9"), "unknown forward key 'speed'"),
    (("create", LISTEN), "has a forward of 198.51.100.7 already"),
    (("delete", "198.51.100.9"), "has no forward of 198.51.100.9"),
    (("port", "add", LISTEN, "icmp", "80", "10.82.0.5"), "not a protocol: 'icmp'"),
    (("port", "add", LISTEN, "tcp", "0", "10.82.0.5"), "not ports: '0'"),
    (("port", "add", LISTEN, "tcp", "80;drop", "10.82.0.5"), "not ports: '80;drop'"),
    (("port", "add", LISTEN, "tcp", "80,70-90", "10.82.0.5"), "ports are named twice"),
    (("port", "add", LISTEN, "tcp", "22", "10.82.0.5"), "has tcp 20-25 already"),
    (("port", "add", LISTEN, "tcp", "80-82", "10.82.0.5", "90-91"), "3 ports can't become 2"),
    (("port", "add", LISTEN, "tcp", "1-65535", "10.82.0.5", "2-65535,1"), "more than 100 ports become others"),
    (("port", "add", LISTEN, "tcp", "1000-1200", "10.82.0.5", "2000-2200"), "more than 100 ports become others"),
    (("port", "add", LISTEN, "tcp", "80", "10.82.1.5"), "10.82.1.5 is no guest's"),
    (("port", "remove", LISTEN, "udp", "20-25"), "has no udp 20-25"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_forwards_change_nothing(host: Host, network: str, words: tuple[str, ...], message: str) -> None:
    forward(host, "create", network, LISTEN)
    forward(host, "port", "add", network, LISTEN, "tcp", "20-25", "10.82.0.5")
    before = forwards(host, network), host.sh("nft list ruleset")
    verbs = 2 if words[0] == "port" else 1
    said = forward(host, *words[:verbs], network, *words[verbs:], check=False)
    assert message in said
    assert (forwards(host, network), host.sh("nft list ruleset")) == before
