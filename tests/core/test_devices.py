# SPDX-License-Identifier: Apache-2.0
"""Devices: their grammar, what they come to on the host, and what a change of them is."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from sysd.manager import hotplug
from sysd.manager.interfaces import lacking
from sysd.model.devices.change import replaced, with_device, with_options
from sysd.model.devices.check import check_device, check_together
from sysd.model.devices.proxy import endpoint
from sysd.model.errors import ExistsError, FailedError, InvalidError, NotFoundError, SyscontError
from sysd.model.idmap import IDENTITY, make_idmap, parse_map
from sysd.model.instance import Instance
from sysd.network import links, translation
from sysd.network.nics import GUEST, HOST, Nic, requests
from sysd.runtime import devices, proxies, sysfs
from sysd.runtime.devices import disk, node
from sysd.runtime.devices.uevents import concerns_devices
from sysd.runtime.spec import LaunchSpec, Plugged, Share

NIC = {"type": "nic", "nictype": "macvlan", "parent": "eno1"}
PORT = {"type": "nic", "network": "net0"}
DISK = {"type": "disk", "source": "/srv", "path": "/mnt"}
PROXY = {"type": "proxy", "listen": "tcp:0.0.0.0:80", "connect": "tcp:127.0.0.1:8080"}
NAT = {**PROXY, "listen": "tcp:198.51.100.1:80", "connect": "tcp:192.0.2.5:8080", "nat": "true"}
ROUTED = {"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.4, 192.0.2.5", "ipv6.address": "2001:db8::5"}
NODE = {"type": "unix-char", "source": "/dev/null"}


@pytest.mark.parametrize(
    "options",
    [
        NIC,
        {**NIC, "nictype": "physical", "mtu": "1500", "hwaddr": "02:00:00:00:00:01"},
        {"type": "nic", "nictype": "p2p", "host_name": "v0"},
        {"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.1, 192.0.2.2", "ipv6.gateway": "none"},
        {"type": "nic", "nictype": "ipvlan", "parent": "eno1", "mode": "l2", "ipv4.gateway": "192.0.2.1"},
        DISK,
        {**DISK, "recursive": "true", "readonly": "true", "propagation": "rslave"},
        {**DISK, "limits.read": "30MB", "limits.write": "500iops", "raw.mount.options": "noexec,nosuid"},
        {"type": "disk", "path": "/", "limits.max": "1MB"},
        NODE,
        {**NODE, "path": "/srv/node", "mode": "0640", "uid": "1000"},
        {"type": "unix-block", "path": "/dev/x", "major": "7", "minor": "0"},
        {"type": "usb"},
        {"type": "usb", "vendorid": "1D6B", "productid": "0002"},
        {"type": "unix-hotplug", "vendorid": "1d6b"},
        {"type": "gpu", "pci": "01:00.0"},
        {"type": "pci", "address": "01:00.0"},
        {"type": "pci", "address": "ABCD:EF:1F.7"},
        {**DISK, "io.bus": "auto"},
        {"type": "tpm"},
        {"type": "disk", "source": "cloud-init:config"},
        PROXY,
        {**PROXY, "listen": "tcp:[::]:80-90", "bind": "instance"},
        {**PROXY, "listen": "unix:/run/x.sock", "mode": "0600"},
        {**PROXY, "listen": "unix:@abstract", "connect": "unix:@other"},
        {**PROXY, "connect": "unix:/run/x", "security.uid": "1000"},
        {**PROXY, "listen": "udp:0.0.0.0:53,60-61", "connect": "udp:[::1]:53,60-61"},
        {**PROXY, "connect": "udp:127.0.0.1:514", "bind": "guest"},
        {**PROXY, "listen": "unix:@x", "proxy_protocol": "true", "bind": "container", "security.gid": "70000"},
        NAT,
        {"type": "none"},
        {**NIC, "user.note": "two\nlines"},
    ],
)
def test_good_devices(options: dict[str, str]) -> None:
    assert check_device("one", options) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "unknown type"),
        ({"type": "infiniband"}, "not offered"),
        ({"type": "pci"}, "address is missing"),
        ({"type": "pci", "address": "1:0.0"}, "not a PCI address"),
        ({"type": "pci", "address": "01:20.0"}, "not a PCI address"),
        ({"type": "pci", "address": "0000:01:00.8"}, "not a PCI address"),
        ({"type": "pci", "address": "0000:01:00.0/../../x"}, "not a PCI address"),
        ({**DISK, "io.bus": "9p"}, "io.bus: 9p is not offered: QEMU itself would open the files"),
        ({**DISK, "io.bus": "nvme"}, "one of auto, virtiofs|not acceptable"),
        ({"type": "disk", "path": "/", "io.bus": "virtiofs"}, "io.bus is not for the root"),
        ({"type": "gpu", "gputype": "mig"}, "mig is not offered: it needs NVIDIA"),
        ({"type": "gpu", "gputype": "sriov"}, "sriov is not offered"),
        ({"type": "gpu", "gputype": "other"}, "not acceptable"),
        ({"type": "tpm", "path": "/dev/tpm0"}, "for containers"),
        ({"type": "disk", "source": "cloud-init:config", "path": "/x"}, "path is not for cloud-init:config"),
        ({"type": "disk", "source": "cloud-init:other", "path": "/x"}, "not an absolute path"),
        ({"type": "nic"}, "network is missing"),
        ({**NIC, "network": "br0"}, "network says"),
        ({**NIC, "nictype": "ovn"}, "not offered"),
        ({**NIC, "parent": "a b"}, "not the name of a link"),
        ({**NIC, "parent": "../eth0"}, "not the name of a link"),
        ({**NIC, "host_name": "x"}, "not for nictype macvlan"),
        ({**NIC, "mtu": "10"}, "out of range"),
        ({**NIC, "limits.egress": "1Mbit"}, "not for nictype macvlan"),
        ({**NIC, "vlan": "5"}, "not for nictype macvlan"),
        ({**PORT, "vlan": "4095"}, "vlan: out of range"),
        ({**PORT, "vlan": "0"}, "vlan: out of range"),
        ({**PORT, "vlan.tagged": "none"}, "vlan.tagged: out of range"),
        ({**PORT, "vlan.tagged": "9-5"}, "vlan.tagged: not VLANs"),
        ({**PORT, "vlan.tagged": ","}, "vlan.tagged: not VLANs"),
        ({**PORT, "vlan": "5", "ipv4.address": "10.0.0.2"}, "not in VLAN 5"),
        ({**PORT, "vlan.tagged": "5", "security.mac_filtering": "true"}, "vlan.tagged: filters"),
        ({**NIC, "hwaddr": "01:00:00:00:00:01"}, "not a hardware address"),
        ({"type": "nic", "nictype": "routed", "ipv4.address": "fd00::1"}, "not IPv4"),
        ({"type": "nic", "nictype": "ipvlan", "parent": "e", "ipv4.gateway": "192.0.2.1"}, "mode l2"),
        ({**DISK, "path": "/a/../b"}, "not an absolute path"),
        ({**DISK, "path": "/a\n/b"}, "line break"),
        ({**DISK, "source": "srv"}, "not an absolute path"),
        ({**DISK, "source": "/a\0b"}, "NUL"),
        ({**DISK, "path": "//proc//sys"}, "nothing can be mounted"),
        ({**DISK, "propagation": "shared"}, "not acceptable"),
        ({**DISK, "raw.mount.options": "lowerdir=/"}, "not an option"),
        ({**DISK, "limits.read": "0iops"}, "too small"),
        ({"type": "disk", "path": "/", "source": "/srv"}, "not for the root"),
        ({"type": "unix-char"}, "missing"),
        ({"type": "unix-char", "source": "/dev/../etc/passwd"}, "not an absolute path"),
        ({**NODE, "major": "1"}, "belong together"),
        ({**NODE, "mode": "4755"}, "not a mode"),
        ({**NODE, "uid": "65536"}, "out of range"),
        ({"type": "unix-hotplug"}, "missing"),
        ({"type": "gpu", "id": "0", "pci": "01:00.0"}, "already"),
        ({"type": "gpu", "gputype": "mdev"}, "not offered"),
        ({**PROXY, "connect": "tcp:localhost:80"}, "not an IP address"),
        ({**PROXY, "listen": "tcp:[fe80::1%eth0]:80"}, "scope"),
        ({**PROXY, "listen": "tcp:0.0.0.0:0"}, "not ports"),
        ({**PROXY, "listen": "unix:/run/a b"}, "not the path of a socket"),
        ({**PROXY, "listen": "unix:/run/%n"}, "not the path of a socket"),
        ({**PROXY, "listen": "unix:/run/../etc/x"}, "not an absolute path"),
        ({**PROXY, "listen": "tcp:0.0.0.0:1,2", "connect": "tcp:127.0.0.1:1-3"}, "different numbers"),
        ({**PROXY, "listen": "udp:0.0.0.0:1"}, "udp only"),
        ({**PROXY, "listen": "udp:0.0.0.0:1", "connect": "unix:@x"}, "udp only"),
        ({**PROXY, "nat": "true"}, "no single address"),
        ({**NAT, "listen": "tcp:127.0.0.1:80"}, "no single address"),
        ({**NAT, "listen": "tcp:[2001:db8::1]:80"}, "different versions"),
        ({**NAT, "bind": "instance"}, "the host that translates"),
        ({**NAT, "connect": "udp:192.0.2.5:8080"}, "tcp can become tcp"),
        ({**NAT, "proxy_protocol": "true"}, "no header"),
        ({**PROXY, "proxy_protocol": "true", "connect": "unix:@x"}, "only tcp servers"),
        ({**PROXY, "proxy_protocol": "v2"}, "not a boolean|true or false"),
        ({**PROXY, "uid": "5"}, "only a unix socket"),
        ({**PROXY, "listen": "unix:@x", "mode": "0600"}, "only a unix socket"),
        ({**PROXY, "listen": "unix:/x", "bind": "instance", "uid": "65536"}, "out of range"),
        ({**PROXY, "listen": "unix:/proc/x", "bind": "instance"}, "nothing can be mounted"),
        ({**PROXY, "security.uid": "65536"}, "out of range"),
        ({**PROXY, "security.gid": "4294967295", "bind": "instance"}, "out of range"),
        ({**PROXY, "security.uid": "-1"}, "not a number|out of range"),
        ({**PROXY, "bind": "both"}, "not acceptable"),
    ],
)
def test_bad_devices(options: dict[str, str], message: str) -> None:
    with pytest.raises(SyscontError, match="device one: .*" + message.replace("'", ".") + "|" + message):
        check_device("one", options)


def test_devices_must_not_collide() -> None:
    with pytest.raises(SyscontError, match="same interface, lan0"):
        check_together({"a": {**NIC, "name": "lan0"}, "b": {**NIC, "name": "lan0"}})
    with pytest.raises(SyscontError, match="same path, /mnt"):
        check_together({"a": DISK, "b": {**DISK, "path": "/mnt/"}})


@pytest.mark.parametrize("nic", [{}, NIC, {**ROUTED, "nictype": "p2p"}, {**ROUTED, "ipv4.address": "192.0.2.6"}])
def test_addresses_are_translated_to_the_instances_own_only(nic: dict[str, str]) -> None:
    check_together({"http": NAT, "eth0": ROUTED})
    with pytest.raises(SyscontError, match=r"device http: nat: no interface has the address 192.0.2.5"):
        check_together({"http": NAT, "eth0": nic})


def test_places_of_endpoints() -> None:
    assert endpoint("tcp:[::1]:80,90-91").places == ["[::1]:80", "[::1]:90", "[::1]:91"]
    assert endpoint("unix:/run/x").places == ["/run/x"]


# what they come to


def test_shares_of_disks() -> None:
    found = devices.shares({"deep": {**DISK, "path": "/a/b"}, "root": {"type": "disk", "path": "/"}, "top": DISK})
    assert [(each.device, each.path) for each in found] == [("top", "/mnt"), ("deep", "/a/b")]
    (share,) = disk.shares("x", {**DISK, "readonly": "true", "optional": "true", "propagation": "slave"})
    assert share.attributes == 1 | 4  # read-only, no devices
    assert share.slave
    assert not share.required


def test_limits_of_disks() -> None:
    root = {"type": "disk", "path": "/", "limits.max": "2000iops"}
    found = disk.io_properties({"data": {**DISK, "limits.read": "1MB"}, "root": root})
    assert found["IOReadBandwidthMax"].value == [["/srv", 1000000]]
    assert found["IOReadIOPSMax"].value == found["IOWriteIOPSMax"].value == [["/var/lib/syscont", 2000]]
    assert found["IOWriteBandwidthMax"].value == []


def test_nodes() -> None:
    (share,) = node.shares("null", {**NODE, "path": "/dev/mine", "gid": "5"})
    assert (share.number, share.path, share.owner, share.mode) == ((1, 3), "/dev/mine", (0, 5), 0o660)
    assert node.allowed([share, share]) == [["/dev/char/1:3", "rwm"]]
    with pytest.raises(FailedError, match="no block device"):
        node.shares("null", {**NODE, "type": "unix-block"})
    assert node.shares("x", {**NODE, "source": "/dev/nowhere", "required": "false"}) == []


@pytest.fixture
def sys_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A USB serial adapter and two graphics cards."""
    usb = tmp_path / "devices/pci0/usb1/1-2"
    tty = usb / "1-2:1.0/tty/ttyACM0"
    tty.mkdir(parents=True)
    (usb / "idVendor").write_text("0403\n")
    (usb / "idProduct").write_text("6001\n")
    (usb / "uevent").write_text("MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/006\nDEVTYPE=usb_device\n")
    (tty / "uevent").write_text("MAJOR=166\nMINOR=0\nDEVNAME=ttyACM0\n")
    (tmp_path / "bus/usb/devices").mkdir(parents=True)
    (tmp_path / "bus/usb/devices/1-2").symlink_to(usb)
    (tmp_path / "dev/char").mkdir(parents=True)
    (tmp_path / "dev/char/166:0").symlink_to(tty)
    (tmp_path / "dev/char/189:5").symlink_to(usb)
    (tmp_path / "class/drm").mkdir(parents=True)
    for number, vendor in ((0, "0x8086"), (1, "0x10de")):
        card = tmp_path / f"devices/pci0/0000:0{number}:00.0"
        for minor, name in ((number, f"card{number}"), (128 + number, f"renderD{128 + number}")):
            (card / "drm" / name).mkdir(parents=True)
            (card / "drm" / name / "uevent").write_text(f"MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}\n")
            (card / "drm" / name / "device").symlink_to(card)
            (tmp_path / "class/drm" / name).symlink_to(card / "drm" / name)
        (card / "vendor").write_text(vendor)
        (card / "device").write_text("0x0001")
    monkeypatch.setattr(sysfs, "SYS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({"type": "usb", "vendorid": "0403"}, ["/dev/bus/usb/001/006"]),
        ({"type": "usb", "vendorid": "0403", "productid": "6002"}, []),
        ({"type": "unix-hotplug", "vendorid": "0403"}, ["/dev/ttyACM0"]),
        ({"type": "gpu"}, ["/dev/dri/card0", "/dev/dri/card1", "/dev/dri/renderD128", "/dev/dri/renderD129"]),
        ({"type": "gpu", "id": "1"}, ["/dev/dri/card1", "/dev/dri/renderD129"]),
        ({"type": "gpu", "pci": "00:00.0"}, ["/dev/dri/card0", "/dev/dri/renderD128"]),
        ({"type": "gpu", "vendorid": "10de"}, ["/dev/dri/card1", "/dev/dri/renderD129"]),
    ],
)
def test_hardware_is_found_by_what_it_is(sys_tree: Path, options: dict[str, str], paths: list[str]) -> None:
    assert sorted(share.path for share in devices.shares({"one": options})) == paths


