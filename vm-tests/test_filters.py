# SPDX-License-Identifier: Apache-2.0
"""What an instance may send, and how much of it, said by frames that arrive or do not."""

import ipaddress
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import Launch
from guests import Instance, python, renew, syscont, unique, until
from hosts import Host

OTHER_MAC = "02:73:63:99:99:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"
MAC_FILTER, IPV4_FILTER, IPV6_FILTER = (
    f"security.{what}_filtering" for what in ("mac", "ipv4", "ipv6")
)


@dataclass(frozen=True)
class Lab:
    """A network of its own, and who listens in it."""

    host: Host
    network: str
    listener: Instance

    @property
    def router(self) -> str:
        (link,) = json.loads(self.host.sh(f"ip -j link show {self.network}"))
        return str(link["address"])

    def arrived(self, sender: Instance, frames: dict[str, str]) -> set[str]:
        task = {"from": sender.leader, "to": self.listener.leader, "link": "eth0", "frames": frames}
        return set(json.loads(python(self.host, "frames", json.dumps(task)).stdout))


@pytest.fixture(scope="module")
def lab(host: Host, busybox: str) -> Iterator[Lab]:
    name = unique("net")
    addresses = ("ipv4.address=10.77.0.1/24", "ipv6.address=fd77::1/64", "ipv6.dhcp.stateful=true")
    syscont(host, "network", "create", name, *addresses)
    listener = Instance(host, unique("listener"))
    nic = f"eth0,type=nic,network={name},ipv4.address=10.77.0.9"
    syscont(host, "launch", busybox, listener.name, "-d", nic)
    listener.address()
    yield Lab(host, name, listener)
    syscont(host, "delete", "--force", listener.name)
    syscont(host, "network", "delete", name)


def filtered(lab: Lab, launch: Launch, *options: str) -> Instance:
    """An instance with some options of its interface."""
    return launch("", "-d", ",".join((f"eth0,type=nic,network={lab.network}", *options)))


def mac_of(instance: Instance) -> str:
    return instance.sh("cat /sys/class/net/eth0/address").strip()


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(name: str, source: str, kind: int, payload: bytes, to: str = BROADCAST) -> dict[str, str]:
    """A frame, to everyone unless it is said, by its name, which it has in it."""
    marked = payload if _mark(name) in payload else payload + _mark(name)
    return {name: (_mac(to) + _mac(source) + struct.pack(">H", kind) + marked).hex()}


def _mark(name: str) -> bytes:
    return b"\0" + name.encode() + b"\0"


def ipv4(name: str, source: str, ports: tuple[int, int] = (5, 5), data: bytes = b"") -> bytes:
    """A datagram that a bridge with netfilter finds nothing wrong with."""
    marked = data if _mark(name) in data else data + _mark(name)
    udp = struct.pack(">HHHH", *ports, 8 + len(marked), 0) + marked
    return ip_head(udp, source) + udp


def ip_head(payload: bytes, source: str, place: int = 0) -> bytes:
    """place: flags and offset of a fragment."""
    addresses = ipaddress.IPv4Address(source).packed + b"\xff\xff\xff\xff"
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, place, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", total) + head[12:]


def ipv6(name: str, source: str, payload: bytes, protocol: int = 58, to: str = "ff02::1") -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(to).packed
    whole = payload if _mark(name) in payload else payload + _mark(name)
    return struct.pack(">IHBB", 6 << 28, len(whole), protocol, 255) + addresses + whole


def arp(mac: str, address: str) -> bytes:
    """Who says that an address is its own."""
    own = _mac(mac) + ipaddress.IPv4Address(address).packed
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + own + own


def arp_probe(mac: str, address: str) -> bytes:
    """Who asks whether an address is free (RFC 5227)."""
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    return head + _mac(mac) + bytes(4) + bytes(6) + ipaddress.IPv4Address(address).packed


def advertisement(target: str, mac: str, *before: bytes) -> bytes:
    """before: other options, which a receiver skips."""
    whom = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + ipaddress.IPv6Address(target).packed
    return b"".join((whom, *before, b"\2\1", _mac(mac)))


