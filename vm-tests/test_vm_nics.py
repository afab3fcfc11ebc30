# SPDX-License-Identifier: Apache-2.0
"""Interfaces of virtual machines on links of the host's. Most machines here have an empty disk: what they have is seen
from outside. One boots, and is spoken to."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from guests import Done, Instance, python, syscont, unique, until
from hosts import Host

MAC = "02:00:5e:00:53:01"
OPTIONS = ("--vm", "--config", "limits.memory=128MiB")
BOOT = 240.0
NEAR, FAR, GUEST = "wire0", "198.51.100.1", "198.51.100.2"


@pytest.fixture(scope="module")
def empty(vm_host: Host) -> str:
    """Alias of an image that boots nothing."""
    vm_host.sh("truncate --size 64M /var/tmp/empty")
    syscont(vm_host, "image", "import", "/var/tmp/empty", "--format", "raw", "--alias", "empty")
    return "empty"


@pytest.fixture(scope="module", autouse=True)
def wire(vm_host: Host) -> Iterator[None]:
    """A link of the host's with something at its other end."""
    vm_host.sh(
        f"ip netns add far; ip link add {NEAR} mtu 1400 type veth peer name far0 netns far;"
        f"ip link set {NEAR} up; ip -n far addr add {FAR}/24 dev far0; ip -n far link set far0 up"
    )
    yield
    vm_host.sh(f"ip netns del far; ip link del {NEAR} 2>/dev/null || true")


class Machines:
    """Machines of a test's own."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.made: list[Instance] = []

    def launch(self, image: str, *devices: str, verb: str = "launch", more: tuple[str, ...] = OPTIONS) -> Instance:
        one = Instance(self.host, unique("n"))
        self.made.append(one)
        options = [word for device in devices for word in ("--device", device)]
        syscont(self.host, verb, *more, *options, image, one.name)
        return one


@pytest.fixture
def machines(vm_host: Host) -> Iterator[Machines]:
    found = Machines(vm_host)
    yield found
    for one in found.made:
        syscont(vm_host, "delete", "--force", one.name, check=False)


def inside(one: Instance, *argv: str) -> str:
    """A command in QEMU's network namespace."""
    return one.host.run(["nsenter", "--target", str(one.leader), "--net", *argv]).stdout


def links(one: Instance) -> dict[str, dict[str, Any]]:
    """What is there, by hardware address."""
    found = json.loads(inside(one, "ip", "-json", "-details", "link"))
    return {each["address"]: each for each in found if each["link_type"] == "ether"}


def netdevs(one: Instance) -> str:
    path = f"/run/syscont/vm/{one.seen()['uuid']}.control"
    said = json.loads(python(one.host, "ask_qemu", path, "query-rx-filter").stdout)
    return json.dumps(said)


def refused(host: Host, *argv: str) -> str:
    done: Done = syscont(host, *argv, check=False)
    assert done.returncode != 0
    return done.stderr


def test_a_macvlan_is_where_qemu_is(machines: Machines, empty: str) -> None:
    one = machines.launch(empty, f"lan,type=nic,nictype=macvlan,parent={NEAR},hwaddr={MAC},mtu=1300")
    found = links(one)[MAC]
    assert found["mtu"] == 1300
    assert found["linkinfo"] == {"info_kind": "macvtap", "info_data": found["linkinfo"]["info_data"]}
    assert found["linkinfo"]["info_data"]["mode"] == "bridge"
    # What is for many is not for those alone whom the host's kernel knows of.
    assert {"UP", "ALLMULTI", "LOWER_UP"} <= set(found["flags"])
    assert MAC not in one.host.sh("ip link")
    assert inside(one, "ip", "-6", "address") == ""
    assert MAC in netdevs(one)


def test_qemu_has_it_by_its_descriptor_alone(machines: Machines, empty: str) -> None:
    one = machines.launch(empty, f"lan,type=nic,nictype=macvlan,parent={NEAR}")
    root = f"/proc/{one.leader}/root"
    assert "tap" not in one.host.sh(f"ls {root}/dev")
    assert "char-macvtap" in one.systemd("DeviceAllow")
    # The one of syscont's own bridge, and this one.
    opened = one.host.sh(f"readlink /proc/{one.leader}/fd/*").split()
    assert sorted(path for path in opened if "tap" in path or "tun" in path) == ["/dev/net/tun", "/tap"]


def test_it_ends_with_qemu_and_comes_back(machines: Machines, empty: str) -> None:
    """However that ends; by systemctl, too."""
    one = machines.launch(empty, f"lan,type=nic,nictype=macvlan,parent={NEAR},hwaddr={MAC}")
    before = one.host.sh("ip -brief link | wc -l")
    one.host.run(["kill", "-KILL", str(one.leader)])
    until(one.host, lambda: one.state == "failed")
    assert int(one.host.sh("ip -brief link | wc -l")) == int(before) - 1  # the bridge's tap
    one.host.run(["systemctl", "start", "--no-block", one.unit])
    until(one.host, lambda: one.leader)
    assert MAC in links(one)