def test_hardware_that_is_required_must_be_there(sys_tree: Path) -> None:
    with pytest.raises(FailedError, match="no such device"):
        devices.shares({"one": {"type": "usb", "vendorid": "ffff", "required": "true"}})
    with pytest.raises(FailedError, match="no such graphics card"):
        devices.shares({"one": {"type": "gpu", "vendorid": "ffff"}})


def test_while_a_guest_runs_nothing_is_required(sys_tree: Path) -> None:
    there = {"type": "usb", "vendorid": "0403", "required": "true"}
    found = devices.present(
        {
            "there": there,
            "gone": {**there, "vendorid": "ffff"},
            "node": {**NODE, "required": "false"},
            "unplugged": {**NODE, "source": "/dev/nowhere", "required": "false"},
            "fixed": NODE,
            "card": {"type": "gpu"},
            "disk": DISK,
        }
    )
    assert [(share.device, share.path) for share in found] == [
        ("there", "/dev/bus/usb/001/006"),
        ("node", "/dev/null"),
    ]


# interfaces


def test_interfaces_get_names_and_addresses_once() -> None:
    wanted = {"a": {"type": "nic", "network": "br0"}, "b": NIC, "c": {"type": "nic", "nictype": "p2p", "name": "eth0"}}
    instance = Instance("u", "n", "i", 0, devices=wanted)
    made = lacking(instance)
    assert (made["volatile.a.name"], made["volatile.b.name"]) == ("eth1", "eth2")
    assert "volatile.b.host_name" not in made
    assert made["volatile.a.host_name"].startswith(links.PORT_PREFIX)
    assert not made["volatile.c.host_name"].startswith(links.PORT_PREFIX)
    assert lacking(Instance("u", "n", "i", 0, devices=wanted, config=made)) == {}
    routed = wanted | {"a": {"type": "nic", "nictype": "routed"}}
    renamed = lacking(Instance("u", "n", "i", 0, devices=routed, config=made))
    assert renamed.keys() == {"volatile.a.host_name"}
    assert not renamed["volatile.a.host_name"].startswith(links.PORT_PREFIX)


