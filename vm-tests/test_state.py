# SPDX-License-Identifier: Apache-2.0
"""What instances take, and how machines run, as `syscont info` and both doors tell it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Launch
from guests import Instance, syscont, unique, until
from hosts import Host

MIB = 1 << 20


def usage(instance: Instance) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(instance.do("info", "--format", "json").stdout)["usage"]
    return found


def counted_inside(instance: Instance, link: str) -> list[int]:
    """What the guest itself counts of an interface: bytes and packets received, then sent."""
    line = instance.sh(f"grep {link}: /proc/net/dev").partition(":")[2].split()
    return [int(line[at]) for at in (0, 1, 8, 9)]


def told(state: dict[str, Any], device: str) -> list[int]:
    one = state["interfaces"][device]
    return [one[name] for name in ("receivedBytes", "receivedPackets", "sentBytes", "sentPackets")]


def test_processors_time_and_tasks(launch: Launch) -> None:
    instance = launch()
    before = usage(instance)
    assert before["machine"] is None
    instance.sh("dd if=/dev/zero of=/dev/null bs=1M count=2000 2>/dev/null")
    instance.sh("for one in 1 2 3; do sleep 1000 >/dev/null 2>&1 & done")
    after = usage(instance)
    assert before["cpuNSec"] < after["cpuNSec"] <= int(instance.systemd("CPUUsageNSec"))
    assert after["tasks"] == len(instance.processes()) == before["tasks"] + 3


def test_traffic_is_that_of_the_guests_end(launch: Launch) -> None:
    instance = launch()
    gateway = until(instance.host, lambda: instance.sh("ip route").partition("default via ")[2].split(" ")[0])
    instance.sh(f"ping -c 3 -s 1000 {gateway}")
    before = counted_inside(instance, "eth0")
    seen = told(usage(instance), "eth0")
    after = counted_inside(instance, "eth0")
    assert seen[0] > 3000
    assert seen[2] > 3000
    for low, value, high in zip(before, seen, after, strict=True):
        assert low <= value <= high, (before, seen, after)


def test_an_interface_without_an_end_on_the_host(host: Host, launch: Launch) -> None:
    wire = unique("w")
    host.sh(f"ip link add {wire} type veth peer name {wire}p && ip link set {wire} up && ip link set {wire}p up")
    try:
        instance = launch("", "-d", f"mac,type=nic,nictype=macvlan,parent={wire},name=mac0")
        instance.sh("ip link set mac0 up; ip address add 192.0.2.1/24 dev mac0; ping -c 1 -W 1 192.0.2.2 || :")
        state = usage(instance)
        assert state["interfaces"]["mac"]["link"] == ""
        assert state["interfaces"]["eth0"]["link"]
        assert told(state, "mac")[3] > 0
    finally:
        host.sh(f"ip link delete {wire}")


def test_everybody_may_ask(host: Host, guest: Instance) -> None:
    path = f"/org/syscont/Manager/instance/{guest.name.replace('-', '_2d')}"
    words = ["busctl", "--json=short", "call", "org.syscont.Manager", path, "org.syscont.Instance", "GetState"]
    (state,) = json.loads(host.run(words, user="alice").stdout)["data"]
    assert state["CPUUsageNSec"]["data"] > 0
    assert state["Interfaces"]["data"]["eth0"]["ReceivedPackets"]["data"] > 0


def test_columns_of_what_is_in_use(host: Host, guest: Instance, launch: Launch) -> None:
    off = launch(verb="create")
    lines = syscont(host, "list", "--format", "csv", "-c", "nN").stdout.splitlines()
    assert f"{off.name}," in lines
    assert any(line.startswith(f"{guest.name},") and int(line.partition(",")[2]) > 0 for line in lines)


@pytest.mark.needs_controllers
def test_memory(host: Host, launch: Launch) -> None:
    instance = launch("", "--config", "limits.memory=256MiB")
    instance.sh("dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null")
    instance.sh("sleep 1000 >/dev/null 2>&1 &")
    state = usage(instance)
    memory = state["memory"]
    assert memory["limit"] == 256 * MIB
    assert 0 < memory["current"] < memory["peak"] <= 256 * MIB
    assert memory["peak"] > 100 * MIB
    assert memory["host"] == memory["current"]
    assert state["tasks"] == int(instance.systemd("TasksCurrent"))
    assert "Memory: " in instance.do("info").stdout
    assert "iB," in syscont(host, "list", instance.name, "--format", "csv", "-c", "mN").stdout


# virtual machines


@pytest.fixture(scope="module")
def machine(vm_host: Host, debian_vm: str) -> Iterator[Instance]:
    """One that boots; leave it running."""
    instance = Instance(vm_host, unique("state"))
    done = syscont(vm_host, "launch", debian_vm, instance.name, "-c", "boot.mode=direct", "-c", "limits.cpu=2")
    # On no kind of host is there a KVM that the tests could rely on, so both ways are right, and only together.
    emulated = "is emulated, which is slow: " in done.stderr
    assert done.stderr.startswith(f"syscont: warning: {instance.name} ") == emulated
    yield instance
    syscont(vm_host, "delete", "--force", instance.name)


def warnings(instance: Instance) -> int:
    instance.host.run(["journalctl", "--sync"])
    return instance.logs().count(" is emulated, which is slow: ")


def test_a_machine_says_how_it_runs(machine: Instance) -> None:
    said = usage(machine)["machine"]
    assert (said["accelerator"] == "tcg") == bool(said["why"])
    assert warnings(machine) == (1 if said["why"] else 0)
    assert said["boot"] == "direct"
    assert said["processors"] == 2
    assert sum(one["processors"] for one in said["cookies"]) == 2
    text = machine.do("info").stdout
    assert "Boot: direct, without firmware" in text
    assert f"Accelerator: none: emulated, which is slow ({said['why']})" in text or "Accelerator: KVM" in text
    machine.host.run(["systemctl", "restart", "syscontd"])
    until(machine.host, lambda: usage(machine)["machine"]["processors"] == 2)
    assert warnings(machine) == (1 if said["why"] else 0), "a daemon that finds it does not say so again"


@pytest.mark.heavy
def test_what_a_machine_takes(machine: Instance) -> None:
    until(machine.host, lambda: usage(machine)["machine"]["agent"], patience=900)
    until(machine.host, lambda: usage(machine)["memory"]["current"], patience=60)
    state = usage(machine)
    memory, disk = state["memory"], state["disks"]["root"]
    assert memory["limit"] == 1024 * MIB
    assert 16 * MIB < memory["current"] < memory["limit"]
    assert 16 * MIB < memory["host"] <= memory["peak"]
    assert state["cpuNSec"] > 1_000_000_000
    assert disk["size"] == 10 << 30
    assert disk["used"] < disk["size"]
    assert disk["read"] > MIB
    assert disk["written"] > 0
    until(machine.host, lambda: machine.seen()["addresses"], patience=300)
    address = machine.address()
    before = told(state, "eth0")
    machine.host.run(["ping", "-c", "3", "-s", "1000", address])
    after = told(usage(machine), "eth0")
    for at in (0, 2):
        assert after[at] - before[at] >= 3000


def test_a_machine_that_hangs_costs_two_seconds(machine: Instance) -> None:
    leader = str(machine.leader)
    machine.host.run(["kill", "-STOP", leader])
    try:
        begun = time.monotonic()
        state = usage(machine)
        assert time.monotonic() - begun < 2 + 2 * machine.host.slowness
        assert state["machine"]["processors"] is None
        assert state["memory"]["current"] is None
        assert state["memory"]["host"] > 0
        assert state["cpuNSec"] > 0
        assert told(state, "eth0")[0] > 0
    finally:
        machine.host.run(["kill", "-CONT", leader])
    until(machine.host, lambda: usage(machine)["machine"]["processors"] == 2)


def test_one_that_does_not_run(machine: Instance) -> None:
    machine.do("stop", "--force")
    try:
        state = usage(machine)
        assert state["machine"] is None
        assert state["cpuNSec"] is None
        assert state["disks"]["root"]["size"] == 10 << 30
        assert state["disks"]["root"]["used"] > 0
    finally:
        before = warnings(machine)
        said = machine.do("start").stderr
    assert warnings(machine) - before == said.count("is emulated")
