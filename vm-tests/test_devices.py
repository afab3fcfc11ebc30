# SPDX-License-Identifier: Apache-2.0
"""Devices of containers: given at creation and while they run, taken away again, and what hostile guests try."""

import json
from collections.abc import Iterator

import canaries
import pytest
from conftest import Launch
from guests import Instance, syscont, until
from hosts import Host

DATA = "/var/tmp/device-data"
LOOP = "/dev/loop-control"


@pytest.fixture(scope="module")
def data(host: Host) -> Iterator[str]:
    """A folder of the host with a file in it and a folder below."""
    host.sh(f"mkdir -p {DATA}/below && echo hello >{DATA}/file && chmod 755 {DATA}")
    yield DATA
    host.sh(f"rm -rf {DATA}")


def device(instance: Instance, verb: str, *words: str, check: bool = True) -> str:
    done = syscont(instance.host, "device", verb, instance.name, *words, check=check)
    return done.stdout if check else done.stderr


def mounts(instance: Instance, path: str) -> list[list[str]]:
    lines = instance.exec("cat", "/proc/self/mounts").stdout.splitlines()
    return [line.split() for line in lines if line.split()[1] == path]


# disks


def test_disks_are_there_when_a_guest_starts_and_after_its_reboot(host: Host, launch: Launch, data: str) -> None:
    one = launch("", "-d", f"data,type=disk,source={data},path=/srv/deep/data")
    assert one.exec("cat", "/srv/deep/data/file").stdout == "hello\n"
    leader = one.leader
    one.exec("reboot", check=False)
    until(host, lambda: one.state == "running" and one.leader not in (0, leader))
    assert one.exec("cat", "/srv/deep/data/file").stdout == "hello\n"


def test_a_disk_comes_and_goes_while_the_guest_runs(host: Host, guest: Instance, data: str) -> None:
    device(guest, "add", "data", "disk", f"source={data}", "path=/srv/data", "readonly=true")
    assert guest.exec("cat", "/srv/data/file").stdout == "hello\n"
    assert "ro" in mounts(guest, "/srv/data")[0][3].split(",")
    device(guest, "set", "data", "readonly=false")
    assert "rw" in mounts(guest, "/srv/data")[0][3].split(",")
    assert device(guest, "get", "data", "source").strip() == data
    device(guest, "remove", "data")
    assert not mounts(guest, "/srv/data")
    assert guest.exec("ls", "/srv/data").stdout == ""
    assert host.read_text(f"{data}/file") == "hello\n"


@pytest.mark.parametrize("when", ["at start", "running"])
def test_no_guest_makes_a_read_only_disk_writable(host: Host, launch: Launch, data: str, when: str) -> None:
    words = ("data", "disk", f"source={data}", "path=/mnt", "readonly=true")
    if when == "at start":
        one = launch("", "-d", f"data,type=disk,source={data},path=/mnt,readonly=true,shift=true")
    else:
        one = launch()
        device(one, "add", *words, "shift=true")
    assert one.exec("mount", "-o", "remount,rw,bind", "/mnt", check=False).returncode
    assert one.exec("mount", "-o", "remount,rw", "/mnt", check=False).returncode
    one.exec("sh", "-c", "mkdir /copy && mount --bind /mnt /copy && mount -o remount,rw,bind /copy", check=False)
    for place in ("/mnt", "/copy"):
        assert one.exec("sh", "-c", f"echo bad >{place}/file", check=False).returncode
    assert host.read_text(f"{data}/file") == "hello\n"


def test_ids_are_shifted_when_asked_for(host: Host, guest: Instance, data: str) -> None:
    device(guest, "add", "plain", "disk", f"source={data}", "path=/plain")
    device(guest, "add", "shifted", "disk", f"source={data}", "path=/shifted", "shift=true")
    assert guest.exec("stat", "-c", "%u", "/plain/file").stdout == "65534\n"
    assert guest.exec("sh", "-c", "echo bad >/plain/new", check=False).returncode
    assert guest.exec("stat", "-c", "%u", "/shifted/file").stdout == "0\n"
    guest.exec("sh", "-c", "echo by-guest >/shifted/new")
    assert host.sh(f"stat -c %u {data}/new; rm {data}/new") == "0\n"
    device(guest, "remove", "plain", "shifted")