@pytest.mark.parametrize("kind", ["bridged", "p2p", "macvlan", "ipvlan", "routed", "physical", "sriov"])
def test_requests_say_where_they_are_sent(kind: str) -> None:
    address = ipaddress.ip_address("192.0.2.9")
    nic = Nic(kind, "lan0", "veth0", "02:00:00:00:00:01", 1400, 3, "eno1", addresses=(address,))
    found = requests(nic, 100, 101)
    for side, request in (*found.plug, *found.unplug):
        assert side in (HOST, GUEST)
        body = request.lstrip("-")
        if body.startswith("@"):
            link, offset, body = body[1:].split(":")
            assert link in ("lan0", "veth0", "eno1") or link.startswith("sc")
            assert int(offset) < len(body) // 2
        message = bytes.fromhex(body)
        assert int.from_bytes(message[:4], "little") == len(message)


# changes


def _spec(shares: list[Share], nics: dict[str, Plugged]) -> LaunchSpec:
    return LaunchSpec("u", "n", 0, 5, "", "", "/r", "/s", True, shares=shares, nics=nics)


def test_a_change_is_the_difference() -> None:
    one, two, three = (Share(name, f"/{name}", f"/srv/{name}") for name in ("one", "two", "three"))
    old = Plugged([(HOST, "00")], [(HOST, "01")])
    new = Plugged([(HOST, "02")], [(GUEST, "03")])
    todo = hotplug.steps([one, two], {"eth0": old, "eth1": old}, _spec([two, three], {"eth0": old, "eth2": new}))
    assert [(list(each.do.remove), list(each.do.add), list(each.do.links)) for each in todo] == [
        ([], [], [(HOST, "01")]),
        ([one], [], []),
        ([], [], [(HOST, "02")]),
        ([], [three], []),
    ]
    assert list(todo[1].undo.add) == [one]
    assert hotplug.steps([one], {"eth0": old}, _spec([one], {"eth0": old})) == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"add@/devices/usb1/1-2\0ACTION=add\0PRODUCT=403/6001/600\0", True),
        (b"remove@/devices/x/tty/ttyACM0\0ACTION=remove\0DEVNAME=ttyACM0\0", True),
        (b"add@/devices/virtual/net/veth0\0ACTION=add\0INTERFACE=veth0\0", False),
        (b"libudev\0\xfe\xed\xca\xfe", False),
        (b"libudev\0".ljust(40, b"\1") + b"ACTION=add\0DEVNAME=/dev/sda\0DEVLINKS=/dev/disk/by-id/x\0", True),
        (b"", False),
    ],
)
def test_uevents(message: bytes, expected: bool) -> None:
    assert concerns_devices(message) is expected