def solicitation(target: str, option: bytes) -> bytes:
    return bytes([135, *bytes(7)]) + ipaddress.IPv6Address(target).packed + option


def behind_options(payload: bytes, protocol: int = 58) -> bytes:
    """In a header of its own before what is meant (RFC 8200, 4.6), which holds padding."""
    return bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + payload


def icmpv6(kind: int, length: int = 8) -> bytes:
    return bytes([kind, *bytes(length - 1)])


def link_local(mac: str) -> str:
    first, *rest = _mac(mac)
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])))


OWN_HARDWARE = {
    *("own-mac", "own-arp", "own-dhcp"),
    *("own-solicit", "own-probe", "own-search", "own-advert", "plain-advert"),
}


def asks(name: str, mac: str, client: str) -> dict[str, str]:
    """For an address, by DHCP."""
    message = b"\1\1\6\0" + bytes(24) + _mac(client) + bytes(10)
    return ethernet(name, mac, 0x0800, ipv4(name, "0.0.0.0", (68, 67), message))


def in_parts(name: str, mac: str, client: str) -> dict[str, str]:
    """A request for an address in two fragments (RFC 791), of which the second says who asks."""
    first = b"\1\1\6\0" + _mark(name).ljust(20)
    whole = ipv4(name, "0.0.0.0", (68, 67), first + _mac(client).ljust(16))[20:]
    parts = [(whole[:32], 0x2000), (whole[32:], 4)]
    head = _mac(BROADCAST) + _mac(mac) + b"\x08\0"
    return {name: ",".join((head + ip_head(part, "0.0.0.0", place) + part).hex() for part, place in parts)}


def by_hardware(mac: str) -> dict[str, str]:
    def nd(name: str, payload: bytes, source: str = "fd77::7", protocol: int = 58) -> dict[str, str]:
        return ethernet(name, mac, 0x86DD, ipv6(name, source, payload, protocol))

    spoofed = advertisement("fd77::7", OTHER_MAC)
    own, other, nonce = b"\1\1" + _mac(mac), b"\1\1" + _mac(OTHER_MAC), b"\x0e\1" + bytes(6)
    return {
        **nd("other-nd", spoofed),
        **nd("other-behind", behind_options(spoofed), protocol=60),
        **nd("other-second", advertisement("fd77::7", OTHER_MAC, b"\x0e\1" + _mac(mac))),
        **nd("own-advert", advertisement("fd77::7", mac)),
        **nd("plain-advert", advertisement("::", mac)[:8] + _mark("plain-advert").ljust(16)),
        **nd("own-solicit", solicitation("fd77::9", own)),
        **nd("other-solicit", solicitation("fd77::9", other)),
        **nd("own-probe", solicitation("fd77::7", nonce), "::"),
        **nd("own-search", bytes([133, *bytes(7)]) + own),
        **nd("other-search", bytes([133, *bytes(7)]) + other),
        **in_parts("part-dhcp", mac, OTHER_MAC),
        **nd("other-router", bytes([134, *bytes(15)]) + other),
        **nd("other-redirect", bytes([137, *bytes(39)]) + b"\2\1" + _mac(OTHER_MAC)),
        **ethernet("own-mac", mac, 0x88B5, b""),
        **ethernet("other-mac", OTHER_MAC, 0x88B5, b""),
        **ethernet("own-arp", mac, 0x0806, arp(mac, "10.77.0.7")),
        **ethernet("tagged-arp", mac, 0x8100, struct.pack(">HH", 0, 0x0806) + arp(OTHER_MAC, "10.77.0.7")),
        **ethernet("other-arp", mac, 0x0806, arp(OTHER_MAC, "10.77.0.7")),
        **asks("own-dhcp", mac, mac),
        **asks("other-dhcp", mac, OTHER_MAC),
    }