def test_what_is_mounted_below_comes_along_when_asked_for(host: Host, guest: Instance, data: str) -> None:
    host.sh(f"mount -t tmpfs below {data}/below && echo x >{data}/below/inner")
    try:
        device(guest, "add", "flat", "disk", f"source={data}", "path=/flat")
        words = ("recursive=true", "readonly=true")
        device(guest, "add", "deep", "disk", f"source={data}", "path=/deep", *words)
        assert guest.exec("ls", "/flat/below").stdout == ""
        assert guest.exec("cat", "/deep/below/inner").stdout == "x\n"
        assert guest.exec("umount", "/deep/below", check=False).returncode
        assert guest.exec("mount", "-o", "remount,rw,bind", "/deep/below", check=False).returncode
        device(guest, "remove", "flat", "deep")
        assert not mounts(guest, "/deep") + mounts(guest, "/deep/below")
    finally:
        host.sh(f"umount {data}/below")


def test_later_mounts_of_the_host_are_seen_when_asked_for(host: Host, guest: Instance, data: str) -> None:
    device(guest, "add", "alone", "disk", f"source={data}", "path=/alone", "recursive=true")
    words = ("recursive=true", "propagation=rslave")
    device(guest, "add", "follows", "disk", f"source={data}", "path=/follows", *words)
    host.sh(f"mount -t tmpfs later {data}/below && echo x >{data}/below/inner")
    try:
        assert guest.exec("cat", "/follows/below/inner").stdout == "x\n"
        assert guest.exec("ls", "/alone/below").stdout == ""
    finally:
        host.sh(f"umount {data}/below")
        device(guest, "remove", "alone", "follows")


def test_disks_of_a_privileged_guest(host: Host, launch: Launch, data: str) -> None:
    """Ids are the host's own, asked for or not; all else is as for others."""
    one = launch("", "--config", "security.privileged=true")
    device(one, "add", "data", "disk", f"source={data}", "path=/mnt", "recursive=true", "propagation=rslave")
    device(one, "add", "fixed", "disk", f"source={data}", "path=/fixed", "readonly=true", "shift=true")
    one.sh("echo by-guest >/mnt/new; chown 1000 /mnt/new")
    assert host.sh(f"stat -c %u {data}/new; rm {data}/new") == "1000\n"
    host.sh(f"mount -t tmpfs later {data}/below && echo x >{data}/below/inner")
    try:
        assert one.sh("cat /mnt/below/inner; ls /fixed/below") == "x\n"
        # Its mounts are its own.
        one.sh("mkdir /mnt/below/more; mount -t tmpfs mine /mnt/below/more; touch /mnt/below/more/mine")
        assert host.sh(f"ls {data}/below/more") == ""
        one.sh("umount /mnt/below/more")
    finally:
        host.sh(f"umount {data}/below")
    assert one.exec("sh", "-c", "echo bad >/fixed/file", check=False).returncode
    assert host.read_text(f"{data}/file") == "hello\n"
    device(one, "remove", "data", "fixed")
    assert not mounts(one, "/mnt") + mounts(one, "/fixed")


def test_a_file_and_options_of_a_mount(host: Host, guest: Instance, data: str) -> None:
    words = (f"source={data}/file", "path=/etc/from-host", "raw.mount.options=noexec,nosuid")
    device(guest, "add", "file", "disk", *words)
    assert guest.exec("cat", "/etc/from-host").stdout == "hello\n"
    assert {"noexec", "nosuid", "nodev"} <= set(mounts(guest, "/etc/from-host")[0][3].split(","))
    device(guest, "remove", "file")