# proxies

IDS = make_idmap(100000, 65536, {"raw.idmap": "both 1000 1000"})
INSIDE = proxies.Inside(77, IDS)


def _proxies(inside: proxies.Inside = INSIDE, **devices: dict[str, str]) -> list[proxies.Proxy]:
    return proxies.of_instance(Instance("u-1", "web", "i", 1000, devices=devices), inside)


def _argv(options: dict[str, str]) -> list[str]:
    (one,) = _proxies(a=options)
    ((program, argv, _),) = one.service["ExecStart"].value
    assert program == argv[0]
    return list(argv)


def test_a_proxy_is_a_socket_and_a_service_on_either_side() -> None:
    options = {**PROXY, "listen": "tcp:127.0.0.1:80-81"}
    into, out = _proxies(a=options, b={**options, "bind": "instance"})
    assert (into.unit, out.unit) == ("syscont-proxy@web.a:0", "syscont-proxy@web.b:0")
    assert into.socket["Listen"].value == [["Stream", "127.0.0.1:80"], ["Stream", "127.0.0.1:81"]]
    assert into.service["NetworkNamespacePath"].value == out.socket["NetworkNamespacePath"].value == "/proc/77/ns/net"
    assert "NetworkNamespacePath" not in into.socket
    assert "NetworkNamespacePath" not in out.service
    assert _proxies(proxies.Inside(78, IDS), a=options)[0].description != into.description