def by_ipv4(mac: str) -> dict[str, str]:
    def ip(name: str, source: str, *ports: int) -> dict[str, str]:
        return ethernet(name, mac, 0x0800, ipv4(name, source, (ports[0], ports[1]) if ports else (5, 5)))

    once, twice = struct.pack(">HH", 5, 0x0800), struct.pack(">HHHH", 5, 0x8100, 5, 0x0800)
    return {
        **ip("own-ip", "10.77.0.7"),
        **ip("is-server", "10.77.0.7", 67, 68),
        **ethernet("probes-other", mac, 0x0806, arp_probe(mac, "10.77.0.9")),
        **ethernet("probes-own", mac, 0x0806, arp_probe(mac, "10.77.0.7")),
        **ethernet("snap", mac, 30, b"\xaa\xaa\3\0\0\0\x08\0" + ipv4("snap", "10.77.0.8")),
        **ip("other-ip", "10.77.0.8"),
        **asks("dhcp", mac, mac),
        **ip("no-address", "0.0.0.0", 68, 53),
        **ethernet("own-claim", mac, 0x0806, arp(mac, "10.77.0.7")),
        **ethernet("other-claim", mac, 0x0806, arp(mac, "10.77.0.1")),
        **ethernet("tagged", mac, 0x8100, once + ipv4("tagged", "10.77.0.8")),
        **ethernet("tagged-twice", mac, 0x88A8, twice + ipv4("tagged-twice", "10.77.0.8")),
    }


def by_ipv6(mac: str, router: str) -> dict[str, str]:
    """router: the bridge's own hardware address."""
    def ip(name: str, source: str, payload: bytes, *others: int | str) -> dict[str, str]:
        protocol, to = others or (58, "ff02::1")
        return ethernet(name, mac, 0x86DD, ipv6(name, source, payload, int(protocol), str(to)))

    own, dhcp = link_local(mac), struct.pack(">HHHH", 546, 547, 64, 0)
    tagged = struct.pack(">HH", 5, 0x86DD) + ipv6("tagged6", "fd77::8", icmpv6(128))
    return {
        **ip("own-ip6", "fd77::7", icmpv6(128)),
        **ip("own-link", own, icmpv6(128)),
        **ip("other-ip6", "fd77::8", icmpv6(128)),
        **ip("other-link", "fe80::1", icmpv6(128)),
        **ip("own-nd", "fd77::7", advertisement("fd77::7", mac)),
        **ip("own-link-nd", own, advertisement(own, mac)),
        **ip("claims-router", own, advertisement("fe80::1", mac)),
        **ip("is-router", own, icmpv6(134, 16)),
        **ip("redirects", own, icmpv6(137, 40)),
        **ip("claims-behind", own, behind_options(advertisement("fe80::1", mac)), 60, "ff02::1"),
        **ip("asks-as-other", link_local(OTHER_MAC), solicitation("fd77::9", b"\1\1" + _mac(mac))),
        **ip("probes-other6", "::", solicitation("fd77::9", b"\x0e\1" + bytes(6))),
        **ip("probes-own6", "::", solicitation("fd77::7", b"\x0e\1" + bytes(6))),
        **ip("probes-link6", "::", solicitation("fe80::5", b"\x0e\1" + bytes(6))),
        **ip("is-server6", "fd77::7", struct.pack(">HHHH", 547, 546, 64, 0), 17, "ff02::1"),
        **ip("asks-as-router", link_local(router), solicitation("fd77::9", b"\1\1" + _mac(mac))),
        **ip("asks", "fe80::5", solicitation("fd77::9", b"\1\1" + _mac(mac))),
        **ip("seeks-router", "fe80::5", icmpv6(133) + b"\1\1" + _mac(mac)),
        **ip("is-it-free", "::", solicitation("fd77::7", b"")),
        **ip("dhcp6", "fe80::5", dhcp, 17, "ff02::1:2"),
        **ethernet("tagged6", mac, 0x8100, tagged),
    }


def test_unfiltered_it_is_anyone(lab: Lab, launch: Launch) -> None:
    """Or the frames of this test are none that could arrive."""
    one = filtered(lab, launch)
    mac = mac_of(one)
    frames = {**by_hardware(mac), **by_ipv4(mac), **by_ipv6(mac, lab.router)}
    assert lab.arrived(one, frames) == set(frames)
    assert "syscont_of_" not in lab.host.run(["nft", "list", "tables"]).stdout