def test_a_source_that_is_not_there(host: Host, launch: Launch) -> None:
    one = launch("", "-d", "gone,type=disk,source=/nowhere,path=/mnt", verb="create")
    done = one.do("start", check=False)
    assert done.returncode
    assert "device gone: /nowhere is not there" in done.stderr
    device(one, "set", "gone", "required=false")
    one.do("start")
    error = device(one, "set", "gone", "required=true", check=False)
    assert "is not there" in error
    assert device(one, "get", "gone", "required").strip() == "false"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("disk", "source=/srv"), "path is missing"),
        (("disk", "path=/mnt"), "source is missing"),
        (("disk", "source=../etc", "path=/mnt"), "not an absolute path"),
        (("disk", "source=/srv/../etc", "path=/mnt"), "not an absolute path"),
        (("disk", "source=/srv", "path=/mnt/../etc"), "not an absolute path"),
        (("disk", "source=/srv", "path=/proc/sys"), "nothing can be mounted at"),
        (("disk", "source=/srv", "path=/mnt\n/x"), "line break"),
        (("disk", "source=/srv", "path=/mnt", "raw.mount.options=dev,upperdir=/"), "not an option"),
        (("disk", "source=/srv", "path=/mnt", "size=1GiB"), "for the root file system only"),
        (("disk", "source=/var/lib/syscont", "path=/mnt"), "syscont's own"),
        (("disk", "source=/proc/self/root", "path=/mnt"), ""),
        (("nic", "nictype=macvlan"), "parent is missing"),
        (("nic", "nictype=bridged", "parent=lo"), "is no bridge"),
        (("nic", "nictype=macvlan", "parent=nowhere0"), "no link nowhere0"),
        (("unix-char", "source=/etc/passwd"), "not a device node"),
        (("unix-char", "source=/dev/nowhere"), "is not there"),
        (("unix-block", "source=/dev/null"), "no block device"),
        (("unix-char", "source=/dev/null", "path=/proc/null"), "nothing can be mounted"),
        (("pci", "address=1"), "not a PCI address"),
        (("pci", "address=01:00.0"), "a PCI device is for virtual machines"),
        (("nonsense",), "unknown type"),
    ],
)
def test_what_is_refused_changes_nothing(guest: Instance, words: tuple[str, ...], message: str) -> None:
    def state() -> tuple[object, ...]:
        seen = guest.seen()
        return seen["config"], seen["devices"], guest.exec("cat", "/proc/self/mounts").stdout

    before = state()
    assert message in device(guest, "add", "bad", *words, check=False)
    assert state() == before


# hostile guests


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_links_of_a_guest_lead_nowhere_but_into_itself(
    host: Host, canary: None, launch: Launch, data: str, privileged: str
) -> None:
    """Folders and nodes, given to a guest that runs, and as it starts."""
    one = launch("", "-c", f"security.privileged={privileged}")
    routes = [*canaries.ROUTES, "/proc/1/root", "/proc/self/fd/0"]
    script = "; ".join(f"ln -s {route} /trap{number}" for number, route in enumerate(routes))
    one.sh(f"{script}; rm -rf /dev/shm; ln -s /proc/self/fd /dev/shm", check=False)
    for number in range(len(routes)):
        disk = ("disk", f"source={data}", f"path=/trap{number}/x")
        device(one, "add", f"d{number}", *disk, check=False)
        file = ("disk", f"source={data}/file", f"path=/trap{number}/file")
        device(one, "add", f"f{number}", *file, check=False)
        device(one, "add", f"n{number}", "unix-char", "source=/dev/null", f"path=/trap{number}/null", check=False)
    one.do("restart --force", check=False)
    assert f" {data}" not in host.sh("cat /proc/self/mountinfo")


def test_a_guest_that_moves_a_disk_is_told_on(host: Host, launch: Launch, data: str) -> None:
    one = launch("", "-d", f"data,type=disk,source={data},path=/mnt")
    one.exec("sh", "-c", "mkdir /else; mount --move /mnt /else || umount /mnt; mount -t tmpfs x /mnt")
    error = device(one, "remove", "data", check=False)
    assert "something else by now" in error
    assert mounts(one, "/mnt")