def test_a_path_in_the_guest_is_a_socket_of_ours() -> None:
    (found,) = _proxies(a={**PROXY, "listen": "unix:/run/x.sock", "bind": "instance", "uid": "5", "gid": "1000"})
    assert found.socket["Listen"].value == [["Stream", "/run/syscont/proxies/u-1-a"]]
    assert found.share
    assert found.share.path == "/run/x.sock"
    assert found.owner == (100005, 1000)
    assert "NetworkNamespacePath" not in {*found.socket, *found.service}


def test_ports_of_udp_go_each_to_its_own() -> None:
    first, second = _proxies(a={**PROXY, "listen": "udp:[::]:5-6", "connect": "udp:127.0.0.1:7,9"})
    assert first.socket["Listen"].value == [["Datagram", "[::]:5"]]
    assert second.service["ExecStart"].value[0][1][-2:] == ["udp", "127.0.0.1:9"]
    assert first.socket["PassPacketInfo"].value


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        (
            {},
            "setpriv --reuid=100000 --regid=100000 --clear-groups --"
            " socket-proxyd --exit-idle-time=300s 127.0.0.1:8080",
        ),
        (
            {"security.uid": "1000", "security.gid": "7"},
            "setpriv --reuid=1000 --regid=100007 --clear-groups -- socket-proxyd --exit-idle-time=300s 127.0.0.1:8080",
        ),
        ({"bind": "instance"}, "socket-proxyd --exit-idle-time=300s 127.0.0.1:8080"),
        ({"bind": "instance", "connect": "unix:/run/x"}, "socket-proxyd --exit-idle-time=300s /run/x"),
        (
            {"bind": "instance", "security.gid": "12", "connect": "udp:[::1]:5"},
            "forward --idle=300 --user=0:12 udp [::1]:5",
        ),
        ({"proxy_protocol": "yes"}, "forward --idle=300 --user=100000:100000 --proxy-protocol tcp 127.0.0.1:8080"),
        ({"bind": "instance", "listen": "unix:@a", "connect": "unix:@b"}, "forward --idle=300 unix @b"),
        ({"connect": "unix:/x"}, "forward --idle=300 --user=100000:100000 --beneath=/proc/77/root unix /x"),
    ],
)
def test_what_passes_on(options: dict[str, str], argv: str) -> None:
    short = {proxies.SETPRIV: "setpriv", proxies.PROXYD: "socket-proxyd", proxies.FORWARD: "forward"}
    assert " ".join(short.get(word, word) for word in _argv({**PROXY, **options})) == argv