def test_its_own_hardware_address(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, f"{MAC_FILTER}=true")
    assert lab.arrived(one, by_hardware(mac_of(one))) == OWN_HARDWARE
    assert one.address().startswith("10.77.0.")


def test_its_own_ipv4_address(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, f"{IPV4_FILTER}=true", "ipv4.address=10.77.0.7")
    mac = mac_of(one)
    assert lab.arrived(one, by_ipv4(mac)) == {"own-ip", "own-claim", "probes-own", "dhcp"}
    assert lab.arrived(one, by_hardware(mac)) == OWN_HARDWARE - {"own-mac"}, "which is neither ARP nor IP"
    assert one.address() == "10.77.0.7"
    one.exec("ping", "-c1", "-W2", "10.77.0.9")


def test_its_own_ipv6_address(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, f"{IPV6_FILTER}=true", "ipv6.address=fd77::7")
    passes = {"own-ip6", "own-link", "own-nd", "own-link-nd", "asks", "seeks-router", "dhcp6"}
    passes |= {"is-it-free", "probes-own6", "probes-link6"}
    assert lab.arrived(one, by_ipv6(mac_of(one), lab.router)) == passes
    one.sh("ip -6 addr add fd77::7/64 dev eth0")
    until(lab.host, lambda: not one.exec("ping", "-6", "-c1", "-W1", "fd77::1", check=False).returncode)


def answers(host: Host, address: str) -> None:
    until(host, lambda: not host.run(["ping", "-c1", "-W1", address], check=False).returncode)


def test_addresses_are_chosen_where_none_is_said(host: Host, busybox: str, launch: Launch) -> None:
    name = unique("net")
    syscont(host, "network", "create", name, "ipv4.address=10.76.0.1/24", "ipv6.address=fd76::1/64")
    both = f"{IPV4_FILTER}=true,{IPV6_FILTER}=true"
    one = launch("", "-d", f"eth0,type=nic,network={name},{both}")
    plain = launch("", "-n", name)
    own = {one.address(), one.address(6)}
    leases = json.loads(syscont(host, "network", "list-leases", name, "--format", "json").stdout)
    assert {each["address"] for each in leases if (each["hostname"], each["type"]) == (one.name, "static")} == own
    for address in own:
        answers(host, address)

    # Who has one has it still, and who is moved gets another.
    before = plain.address()
    syscont(host, "device", "set", plain.name, "eth0", f"{IPV4_FILTER}=true")
    assert plain.address() == before
    answers(host, before)
    syscont(host, "network", "set", name, "ipv4.address=10.75.0.1/24")
    for each in (one, plain):
        renew(each)
        assert each.address().startswith("10.75.0.")
        answers(host, each.address())
    refused = syscont(host, "network", "set", name, "ipv4.dhcp=false", check=False).stderr
    assert "security.ipv4_filtering needs ipv4.address (network" in refused
    for each in (one, plain):
        each.do("delete", "--force")
    syscont(host, "network", "delete", name)


def test_filters_come_and_go_while_it_runs(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, "ipv4.address=10.77.0.7")
    mac, index = mac_of(one), one.sh("cat /sys/class/net/eth0/ifindex /sys/class/net/eth0/carrier_changes")
    change = ("device", "set", one.name, "eth0")
    syscont(lab.host, *change, f"{IPV4_FILTER}=true")
    assert "other-ip" not in lab.arrived(one, by_ipv4(mac))
    syscont(lab.host, *change, f"{IPV4_FILTER}=false", f"{MAC_FILTER}=true")
    assert "other-ip" in lab.arrived(one, by_ipv4(mac))
    assert "other-mac" not in lab.arrived(one, by_hardware(mac))
    assert index == one.sh("cat /sys/class/net/eth0/ifindex /sys/class/net/eth0/carrier_changes")
    syscont(lab.host, "device", "unset", one.name, "eth0", MAC_FILTER)
    assert "other-mac" in lab.arrived(one, by_hardware(mac))
    assert "syscont_of_" not in lab.host.run(["nft", "list", "tables"]).stdout


