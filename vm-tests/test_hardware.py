# SPDX-License-Identifier: Apache-2.0
"""Hardware for guests: USB, graphics cards, device nodes, network cards and limits of disks, on a machine that has
them. QEMU plugs them in and out while guests run."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host, VmHost

pytestmark = [pytest.mark.needs_hardware, pytest.mark.heavy]

SERIAL = ("vendorid=0403", "productid=6001")
STICK = ("vendorid=46f4",)
KEYBOARD = ("vendorid=0627", "productid=0001")
ON_THE_STICK = b"what is on the stick\n"
PRIVILEGED = ("--config", "security.privileged=true")


class Sockets:
    """The USB sockets of a host."""

    def __init__(self, machine: VmHost) -> None:
        self._machine = machine
        self._full = ExitStack()

    def serial(self) -> None:
        self._machine.machine("chardev-add", id="line", backend={"type": "null", "data": {}})
        self._full.callback(self._machine.machine, "chardev-remove", id="line")
        self._plug("usb-serial", chardev="line", **{"always-plugged": True})

    def stick(self, bytes_a_second: int = 0) -> None:
        """As fast as it can be, when no speed is given."""
        image = self._machine.directory / "stick"
        with image.open("wb") as stream:
            stream.write(ON_THE_STICK)
            stream.truncate(64 << 20)
        file: dict[str, Any] = {"driver": "file", "filename": str(image)}
        if bytes_a_second:
            limits = {"bps-total": bytes_a_second}
            self._machine.machine("object-add", **{"qom-type": "throttle-group", "id": "slow", "limits": limits})
            self._full.callback(self._machine.machine, "object-del", id="slow")
            file = {"driver": "throttle", "throttle-group": "slow", "file": file}
        self._machine.machine("blockdev-add", **{"node-name": "stick", "driver": "raw", "file": file})
        self._full.callback(self._machine.machine, "blockdev-del", **{"node-name": "stick"})
        self._plug("usb-storage", drive="stick", serial="SYSCONT")

    def keyboard(self) -> None:
        self._plug("usb-kbd")

    def _plug(self, driver: str, **properties: Any) -> None:
        """Returns when the host's udev has dealt with it."""
        before = self._numbers()
        self._machine.plug(driver, driver, bus="usb.0", **properties)
        self._full.callback(self._machine.unplug, driver)
        until(self._machine, lambda: self._numbers() - before)
        self._machine.sh("udevadm settle")

    def _numbers(self) -> set[str]:
        return set(self._machine.sh("cat /sys/bus/usb/devices/*/dev 2>/dev/null || true").split())

    def empty(self) -> None:
        self._full.close()


@pytest.fixture(scope="module")
def host(hardware_host: VmHost) -> Host:
    return hardware_host


@pytest.fixture(scope="module")
def busybox(host: Host) -> str:
    syscont(host, "image", "build", "busybox")
    return "busybox"


@pytest.fixture
def usb(hardware_host: VmHost) -> Iterator[Sockets]:
    sockets = Sockets(hardware_host)
    yield sockets
    sockets.empty()


def device(instance: Instance, verb: str, *words: str, check: bool = True) -> str:
    done = syscont(instance.host, "device", verb, instance.name, *words, check=check)
    return done.stdout if check else done.stderr


def nodes(instance: Instance, *folders: str) -> list[str]:
    """Device nodes that a guest has in some folders of its /dev."""
    return instance.sh(f"cd /dev; find {' '.join(folders)} -type c -o -type b 2>/dev/null || true").split()


def opened(instance: Instance, path: str) -> str:
    """What a guest is told when it opens something for reading; empty when that works."""
    return instance.exec("sh", "-c", f"exec 3<{path}", check=False).stderr.strip().rpartition(": ")[2]


def policy(instance: Instance) -> str:
    return instance.systemd("DeviceAllow")


# USB