# device nodes


def rdev(instance: Instance, path: str) -> list[str]:
    return instance.exec("stat", "-c", "%F %t:%T %a %u:%g", path).stdout.split("\n")[0].split(" ")


@pytest.mark.parametrize("privileged", ["false", "true"])
@pytest.mark.parametrize("when", ["at start", "running"])
def test_a_device_node_can_be_opened_while_it_is_given(
    host: Host, launch: Launch, when: str, privileged: str
) -> None:
    host.sh(f"test -e {LOOP} || mknod {LOOP} c 10 237")
    one = launch("", "--config", f"security.privileged={privileged}")
    attempt = ("sh", "-c", "exec 3<>/dev/mine")
    words = (f"source={LOOP}", "path=/dev/mine", "gid=5", "mode=0640")
    device(one, "add", "mine", "unix-char", *words)
    if when == "at start":
        one.do("restart --force")
    assert one.exec("stat", "-c", "%t:%T %a %u:%g", "/dev/mine").stdout == "a:ed 640 0:5\n"
    assert "/dev/char/10:237" in one.systemd("DeviceAllow")
    one.exec(*attempt)
    held = host.spawn(["syscont", "exec", one.name, "--", "sh", "-c", "exec 3<>/dev/mine; echo open; sleep 30"])
    assert held.stdout is not None
    assert held.stdout.readline() == "open\n"
    device(one, "remove", "mine")
    assert "10:237" not in one.systemd("DeviceAllow")
    assert one.exec("ls", "/dev/mine", check=False).returncode
    held.kill()


def test_a_node_that_a_guest_keeps_is_of_no_use_any_more(host: Host, launch: Launch) -> None:
    host.sh(f"test -e {LOOP} || mknod {LOOP} c 10 237")
    one = launch()
    device(one, "add", "mine", "unix-char", f"source={LOOP}", "path=/dev/mine")
    one.exec("sh", "-c", "touch /kept; mount --bind /dev/mine /kept; exec 3<>/kept")
    device(one, "remove", "mine")
    assert one.exec("sh", "-c", "exec 3<>/kept", check=False).returncode


@pytest.fixture
def loop(host: Host) -> Iterator[str]:
    """A block device that reads "on the disk"."""
    path = host.sh("echo on the disk >/var/tmp/loop; truncate -s 1M /var/tmp/loop; losetup --find --show /var/tmp/loop")
    yield path.strip()
    host.sh(f"losetup --detach {path.strip()}; rm /var/tmp/loop")


@pytest.mark.needs_controllers  # and a kernel that enforces device policies
def test_what_is_not_given_can_t_be_opened(host: Host, launch: Launch, loop: str) -> None:
    """By a guest whose root may make nodes, too: systemd's device policy decides."""
    one = launch("", "--config", "security.privileged=true")
    make, system = (host.sh(f"stat -c '%Hr %Lr' {path}").strip() for path in (loop, "/dev/vda"))
    assert "not permitted" in one.exec("sh", "-c", f"mknod /root/own b {make}", check=False).stderr
    device(one, "add", "disk", "unix-block", f"source={loop}", "path=/dev/mine")
    one.sh(f"mknod /root/own b {make}")
    for node in ("/dev/mine", "/root/own"):
        assert one.sh(f"head -n1 {node}") == "on the disk\n"
    assert "not permitted" in one.exec("sh", "-c", f"mknod /root/system b {system}", check=False).stderr
    device(one, "remove", "disk")
    assert "not permitted" in one.exec("sh", "-c", "exec 3</root/own", check=False).stderr
    one.do("restart --force")
    assert "not permitted" in one.exec("sh", "-c", "exec 3</root/own", check=False).stderr


def test_a_guest_makes_no_nodes_of_its_own(guest: Instance) -> None:
    assert guest.exec("mknod", "/dev/own", "c", "1", "11", check=False).returncode


# interfaces