def test_capabilities_are_for_becoming_someone_else() -> None:
    def capabilities(inside: proxies.Inside, **options: str) -> int:
        (one,) = _proxies(inside, a={**PROXY, **options})
        return int(one.service["CapabilityBoundingSet"].value)

    privileged = proxies.Inside(77, IDENTITY)
    assert capabilities(INSIDE) == 1 << 6 | 1 << 7
    assert capabilities(INSIDE, bind="instance") == capabilities(privileged) == 0
    assert capabilities(privileged, connect="unix:/x") == 1 << 19


def test_a_map_of_ids_can_be_read_back() -> None:
    assert parse_map(IDS.uid_text, IDS.gid_text) == IDS
    assert parse_map(IDENTITY.uid_text, IDENTITY.gid_text) == IDENTITY


def test_changes_of_devices() -> None:
    own = {"data": dict(DISK)}
    assert with_device(own, "web1", "null", NODE) == {"data": DISK, "null": NODE}
    assert with_options(own, "web1", "data", {"path": "/x", "readonly": "true"}, ()) == {
        "data": {**DISK, "path": "/x", "readonly": "true"}
    }
    assert with_options({"null": {**NODE, "gid": "5"}}, "web1", "null", {}, ["gid", "uid"]) == {"null": NODE}
    assert replaced({**own, "null": NODE}, "web1", {"data": {**DISK, "path": "/x"}}, ["null"]) == {
        "data": {**DISK, "path": "/x"}
    }
    assert own == {"data": DISK}
    with pytest.raises(ExistsError, match="web1 has a device 'data'"):
        with_device(own, "web1", "data", NODE)
    with pytest.raises(InvalidError, match="type"):
        with_options(own, "web1", "data", {}, ["type"])
    with pytest.raises(InvalidError, match="path is both"):
        with_options(own, "web1", "data", {"path": "/x"}, ["path"])
    with pytest.raises(InvalidError, match="both set and removed"):
        replaced(own, "web1", {"data": NODE}, ["data"])
    with pytest.raises(NotFoundError, match="web1 has no device 'x'"):
        with_options(own, "web1", "x", {}, ())
    with pytest.raises(NotFoundError, match="web1 has no device 'x'"):
        replaced(own, "web1", {}, ["x"])