@pytest.mark.parametrize("options", [(), PRIVILEGED], ids=["own ids", "privileged"])
def test_usb_comes_and_goes(host: Host, launch: Launch, usb: Sockets, options: tuple[str, ...]) -> None:
    one, other = launch("", *options), launch("", *options)
    device(one, "add", "serial", "usb", *SERIAL, "mode=0600")
    for _ in range(2):
        assert not nodes(one, "bus")
        usb.keyboard()
        usb.serial()
        (node,) = until(host, lambda: nodes(one, "bus"))
        # Its descriptor (USB 2.0, 9.6.1): vendor and product, and with it that it can be read.
        assert one.sh(f"od -An -tx1 -j8 -N4 /dev/{node}").split() == ["03", "04", "01", "60"]
        assert one.sh(f"stat -c %a:%u:%g /dev/{node}") == "600:0:0\n"
        assert "189:" in policy(one)
        assert not nodes(other, "bus")
        usb.empty()
        until(host, lambda: not nodes(one, "bus"))
        until(host, lambda: "189:" not in policy(one))


def test_usb_that_is_required_is_so_at_start(host: Host, launch: Launch, usb: Sockets) -> None:
    device_words = ",".join(("serial", "type=usb", *SERIAL, "required=true"))
    one = launch("", "-d", device_words, verb="create")
    assert "device serial: no such device is there" in one.do("start", check=False).stderr
    usb.serial()
    one.do("start")
    assert nodes(one, "bus")
    usb.empty()
    until(host, lambda: not nodes(one, "bus"))
    assert one.state == "running"
    assert "device serial: no such device is there" in one.do("restart --force", check=False).stderr


def test_what_was_pulled_while_nobody_watched(host: Host, launch: Launch, usb: Sockets) -> None:
    usb.serial()
    one = launch("", "-d", ",".join(("serial", "type=usb", *SERIAL)))
    assert nodes(one, "bus")
    host.sh("systemctl stop syscontd.socket syscontd.service")
    usb.empty()
    until(host, lambda: "usb-serial" not in host.sh("ls /sys/bus/usb/devices; cat /sys/bus/usb/devices/*/product"))
    host.sh("systemctl start syscontd.socket syscontd.service")
    until(host, lambda: "189:" not in policy(one))
    assert not nodes(one, "bus")


def test_a_guest_can_t_cling_to_what_was_pulled(host: Host, launch: Launch, usb: Sockets) -> None:
    """The number may next be that of another device."""
    usb.serial()
    one = launch("", "-d", ",".join(("serial", "type=usb", *SERIAL)))
    (node,) = nodes(one, "bus")
    one.sh(f"touch /kept; mount --bind /dev/{node} /kept; mount -t tmpfs mine /dev/bus")
    assert opened(one, "/kept") == ""
    usb.empty()
    until(host, lambda: "189:" not in policy(one))
    assert opened(one, "/kept") == "Operation not permitted"
    usb.serial()
    until(host, lambda: "189:" in policy(one))
    one.do("restart --force")
    assert nodes(one, "bus")


@pytest.mark.parametrize("options", [(), PRIVILEGED], ids=["own ids", "privileged"])
def test_what_hangs_on_usb_comes_and_goes(
    host: Host, launch: Launch, usb: Sockets, options: tuple[str, ...]
) -> None:
    one = launch("", *options)
    for name, words in (("line", SERIAL), ("stick", STICK), ("keys", KEYBOARD)):
        device(one, "add", name, "unix-hotplug", *words)
    assert not nodes(one, "sd*", "ttyUSB*", "input")
    usb.serial()
    usb.stick()
    usb.keyboard()
    until(host, lambda: len(nodes(one, "sd*")) == len(nodes(one, "ttyUSB*")) == len(nodes(one, "input/event*")) == 1)
    (disk,), (line,), (keys,) = nodes(one, "sd*"), nodes(one, "ttyUSB*"), nodes(one, "input/event*")
    assert one.sh(f"head -n1 /dev/{disk}") == ON_THE_STICK.decode()
    assert one.sh(f"stty -F /dev/{line} speed") == "9600\n"
    assert opened(one, f"/dev/{keys}") == ""
    assert not nodes(one, "bus")
    usb.empty()
    until(host, lambda: not nodes(one, "sd*", "ttyUSB*", "input"))
    until(host, lambda: "/dev/block" not in policy(one))