def test_filters_outlive_what_may_end_them(lab: Lab, launch: Launch) -> None:
    """The guest's reboot, the daemon's restart, and rules that are loaded anew."""
    one = filtered(lab, launch, f"{MAC_FILTER}=true")
    mac, table = mac_of(one), f"syscont_of_{one.seen()['uuid'].replace('-', '')}"

    def holds() -> bool:
        return lab.arrived(one, by_hardware(mac)) == OWN_HARDWARE

    leader = one.leader
    one.exec("reboot", check=False)
    until(lab.host, lambda: one.seen()["leader"] not in (0, leader))
    until(lab.host, lambda: one.sh("cat /sys/class/net/eth0/operstate") == "up\n")
    assert holds()
    lab.host.run(["systemctl", "restart", "syscontd.service"])
    assert holds()
    for lost in (["nft", "flush", "ruleset"], ["nft", "delete", "table", "bridge", table]):
        lab.host.run(lost)
        until(lab.host, holds)


def test_filters_go_with_the_instance(lab: Lab, launch: Launch) -> None:
    one, other = (filtered(lab, launch, f"{MAC_FILTER}=true") for _ in range(2))

    def tables() -> int:
        return lab.host.run(["nft", "list", "tables"]).stdout.count("syscont_of_")

    assert tables() == 2
    one.do("stop", "--force")
    assert tables() == 2, "systemctl may start it, with nobody of ours there"
    one.do("delete")
    assert tables() == 1
    lab.host.run(["nft", "add", "table", "bridge", "syscont_of_0123456789abcdef0123456789abcdef"])
    other.do("delete", "--force")
    lab.host.run(["systemctl", "restart", "syscontd.service"])
    assert tables() == 0


def test_filters_come_along(lab: Lab, launch: Launch) -> None:
    """However an instance comes by its configuration."""
    one = filtered(lab, launch, f"{MAC_FILTER}=true")
    names = [unique() for _ in range(3)]

    def tables() -> int:
        return lab.host.run(["nft", "list", "tables"]).stdout.count("syscont_of_")

    syscont(lab.host, "snapshot", "create", one.name, "with")
    syscont(lab.host, "device", "unset", one.name, "eth0", MAC_FILTER)
    assert tables() == 0
    syscont(lab.host, "snapshot", "restore", one.name, "with")
    assert lab.arrived(one, by_hardware(mac_of(one))) == OWN_HARDWARE
    syscont(lab.host, "copy", one.name, names[0])
    syscont(lab.host, "copy", f"{one.name}/with", names[1])
    syscont(lab.host, "export", one.name, "/var/tmp/filtered.tar.gz")
    syscont(lab.host, "import", "/var/tmp/filtered.tar.gz", names[2])
    lab.host.run(["rm", "/var/tmp/filtered.tar.gz"])
    for number, name in enumerate(names):
        other = Instance(lab.host, name)
        other.do("start")
        assert lab.arrived(other, by_hardware(mac_of(other))) == OWN_HARDWARE, name
        other.do("delete", "--force")
        assert tables() == len(names) - number
    syscont(lab.host, "profile", "create", "onlyown")
    words = ("eth0", "nic", f"network={lab.network}", f"{MAC_FILTER}=true")
    syscont(lab.host, "profile", "device", "add", "onlyown", *words)
    other = launch("", "-p", "default", "-p", "onlyown")
    assert lab.arrived(other, by_hardware(mac_of(other))) == OWN_HARDWARE
    syscont(lab.host, "profile", "device", "unset", "onlyown", "eth0", MAC_FILTER)
    assert "other-mac" in lab.arrived(other, by_hardware(mac_of(other)))
    other.do("delete", "--force")
    syscont(lab.host, "profile", "delete", "onlyown")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("security.mac_filtering=maybe",), "security.mac_filtering: not a boolean"),
        (("limits.egress=10Mb",), "limits.egress: not a number of bits"),
        (("limits.egress=1",), "limits.egress: too slow"),
        (("limits.max=10Mbit", "limits.ingress=5Mbit"), "limits.max stands for"),
    ],
)
def test_bad_options_change_nothing(lab: Lab, options: tuple[str, ...], message: str) -> None:
    shown = ["sh", "-c", f"syscont device show {lab.listener.name}; nft list ruleset; tc qdisc show"]
    before = lab.host.run(shown).stdout
    refused = syscont(lab.host, "device", "set", lab.listener.name, "eth0", *options, check=False)
    assert refused.returncode
    assert message in refused.stderr
    assert lab.host.run(shown).stdout == before