def test_it_comes_while_the_machine_runs(machines: Machines, empty: str) -> None:
    one = machines.launch(empty)
    syscont(one.host, "device", "add", one.name, "lan", "nic", "nictype=macvlan", f"parent={NEAR}", f"hwaddr={MAC}")
    assert MAC in links(one)
    assert MAC in netdevs(one)
    assert "has no link nowhere0" in refused(
        one.host, "device", "add", one.name, "more", "nic", "nictype=macvlan", "parent=nowhere0"
    )
    assert len(links(one)) == 1


def test_a_name_that_is_taken_leaves_nothing(machines: Machines, empty: str) -> None:
    """Two with one hardware address on one parent: the kernel refuses the second."""
    device = f"lan,type=nic,nictype=macvlan,parent={NEAR},hwaddr={MAC}"
    machines.launch(empty, device)
    one = machines.launch(empty, verb="create")
    syscont(one.host, "device", "add", one.name, "lan", "nic", "nictype=macvlan", f"parent={NEAR}", f"hwaddr={MAC}")
    assert "in use" in one.do("start", check=False).stderr
    assert one.state in ("failed", "stopped")


def test_managed_networks_of_other_links(machines: Machines, empty: str) -> None:
    host = machines.host
    syscont(host, "network", "create", "--type", "macvlan", "lan9", f"parent={NEAR}", "mtu=1350")
    try:
        one = machines.launch(empty, "eth0,type=nic,network=lan9")
        (found,) = links(one).values()
        assert found["mtu"] == 1350
        one.do("delete", "--force")
    finally:
        syscont(host, "network", "delete", "lan9")


def test_what_is_between_the_host_and_one_machine(machines: Machines, empty: str) -> None:
    """p2p: a tap that is no bridge's port, with routes to what is behind it."""
    one = machines.launch(empty, "wan,type=nic,nictype=p2p,host_name=vethsp-p2p,ipv4.routes=203.0.113.0/28")
    found = json.loads(one.host.sh("ip -json -details link show vethsp-p2p"))[0]
    assert found["linkinfo"]["info_kind"] == "tun"
    assert "master" not in found
    assert "vethsp-p2p" in one.host.sh("ip route show 203.0.113.0/28")
    one.do("stop", "--force")
    assert one.host.run(["ip", "link", "show", "vethsp-p2p"], check=False).returncode != 0


def test_hardware_that_is_none_is_refused(machines: Machines, empty: str) -> None:
    one = machines.launch(empty, f"lan,type=nic,nictype=physical,parent={NEAR}", verb="create")
    why = one.do("start", check=False).stderr
    assert "device lan" in why or "vfio-pci" in why


@pytest.mark.heavy
def test_a_guest_is_reached_by_a_macvlan(machines: Machines, debian_vm: str) -> None:
    more = ("--vm", "--config", "boot.mode=direct", "--config", "limits.memory=512MiB")
    one = machines.launch(debian_vm, f"lan,type=nic,nictype=macvlan,parent={NEAR},hwaddr={MAC}", more=more)
    until(one.host, lambda: one.exec("true", check=False).returncode == 0, patience=BOOT)
    until(one.host, lambda: one.state == "running", patience=BOOT)
    name = one.sh(f"grep -l {MAC} /sys/class/net/*/address").split("/")[-2]
    one.sh(f"ip address add {GUEST}/24 dev {name}; ip link set {name} up")
    reach = ["ip", "netns", "exec", "far", "ping", "-c", "3", "-W", "5", GUEST]
    assert " 0% packet loss" in one.host.run(reach, check=False).stdout
    # By IPv6 it is found by what is for many.
    address = one.sh(f"ip -6 -brief address show dev {name} scope link").split()[2].partition("/")[0]
    until(one.host, lambda: "tentative" not in one.sh(f"ip -6 address show dev {name}"))
    reach6 = ["ip", "netns", "exec", "far", "ping", "-c", "3", "-W", "5", f"{address}%far0"]
    assert " 0% packet loss" in one.host.run(reach6, check=False).stdout
    seen = json.loads(syscont(one.host, "info", one.name, "--format", "json").stdout)
    assert seen["usage"]["interfaces"]["lan"]["receivedBytes"] > 300
    syscont(one.host, "device", "remove", one.name, "lan")
    assert not any(each == MAC for each in links(one))
    assert one.exec("test", "-e", f"/sys/class/net/{name}", check=False).returncode != 0
    syscont(one.host, "device", "add", one.name, "lan", "nic", "nictype=macvlan", f"parent={NEAR}", f"hwaddr={MAC}")
    assert MAC in links(one)
    until(one.host, lambda: MAC in one.sh("cat /sys/class/net/*/address"))