def test_a_node_that_is_not_required_follows_udev(host: Host, launch: Launch, usb: Sockets) -> None:
    link = "/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_SYSCONT-0:0"
    one = launch()
    device(one, "add", "stick", "unix-block", f"source={link}", "path=/dev/mine", "required=false")
    assert not nodes(one, "mine")
    usb.stick()
    until(host, lambda: nodes(one, "mine"))
    assert one.sh("head -n1 /dev/mine") == ON_THE_STICK.decode()
    usb.empty()
    until(host, lambda: not nodes(one, "mine"))


# Graphics


def cards(host: Host) -> dict[str, dict[str, str]]:
    """By vendor, how each card may be named."""
    found = {}
    lines = host.sh("for d in /sys/class/drm/card?/device; do echo $(realpath $d) $d $(cat $d/vendor); done")
    for real, path, vendor in map(str.split, lines.splitlines()):
        found[vendor] = {"id": path.split("/")[4].removeprefix("card"), "vendorid": vendor.removeprefix("0x")}
        # Virtio's device is below that of PCI.
        found[vendor]["pci"] = next(word for word in reversed(real.split("/")) if word.startswith("0000:"))
    return found


@pytest.mark.parametrize("how", ["id", "vendorid", "pci"])
def test_a_graphics_card_by_its_names(host: Host, launch: Launch, how: str) -> None:
    until(host, lambda: len(cards(host)) == 2)
    one = launch("", *PRIVILEGED)
    for names in cards(host).values():
        device(one, "add", "card", "gpu", f"{how}={names[how]}", "gid=44")
        assert f"dri/card{names['id']}" in nodes(one, "dri")
        assert len([node for node in nodes(one, "dri") if "card" in node]) == 1
        for node in nodes(one, "dri"):
            assert opened(one, f"/dev/{node}") == ""
            number = one.sh(f"stat -c '%t %T' /dev/{node}").split()
            one.sh(f"mknod /root/own c {int(number[0], 16)} {int(number[1], 16)}; exec 3</root/own")
            device(one, "set", "card", "mode=0640")
            assert one.sh(f"stat -c %a:%g /dev/{node}") == "640:44\n"
        device(one, "remove", "card")
        assert not nodes(one, "dri")
        assert opened(one, "/root/own") == "Operation not permitted"
        one.sh("rm /root/own")


def test_a_graphics_card_that_is_not_there(launch: Launch) -> None:
    one = launch()
    assert "no such graphics card" in device(one, "add", "card", "gpu", "vendorid=10de", check=False)
    assert not nodes(one, "dri")


# Disks


@pytest.fixture(scope="module")
def folder(host: Host) -> Iterator[str]:
    """A folder on a disk of its own, with 16 MiB to be read."""
    host.sh("truncate -s 200M /var/tmp/disk; mkfs.ext4 -q /var/tmp/disk; mkdir -p /srv/disk")
    host.sh("mount -o loop /var/tmp/disk /srv/disk; chmod 777 /srv/disk")
    host.sh("dd if=/dev/zero of=/srv/disk/there bs=1M count=16 status=none; sync")
    yield "/srv/disk"
    host.sh("umount /srv/disk; rm /var/tmp/disk")


def seconds(instance: Instance, script: str) -> float:
    """How long a script takes by the host's clock."""
    words = f"begin=$(cut -d' ' -f1 /proc/uptime); ({script}) >&2; echo $begin $(cut -d' ' -f1 /proc/uptime)"
    begin, end = instance.sh(words).split()
    return float(end) - float(begin)


READ = "dd if=/mnt/there of=/dev/null bs={} count={} iflag=direct"
WRITE = "dd if=/dev/zero of={} bs={} count={} oflag=direct conv=notrunc"
LONG = 8.0
"""Seconds. With limits the work below takes ten, without them one, and more on a busy machine."""


def test_reads_and_writes_of_a_disk_are_throttled(launch: Launch, folder: str) -> None:
    one = launch("", "-d", f"data,type=disk,source={folder},path=/mnt,shift=true")
    reads, writes = READ.format("1M", 10), WRITE.format("/mnt/new", "1M", 10)
    assert seconds(one, reads) < LONG
    device(one, "set", "data", "limits.read=1MiB")
    assert seconds(one, reads) > LONG
    assert seconds(one, writes) < LONG
    device(one, "set", "data", "limits.read=10iops")
    assert seconds(one, READ.format("4k", 100)) > LONG
    device(one, "set", "data", "limits.max=1MiB")
    device(one, "unset", "data", "limits.read")
    assert seconds(one, writes) > LONG
    device(one, "unset", "data", "limits.max")
    assert seconds(one, reads) < LONG