def test_a_refused_change_leaves_filters_as_they_were(lab: Lab, launch: Launch) -> None:
    """Also one that is refused when they are those of the new configuration already."""
    host, one = lab.host, filtered(lab, launch, "security.mac_filtering=true")
    shown = f"nft list table bridge syscont_of_{one.seen()['uuid'].replace('-', '')}"
    before = host.sh(shown)
    host.sh("ip link add up0 type veth peer name up1; ip link set up0 up")
    devices = {
        "eth0": {"type": "nic", "network": lab.network},
        "eth1": {"type": "nic", "nictype": "routed", "parent": "up0", "ipv4.address": "10.79.9.1"},
    }
    edited = host.run(["syscont", "edit", one.name], input=json.dumps({"devices": devices}), check=False)
    assert "stop it before" in edited.stderr
    assert host.sh(shown) == before
    assert "mac_filtering" in syscont(host, "device", "show", one.name).stdout
    host.sh("ip link del up0")


# rates


def rate(lab: Lab, sender: Instance, receiver: Instance, address: str = "") -> float:
    """Megabits a second from one to the other."""
    argv = (str(sender.leader), str(receiver.leader), address or receiver.address(), "2")
    return int(python(lab.host, "throughput", *argv, timeout=60).stdout) / 1e6


def test_what_it_receives_is_limited(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, "limits.ingress=20Mbit")
    assert 12 < rate(lab, lab.listener, one) < 24
    assert rate(lab, one, lab.listener) > 40
    syscont(lab.host, "device", "set", one.name, "eth0", "limits.ingress=8Mbit")
    assert 4 < rate(lab, lab.listener, one) < 10
    syscont(lab.host, "device", "unset", one.name, "eth0", "limits.ingress")
    assert rate(lab, lab.listener, one) > 40


def test_what_it_sends_is_limited(lab: Lab, launch: Launch) -> None:
    one = filtered(lab, launch, "limits.egress=20Mbit")
    assert 12 < rate(lab, one, lab.listener) < 24
    assert rate(lab, lab.listener, one) > 40
    syscont(lab.host, "device", "set", one.name, "eth0", "limits.egress=8Mbit")
    assert 4 < rate(lab, one, lab.listener) < 10
    syscont(lab.host, "device", "unset", one.name, "eth0", "limits.egress")
    assert rate(lab, one, lab.listener) > 40


def test_both_ways_of_a_link_without_a_bridge(lab: Lab, launch: Launch) -> None:
    words = ("nictype=routed", "ipv4.address=10.78.0.2", "ipv4.routes=10.79.0.0/24", "limits.max=8Mbit")
    # Of another name than the image would ask for addresses by.
    one = launch("", "-d", ",".join(("eth0,type=nic,name=net0", *words)))
    assert "10.79.0.0/24 via 10.78.0.2" in lab.host.run(["ip", "route"]).stdout
    one.sh("ip addr add 10.79.0.1/24 dev lo")
    lab.host.run(["ping", "-c1", "-W2", "10.79.0.1"])
    # The listener has been told lies of who the router is.
    peer = filtered(lab, launch)
    peer.address()
    assert 4 < rate(lab, peer, one, "10.78.0.2") < 10
    assert 4 < rate(lab, one, peer) < 10
    one.do("stop", "--force")
    assert "10.79.0.0" not in lab.host.run(["ip", "route"]).stdout