def test_a_translation_is_a_table_of_its_own() -> None:
    options = {**NAT, "listen": "udp:[2001:db8::1]:80,90", "connect": "udp:[::]:8080"}
    instance = Instance("u-1", "web", "i", 1000, devices={"a": options, "eth0": ROUTED, "b": {**PROXY}})
    ((name, service),) = translation.of_instance(instance)
    assert name == "syscont-proxy@web.a:0"
    assert translation.versions(instance) == {6}
    assert [one.unit for one in proxies.of_instance(instance, INSIDE)] == ["syscont-proxy@web.b:0"]
    commands = json.loads(service["StandardInputData"].value)["nftables"]
    table = commands[0]["add"]["table"]["name"]
    assert service["ExecStop"].value == [[translation.NFT, [translation.NFT, "delete", "table", "inet", table], False]]
    rules = [command["add"]["rule"] for command in commands if "rule" in command.get("add", {})]
    assert {rule["table"] for rule in rules} == {table}
    translated = [rule["expr"][-1]["dnat"] for rule in rules if rule["chain"] == "prerouting"]
    assert translated == [{"family": "ip6", "addr": "2001:db8::5", "port": 8080}] * 2
    other = Instance("u-1", "web", "i", 1000, devices={"a": {**options, "connect": "udp:[::]:1"}, "eth0": ROUTED})
    assert next(translation.of_instance(other))[1]["Description"] != service["Description"]