def test_writes_to_the_root_disk_are_throttled(launch: Launch) -> None:
    one, other = launch("", "-d", "root,type=disk,path=/,limits.write=1MiB"), launch()
    script = WRITE.format("/root/new", "1M", 10)
    assert seconds(other, script) < LONG
    assert seconds(one, script) > LONG


READER = "while :; do dd if=/dev/mine of=/dev/null bs=64k iflag=direct; done >/dev/null 2>&1 &"


def read_bytes(instance: Instance, number: str) -> int:
    text = instance.host.sh(f"cat /sys/fs/cgroup{instance.systemd('ControlGroup')}/io.stat")
    row = next((line for line in text.splitlines() if line.startswith(f"{number} ")), "")
    return int(dict(word.split("=") for word in row.split()[1:]).get("rbytes", 0))


def test_who_has_priority_reads_more_of_a_slow_disk(
    host: Host, hardware_host: VmHost, launch: Launch, usb: Sockets
) -> None:
    """With the I/O scheduler BFQ, which heeds weights; it is to wait for readers as slow as an emulated processor."""
    usb.stick(bytes_a_second=2 << 20)
    disk = until(host, lambda: host.sh("ls /dev/sd? 2>/dev/null || true").strip()).removeprefix("/dev/")
    host.sh(f"modprobe bfq; echo bfq >/sys/block/{disk}/queue/scheduler")
    host.sh(f"cd /sys/block/{disk}/queue/iosched; echo 0 >low_latency; echo 100 >slice_idle")
    number = host.read_text(f"/sys/block/{disk}/dev").strip()
    words = f"disk,type=unix-block,source=/dev/{disk},path=/dev/mine"
    low, high = (launch("", "--config", f"limits.disk.priority={n}", "-d", words) for n in (1, 10))
    for one in (low, high):
        one.sh(f"for i in 1 2 3 4; do {READER} done")

    def share() -> float:
        before = [read_bytes(one, number) for one in (low, high)]
        host.sh("sleep 15")
        of_low, of_high = (read_bytes(one, number) - was for one, was in zip((low, high), before, strict=True))
        return of_high / max(of_low, 1)

    assert share() > 2.5
    syscont(host, "config", "set", low.name, "limits.disk.priority=10")
    assert 0.6 < share() < 1.6
    for one in (low, high):
        one.do("stop --force")


# A network card


@pytest.fixture
def card(host: Host, hardware_host: VmHost) -> Iterator[str]:
    """A network card of the host's; 10.0.3.2 is at its other end."""
    machine = hardware_host.machine
    machine("netdev_add", type="user", id="lan", net="10.0.3.0/24", restrict=True)
    hardware_host.plug("card", "virtio-net-pci", bus="port1", netdev="lan", mac="52:54:00:00:00:77")
    until(host, lambda: "52:54:00:00:00:77" in host.sh("ip link show eth1 2>&1 || true"))
    host.sh("ip link set eth1 up; sysctl -qw net.ipv4.ip_forward=1")
    yield "eth1"
    hardware_host.unplug("card")
    machine("netdev_del", id="lan")


@pytest.mark.parametrize("kind", ["physical", "macvlan", "ipvlan", "routed"])
def test_a_network_card_is_lent_or_shared(host: Host, launch: Launch, card: str, kind: str) -> None:
    address = ",ipv4.address=10.0.3.9" if kind in ("ipvlan", "routed") else ""
    if kind == "routed":
        host.sh(f"ip addr add 10.0.3.5/24 dev {card}")
    one = launch("", "-d", f"eth0,type=nic,nictype={kind},parent={card},name=lan0{address}")
    if not address:
        one.sh("ip addr add 10.0.3.9/24 dev lan0; ip link set lan0 up")
    one.sh("ping -c1 -W20 10.0.3.2")
    there = host.run(["ip", "link", "show", card], check=False).returncode == 0
    assert there is (kind != "physical")
    one.do("stop --force")
    until(host, lambda: not host.run(["ip", "link", "show", card], check=False).returncode)