@pytest.fixture
def wire(host: Host) -> Iterator[str]:
    """A link of the host's with something at its other end: 198.51.100.1."""
    host.sh(
        "ip netns add far; ip link add wire0 type veth peer name far0 netns far;"
        "ip link set wire0 up; ip -n far addr add 198.51.100.1/24 dev far0; ip -n far link set far0 up"
    )
    yield "wire0"
    host.sh("ip netns del far; ip link del wire0 2>/dev/null || true")


def link(instance: Instance, name: str) -> str:
    return instance.exec("ip", "address", "show", name, check=False).stdout


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_interfaces_come_and_go_while_the_guest_runs(host: Host, launch: Launch, privileged: str) -> None:
    guest = launch("", "--config", f"security.privileged={privileged}")
    device(guest, "add", "second", "nic", "network=syscontbr0", "mtu=1400")
    assert "mtu 1400" in link(guest, "eth1")
    config = json.loads(syscont(host, "config", "show", guest.name, "--format", "json").stdout)["config"]
    assert config["volatile.second.hwaddr"] in link(guest, "eth1")
    outside = config["volatile.second.host_name"]
    assert "master syscontbr0" in host.sh(f"ip link show {outside}")
    device(guest, "remove", "second")
    assert not link(guest, "eth1")
    assert host.run(["ip", "link", "show", outside], check=False).returncode


def test_kinds_of_interfaces(host: Host, launch: Launch, wire: str) -> None:
    one = launch(
        "",
        *("-d", "lone,type=nic,nictype=p2p,name=lone0,host_name=lonehost0,hwaddr=02:00:00:00:00:77"),
        # The host has a link of that name, too.
        *("-d", f"mac,type=nic,nictype=macvlan,parent={wire},name={wire}"),
    )
    assert "02:00:00:00:00:77" in link(one, "lone0")
    host.sh("ip addr add 192.0.2.1/30 dev lonehost0")
    one.exec("sh", "-c", "ip addr add 192.0.2.2/30 dev lone0; ip link set lone0 up; ping -c1 -W3 192.0.2.1")
    one.sh(f"ip addr add 198.51.100.7/24 dev {wire}; ip link set {wire} up; ping -c1 -W3 198.51.100.1")
    device(one, "remove", "mac")
    assert not link(one, wire)
    device(one, "add", "mac", "nic", "nictype=macvlan", f"parent={wire}", f"name={wire}")
    assert link(one, wire)
    one.do("stop --force")
    # With its other end, which the kernel takes away in its own time.
    until(host, lambda: host.run(["ip", "link", "show", "lonehost0"], check=False).returncode)


def test_routed(host: Host, launch: Launch, wire: str) -> None:
    host.sh(f"ip addr add 198.51.100.2/24 dev {wire}; sysctl -qw net.ipv4.ip_forward=1")
    words = f"type=nic,nictype=routed,parent={wire},ipv4.address=198.51.100.9,name=lan0"
    one = launch("", "-d", f"eth0,{words}")
    assert "198.51.100.9/32" in link(one, "lan0")
    assert "default via 169.254.0.1" in one.exec("ip", "route").stdout
    one.exec("ping", "-c1", "-W3", "198.51.100.1")
    assert "198.51.100.9" in host.sh(f"ip neigh show proxy dev {wire}")
    one.do("stop --force")
    # Another host may have the address next.
    until(host, lambda: "198.51.100.9" not in host.sh(f"ip neigh show proxy dev {wire}"))
    assert not host.sh("ls /run/syscont/netns")


@pytest.mark.parametrize("words", ["routed,ipv4.address=198.51.100.9", "p2p,ipv4.routes=198.51.100.9/32"])
def test_what_goes_with_its_guest_comes_while_that_runs(host: Host, launch: Launch, words: str) -> None:
    """Nothing else on the host has to be put back for it, so its unit need not have known of it."""
    one = launch()
    device(one, "add", "late", "nic", *f"nictype={words}".split(","), "name=lan0")
    assert link(one, "lan0")
    assert "198.51.100.9" in host.sh("ip route")
    one.do("stop --force")
    until(host, lambda: "198.51.100.9" not in host.sh("ip route"))
    one.do("start")
    assert "198.51.100.9" in host.sh("ip route")
    one.do("stop --force")
    assert "198.51.100.9" not in host.sh("ip route")


@pytest.mark.needs_controllers  # and ipvlan, which the kernel of VM hosts has
def test_ipvlan(host: Host, launch: Launch, wire: str) -> None:
    words = f"type=nic,nictype=ipvlan,parent={wire},ipv4.address=198.51.100.10,name=lan0"
    one = launch("", "-d", f"eth0,{words}")
    assert "198.51.100.10/32" in link(one, "lan0")
    assert "default dev lan0" in one.exec("ip", "route").stdout
    host.sh("ip -n far route add 198.51.100.10/32 dev far0 || true")
    one.exec("ping", "-c1", "-W3", "198.51.100.1")


@pytest.mark.parametrize("end", ["stop --force", "remove", "stop"])
def test_a_physical_interface_is_put_back(host: Host, launch: Launch, wire: str, end: str) -> None:
    one = launch("", "-d", f"phys,type=nic,nictype=physical,parent={wire},name=lan0")
    assert link(one, "lan0")
    assert host.run(["ip", "link", "show", wire], check=False).returncode
    one.exec("sh", "-c", "ip addr add 198.51.100.7/24 dev lan0; ip link set lan0 up; ping -c1 -W3 198.51.100.1")
    if end == "remove":
        device(one, "remove", "phys")
    else:
        one.do(end)
    until(host, lambda: not host.run(["ip", "link", "show", wire], check=False).returncode)
    one.do("stop --force")
    assert not host.sh("ls /run/syscont/netns")


def test_the_guest_of_a_profile_s_device_can_go_without(launch: Launch) -> None:
    one = launch("", "-d", "eth0,type=none")
    assert "eth0" not in one.exec("ip", "link").stdout
    device(one, "remove", "eth0")
    assert "eth0" in one.exec("ip", "link").stdout


def test_override(host: Host, launch: Launch) -> None:
    one = launch("", "-d", "eth0,mtu=1300")
    assert "mtu 1300" in link(one, "eth0")
    two = launch()
    device(two, "override", "eth0", "mtu=1280")
    assert "mtu 1280" in link(two, "eth0")
    shown = json.loads(syscont(host, "device", "show", two.name, "--format", "json").stdout)
    assert shown["eth0"] == {"type": "nic", "network": "syscontbr0", "name": "eth0", "mtu": "1280"}


# both doors


def test_the_bus(host: Host, guest: Instance, data: str) -> None:
    path = f"/org/syscont/Manager/instance/{guest.name}"
    call = ["busctl", "call", "org.syscont.Manager", path, "org.syscont.Instance", "ChangeDevices"]
    options = ["3", "type", "disk", "source", data, "path", "/bus"]
    host.run([*call, "a{sa{ss}}as", "1", "data", *options, "0"])
    assert guest.exec("cat", "/bus/file").stdout == "hello\n"
    host.run([*call, "a{sa{ss}}as", "0", "1", "data"])
    assert not mounts(guest, "/bus")


def test_what_is_not_live_stays_as_it_was_launched(host: Host, launch: Launch, data: str) -> None:
    """The file that says how a guest is held must not follow its configuration when devices change."""
    one = launch()
    held = f"/run/syscont/instances/{one.seen()['uuid']}.json"
    before = json.loads(host.read_text(held))
    syscont(host, "config", "set", one.name, "security.nesting=true", "environment.NEW=1")
    device(one, "add", "data", "disk", f"source={data}", "path=/mnt")
    after = json.loads(host.read_text(held))
    assert [share["path"] for share in after["shares"]] == ["/mnt"]
    assert {**after, "shares": []} == before


def test_a_physical_interface_is_for_an_instance_that_is_stopped(launch: Launch, wire: str) -> None:
    one = launch()
    done = device(one, "add", "phys", "nic", "nictype=physical", f"parent={wire}", check=False)
    assert "stop it before" in done
